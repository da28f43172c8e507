package mcpoauth

import (
	"slices"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// jwksDocument returns a JWK Set (RFC 7517 section 5).
func jwksDocument(set keySet, _ string, now time.Time) any {
	keys := set.at(now)
	jwks := jwkSet{Keys: make([]rawJWK, len(keys))}
	for i, key := range keys {
		jwks.Keys[i] = key.jwk
	}
	return jwks
}

// issuerMetadata is the part of an OpenID Connect provider's metadata that authorization servers need to verify its
// JWTs (OpenID Connect Discovery section 3). Endpoints for users are missing: users cannot log in at the mount.
type issuerMetadata struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	SigningAlgs   []string `json:"id_token_signing_alg_values_supported"`
}

func issuerDocument(set keySet, id string, now time.Time) any {
	mount := settings{PublicURL: set.publicURL}
	var algs []string
	for _, key := range set.at(now) {
		algs = append(algs, key.alg)
	}
	slices.Sort(algs)
	return issuerMetadata{
		Issuer:        mount.url(issuerPrefix + id),
		JWKSURI:       mount.url(identityIssuer.jwksPath(id)),
		ResponseTypes: []string{"id_token"},
		SubjectTypes:  []string{"public"},
		SigningAlgs:   slices.Compact(algs),
	}
}

// clientMetadata is a Client ID Metadata Document (draft-ietf-oauth-client-id-metadata-document), with names from RFC
// 7591. It has only these members: some authorization servers refuse unknown ones.
type clientMetadata struct {
	ClientID      string           `json:"client_id"`
	ClientName    string           `json:"client_name"`
	RedirectURIs  []string         `json:"redirect_uris"`
	GrantTypes    []string         `json:"grant_types"`
	ResponseTypes []string         `json:"response_types"`
	AuthMethod    grant.AuthMethod `json:"token_endpoint_auth_method"`
	JWKSURI       string           `json:"jwks_uri"`
}

func clientDocument(set keySet, id string, _ time.Time) any {
	mount := settings{PublicURL: set.publicURL}
	url := mount.url(documentPrefix + id)
	return clientMetadata{
		ClientID:   url,
		ClientName: serverOf(id),
		// The draft requires a redirect URI, for the grants of users. Nothing is served at this one.
		RedirectURIs:  []string{url + "/none"},
		GrantTypes:    []string{string(grant.ClientCredentials)},
		ResponseTypes: []string{},
		AuthMethod:    grant.PrivateKeyJWT,
		JWKSURI:       mount.url(identityDocument.jwksPath(id)),
	}
}
