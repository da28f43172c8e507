# Serves Vault's API on loopback, and logs in by itself: a broker on this host needs no Vault token, and
# reads http://127.0.0.1:8100/v1/mcp-oauth/token/files.
# Set VAULT_ADDR, and run it in the directory with role-id and secret-id:
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
  # The proxy uses its own token, even if a client sends one.
  use_auto_auth_token = "force"
}

# No cache block: it keeps only answers with leases, and these have none.
listener "tcp" {
  address     = "127.0.0.1:8100"
  tls_disable = true

  # Requires the header X-Vault-Request: true, which web pages can't send.
  require_request_header = true
}
