# Keeps the configuration file of Kuadrant's MCP gateway, where it runs without Kubernetes. The gateway
# watches that file.
# Run it with VAULT_ADDR set, and with role-id and secret-id in the working directory:
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
  perms                = "0600" # for a gateway that runs as the Agent's user; else 0640, and a group of both
  error_on_missing_key = true
}
