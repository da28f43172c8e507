# A broker on this host calls http://127.0.0.1:8300/files. The proxy adds the token and calls the MCP server.
# Set VAULT_ADDR, and run it in the directory with role-id and secret-id:
#   mcp-token-proxy -config=proxy.hcl

listener "tcp" {
  address = "127.0.0.1:8300"

  # hosts = ["files.mcp.local"] # names of the proxy besides 127.0.0.1 and localhost
}

# Or only for one user of the host:
# listener "unix" {
#   address = "/run/mcp-token-proxy/socket"
# }

# /healthz and /metrics
monitoring {
  address = "127.0.0.1:8301"
}

# As in Vault Agent's configuration, but without remove_secret_id_file_after_reading: the proxy keeps the file. Other
# methods are "kubernetes" with role, and "token_file" with token_file_path, for the sink of a Vault Agent. Without
# auto_auth set VAULT_TOKEN, or write the address of a Vault Proxy that logs in.
auto_auth {
  method "approle" {
    config = {
      role_id_file_path   = "role-id"
      secret_id_file_path = "secret-id"
    }
  }
}

route "files" {
  upstream   = "https://files.example.com/mcp"
  token_path = "mcp-oauth/token/files"

  # ca_cert             = "ca.pem" # CAs of the MCP server; default: the system's
  # allow_insecure_http = true     # send the token over http beyond loopback
  # kept_body           = 4194304  # bytes of a body kept in memory to send the request again with another token
}
