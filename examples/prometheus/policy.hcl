# Permits only scrapes. Write a path for each mount.
path "mcp-oauth/metrics" {
  capabilities = ["read"]
}
