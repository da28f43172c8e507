# Keeps the token in a file that Envoy's credential_injector reads.
# Run it with VAULT_ADDR set, and with role-id and secret-id in the working directory, in which Envoy runs too:
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
  destination          = "secrets/files.yaml" # a directory of its own, which Envoy watches
  perms                = "0600"               # for an Envoy that runs as the Agent's user; else 0640, and a group of both
  error_on_missing_key = true
}
