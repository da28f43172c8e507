# Keeps a Vault token in a file for Prometheus, which reads the file at each scrape.

vault {
  address = "https://vault.example.com:8200"
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path                   = "/etc/vault-agent-prometheus/role-id"
      secret_id_file_path                 = "/etc/vault-agent-prometheus/secret-id"
      remove_secret_id_file_after_reading = false
    }
  }

  sink "file" {
    config = {
      path = "/run/vault-agent-prometheus/token"
      mode = 0640
    }
  }
}
