# May scrape, and nothing else.
path "mcp-oauth/metrics" {
  capabilities = ["read"]
}
