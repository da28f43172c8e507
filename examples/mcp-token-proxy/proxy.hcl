# http://127.0.0.1:8300/files is the MCP server with its token, for a broker on this host.
# Run it with VAULT_ADDR set, and with role-id and secret-id in the working directory:
#   mcp-token-proxy -config=proxy.hcl

listener "tcp" {
  address = "127.0.0.1:8300"

  # hosts = ["files.mcp.local"] # names by which it is called, beside 127.0.0.1 and localhost
}

# Or, for one user of the host alone:
# listener "unix" {
#   address = "/run/mcp-token-proxy/socket"
# }

# /healthz and /metrics
monitoring {
  address = "127.0.0.1:8301"
}

# As in Vault Agent's configuration, without remove_secret_id_file_after_reading: the file stays. Other methods:
# "kubernetes" with role, and "token_file" with token_file_path, for the sink of a Vault Agent. Without auto_auth:
# VAULT_TOKEN, or the address of a Vault Proxy that logs in.
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

  # ca_cert             = "ca.pem" # of the MCP server's CA, unless the system has it
  # allow_insecure_http = true     # http to a host other than loopback
  # kept_body           = 4194304  # bytes of a request kept in memory, to send it again with another token
}
