# Keeps the configuration file of Kuadrant's MCP gateway, if it runs without Kubernetes. The gateway watches the file.
# Set VAULT_ADDR, and run it in the directory with role-id and secret-id:
#   vault agent -config=agent.hcl

auto_auth {
  method "approle" {
    config = {
      role_id_file_path                   = "role-id"
      secret_id_file_path                 = "secret-id"
      remove_secret_id_file_after_reading = false
    }
  }
}

template {
  source               = "config.yaml.ctmpl"
  destination          = "config.yaml"
  perms                = "0600" # if the gateway runs as the Agent's user; else 0640, with a group that both have
  error_on_missing_key = true
}
