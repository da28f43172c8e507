# Answers Vault's API on loopback with a login of its own: a broker on this host needs no Vault token,
# and reads http://127.0.0.1:8100/v1/mcp-oauth/token/files.
# Run it with VAULT_ADDR set, and with role-id and secret-id in the working directory:
#   vault proxy -config=proxy.hcl

auto_auth {
  method "approle" {
    config = {
      role_id_file_path                   = "role-id"
      secret_id_file_path                 = "secret-id"
      remove_secret_id_file_after_reading = false
    }
  }
}

api_proxy {
  # Whatever token a client sends, the proxy's own is used.
  use_auto_auth_token = "force"
}

# No cache block: tokens are not leases, and there is nothing that it could keep.
listener "tcp" {
  address     = "127.0.0.1:8100"
  tls_disable = true

  # Only requests with the header X-Vault-Request: true, which no web page can make a browser send.
  require_request_header = true
}
