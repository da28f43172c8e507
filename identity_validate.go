package mcpoauth

import (
	"strings"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// validIdentity checks the combination of identity, grant and the fields that depend on them.
func (c *config) validIdentity() error {
	switch {
	case c.Grant == grant.JWTBearer && c.Identity != identityIssuer:
		return badRequest("grant=jwt_bearer goes with identity=issuer: write identity=issuer, or grant=client_credentials")
	case c.AssertionSubject != "" && c.Identity != identityIssuer:
		return badRequest("assertion_subject goes with identity=issuer, and with identity=%s the subject is the client's id: write assertion_subject=\"\"", c.Identity)
	case c.Identity == identityStatic:
		return nil
	case strings.HasPrefix(c.AssertionSubject, settings{PublicURL: c.PublicURL}.url(issuerPrefix)):
		// One of the mount's issuers. With iss = sub the assertion would be a client's statement about itself.
		return badRequest("assertion_subject must not be an issuer URL of this mount: with iss = sub, authorization servers take the assertion for a client's own; write another subject")
	case c.Identity == identityDocument && c.ClientID != "":
		return badRequest("client_id does not go with identity=document: the client's id is the document's URL, which keys/ shows; write client_id=\"\"")
	case c.PublishJWKS:
		return badRequest("publish_jwks goes with identity=static: with identity=%s the keys are published anyway; write publish_jwks=false", c.Identity)
	case c.KeyID != nil:
		return badRequest("key_id does not go with identity=%s: authorization servers find the key by its thumbprint; write key_id=thumbprint", c.Identity)
	case c.Grant == grant.JWTBearer && c.AuthMethod == grant.PrivateKeyJWT:
		return badRequest("token_endpoint_auth_method=private_key_jwt does not go with grant=jwt_bearer: one key must not sign both the grant and the client's authentication; write another method, or token_endpoint_auth_method=\"\"")
	case c.Grant == grant.JWTBearer && c.AssertionType == grant.TypeClientAuthentication:
		return badRequest("assertion_type=%s does not go with grant=jwt_bearer, whose assertion does not authenticate the client: write assertion_type=JWT", grant.TypeClientAuthentication)
	case c.Grant == grant.JWTBearer && c.AuthMethod != "" && c.ClientSecret == "" && c.ClientCertificate == "":
		return badRequest("token_endpoint_auth_method=%s needs client_secret or client_certificate: write one of them, or token_endpoint_auth_method=\"\"", c.AuthMethod)
	case c.Grant != grant.JWTBearer && c.AuthMethod != "" && c.AuthMethod != grant.PrivateKeyJWT:
		return badRequest("with identity=%s and grant=client_credentials the only token_endpoint_auth_method is private_key_jwt: write token_endpoint_auth_method=\"\"", c.Identity)
	}
	return nil
}

// oneResource checks that the JWT bearer grant asks for exactly one resource. r is nil for the config itself.
func (c *config) oneResource(r *role) error {
	resources := c.parameters(r).Resources
	if c.Grant != grant.JWTBearer || len(resources) == 1 {
		return nil
	}
	return badRequest("grant=jwt_bearer asks for exactly one resource, and this is for %d: write resource=", len(resources))
}

// pinPublicURL pins the mount's URL for an identity if the write changes or repeats the identity field (given).
func (c *config) pinPublicURL(old *config, given bool, mount settings) error {
	switch {
	case c.Identity != identityIssuer && c.Identity != identityDocument:
		c.PublicURL = ""
		return nil
	case old != nil && c.Identity == old.Identity && !given:
		return nil
	case mount.PublicURL == "":
		return badRequest("identity=%s needs the mount's URL, as authorization servers see it: write settings public_url=https://vault.example.com/v1/mcp-oauth first", c.Identity)
	}
	c.PublicURL = mount.PublicURL
	return nil
}
