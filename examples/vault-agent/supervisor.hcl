# Runs the command mcp-broker with the value of the Authorization header in MCP_AUTHORIZATION, and
# restarts it for each new token.
# Set VAULT_ADDR, and run it in the directory with role-id and secret-id:
#   vault agent -config=supervisor.hcl

auto_auth {
  method "approle" {
    config = {
      role_id_file_path                   = "role-id"
      secret_id_file_path                 = "secret-id"
      remove_secret_id_file_after_reading = false
    }
  }
}

env_template "MCP_AUTHORIZATION" {
  contents             = "{{ with secret \"mcp-oauth/token/files\" }}{{ .Data.authorization }}{{ end }}"
  error_on_missing_key = true
}

exec {
  command                   = ["mcp-broker"]
  restart_on_secret_changes = "always"
  restart_stop_signal       = "SIGTERM"
}
