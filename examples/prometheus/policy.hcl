# May scrape, and nothing else. A path for each mount.
path "mcp-oauth/metrics" {
  capabilities = ["read"]
}
