# Keeps the value of the Authorization header in the file "authorization".
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
  destination          = "authorization"
  perms                = "0600"
  error_on_missing_key = true

  # No parameters after the path: with them Vault Agent writes instead of reads.
  contents = <<EOT
{{- with secret "mcp-oauth/token/files" -}}
{{ .Data.authorization }}
{{- end -}}
EOT

  # For a broker that does not read the file again by itself:
  # exec {
  #   command = ["systemctl", "reload", "mcp-broker"]
  # }
}
