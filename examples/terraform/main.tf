# A client without a secret: the plugin makes its key, and the authorization server fetches the public half
# from the jwks_uri that mcp-oauth/keys/files shows. So Terraform's state holds nothing to be kept secret.
# Not run with Terraform: what it writes was written to a real Vault.
terraform {
  required_version = ">= 1.3"
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = "~> 5.9"
    }
  }
}

# VAULT_ADDR and VAULT_TOKEN say which Vault, and as whom.
provider "vault" {}

resource "vault_generic_endpoint" "files" {
  path = "mcp-oauth/config/files"

  # A read returns more than was written, and never what is for writing only.
  ignore_absent_fields = true

  # Lists as lists, durations in seconds: as the plugin returns them, or each plan shows a change.
  data_json = jsonencode({
    server_url                 = "https://files.example.com/mcp"
    client_id                  = "mcp-broker"
    token_endpoint_auth_method = "private_key_jwt"
    publish_jwks               = true
    scopes                     = ["files:read"]
    idle_timeout               = 86400
  })
}

resource "vault_generic_endpoint" "files_writer" {
  # Deleting the config deletes its roles: this order deletes each by itself.
  depends_on = [vault_generic_endpoint.files]

  path                 = "mcp-oauth/role/files/writer"
  ignore_absent_fields = true

  data_json = jsonencode({
    scopes = ["files:read", "files:write"]

    # The authorization server does not know the new key yet. Take this out once it does: then an apply
    # fails where no token is to be had.
    verify = false
  })
}

resource "vault_policy" "broker" {
  name   = "mcp-broker"
  policy = file("${path.module}/../policy.hcl")
}
