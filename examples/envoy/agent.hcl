# Keeps the token in a file that Envoy's credential_injector reads.
# Set VAULT_ADDR, and run it in the directory with role-id and secret-id, in which Envoy runs too:
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
  source               = "files.yaml.ctmpl"
  destination          = "secrets/files.yaml" # Envoy watches this directory, which holds nothing else
  perms                = "0600"               # if Envoy runs as the Agent's user; else 0640, with a group that both have
  error_on_missing_key = true
}
