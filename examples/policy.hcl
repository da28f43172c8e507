# A broker's policy: read the token of the MCP server "files", and report that the server refused it. Without
# required_parameters, a report without token_id would replace a token that no server refused.
path "mcp-oauth/token/files" {
  capabilities = ["read"]
}

path "mcp-oauth/refresh/files" {
  capabilities        = ["update"]
  required_parameters = ["token_id"]
}
