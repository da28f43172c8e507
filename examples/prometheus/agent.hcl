# Keeps a Vault token in a file, which Prometheus reads at each scrape. Run this Agent as Prometheus's user, who alone
# may read the directory.

vault {
  address = "https://vault.example.com:8200"
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path                   = "/var/lib/vault-agent-prometheus/role-id"
      secret_id_file_path                 = "/var/lib/vault-agent-prometheus/secret-id"
      remove_secret_id_file_after_reading = false
    }
  }

  sink "file" {
    config = {
      path = "/var/lib/vault-agent-prometheus/token"
      mode = 0600
    }
  }
}
