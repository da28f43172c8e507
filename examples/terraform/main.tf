# A client without a secret: the plugin makes its key, and the authorization server fetches the public key from
# the jwks_uri that mcp-oauth/keys/files shows. So Terraform's state holds no secret.
# Not run with Terraform: a test writes the same data to a real Vault.
terraform {
  required_version = ">= 1.3"
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = "~> 5.9"
    }
  }
}

# Set VAULT_ADDR and VAULT_TOKEN.
provider "vault" {}

resource "vault_generic_endpoint" "files" {
  path = "mcp-oauth/config/files"

  # A read returns more fields than were written, but not verify.
  ignore_absent_fields = true

  # Write lists as lists and durations in seconds, as a read returns them. Otherwise every plan shows a change.
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
  # Deleting the config deletes its roles too. With this order Terraform deletes the role first.
  depends_on = [vault_generic_endpoint.files]

  path                 = "mcp-oauth/role/files/writer"
  ignore_absent_fields = true

  data_json = jsonencode({
    scopes = ["files:read", "files:write"]

    # The authorization server does not know the new key yet. Remove this line once it does: then an apply fails
    # if it gets no token.
    verify = false
  })
}

resource "vault_policy" "broker" {
  name   = "mcp-broker"
  policy = file("${path.module}/../policy.hcl")
}
