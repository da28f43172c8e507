# A broker's policy: read the token of the MCP server "files", and have it replaced when the server
# refused it. Without required_parameters a broker could spend the authorization server's quota.
path "mcp-oauth/token/files" {
  capabilities = ["read"]
}

path "mcp-oauth/refresh/files" {
  capabilities        = ["update"]
  required_parameters = ["token_id"]
}
