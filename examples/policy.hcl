# A broker's policy: read the token of the MCP server "files", and have it replaced when the server
# refused it. Without required_parameters a late report would replace a token that nobody refused.
path "mcp-oauth/token/files" {
  capabilities = ["read"]
}

path "mcp-oauth/refresh/files" {
  capabilities        = ["update"]
  required_parameters = ["token_id"]
}
