package mcpoauth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// unauthenticated are the paths answered without a Vault token, in the form of logical.Paths.
var unauthenticated = []string{jwksPrefix + "*", issuerPrefix + "*", documentPrefix + "*"}

// isPublic reports whether a path is unauthenticated.
func isPublic(path string) bool {
	return slices.ContainsFunc(unauthenticated, func(pattern string) bool {
		return strings.HasPrefix(path, strings.TrimSuffix(pattern, "*"))
	})
}

// publication is a kind of document for authorization servers. A config publishes it under its public id.
type publication struct {
	pattern, suffix       string // suffix of the OpenAPI operation id
	synopsis, description string
	response              string
	fields                map[string]*framework.FieldSchema
	of                    []identity // the identities of the configs that publish it
	document              func(keySet, string, time.Time) any
}

func (b *backend) publishedPaths() []*framework.Path {
	keys := map[string]*framework.FieldSchema{"keys": {Type: framework.TypeSlice, Description: "The public keys as JWKs."}}
	id := framework.GenericNameRegex("id")
	var paths []*framework.Path
	for _, p := range []publication{
		{
			pattern: jwksPrefix + id, suffix: "jwks",
			synopsis:    "Read a client's public keys as a JWK Set (RFC 7517), with publish_jwks or identity=document.",
			description: "The client's jwks_uri, for the authorization server, which needs no Vault token.",
			response:    "The JWK Set", fields: keys,
			of: []identity{identityStatic, identityDocument}, document: jwksDocument,
		},
		{
			pattern: issuerPrefix + id + "/jwks", suffix: "issuer-jwks",
			synopsis:    "Read an issuer's public keys as a JWK Set (RFC 7517), with identity=issuer.",
			description: "The jwks_uri in the issuer's metadata, for the authorization server, which needs no Vault token.",
			response:    "The JWK Set", fields: keys,
			of: []identity{identityIssuer}, document: jwksDocument,
		},
		{
			pattern: issuerPrefix + id + `/\.well-known/openid-configuration`, suffix: "issuer",
			synopsis:    "Read an issuer's metadata (OpenID Connect Discovery), with identity=issuer.",
			description: "The issuer's metadata, for the authorization server, which needs no Vault token.",
			response:    "The metadata", fields: map[string]*framework.FieldSchema{
				"issuer":                                textSchema("The issuer's identifier."),
				"jwks_uri":                              textSchema("The URL of its public keys."),
				"response_types_supported":              textsSchema("Required by OpenID Connect."),
				"subject_types_supported":               textsSchema("Required by OpenID Connect."),
				"id_token_signing_alg_values_supported": textsSchema("The algorithms with which the keys sign."),
			},
			of: []identity{identityIssuer}, document: issuerDocument,
		},
		{
			pattern: documentPrefix + id, suffix: "client",
			synopsis:    "Read a client's description (Client ID Metadata Document), with identity=document.",
			description: "The client's id is this URL. For the authorization server, which needs no Vault token.",
			response:    "The document", fields: map[string]*framework.FieldSchema{
				"client_id":                  textSchema("The document's URL."),
				"client_name":                textSchema("The server's name."),
				"redirect_uris":              textsSchema("An unused URL: no user logs in."),
				"grant_types":                textsSchema("A list with client_credentials."),
				"response_types":             textsSchema("An empty list."),
				"token_endpoint_auth_method": textSchema("Always private_key_jwt."),
				"jwks_uri":                   textSchema("The URL of its public keys."),
			},
			of: []identity{identityDocument}, document: clientDocument,
		},
	} {
		paths = append(paths, &framework.Path{
			Pattern:         p.pattern + "$",
			Fields:          map[string]*framework.FieldSchema{"id": publicIDField()},
			HelpSynopsis:    p.synopsis,
			HelpDescription: strings.TrimSpace(keysHelp),
			DisplayAttrs:    display(p.suffix),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback:    b.servePublic(p),
					Summary:     p.synopsis,
					Description: p.description,
					Responses: map[int][]framework.Response{
						http.StatusOK: {{Description: p.response, MediaType: "application/json", Fields: p.fields}},
					},
				},
			},
		})
	}
	return paths
}

func publicIDField() *framework.FieldSchema {
	return pathSchema("The id in the published URLs of a config, which keys/<server> shows.")
}

// notPublished is the only error of the unauthenticated paths. It does not reveal whether a config exists.
func notPublished() error {
	return logical.CodedError(http.StatusNotFound, "nothing is published here")
}

// servePublic serves callers without a Vault token, from memory.
func (b *backend) servePublic(p publication) framework.OperationFunc {
	return func(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		id, _ := d.Get("id").(string)
		set, ok := b.keySets.await(ctx, id, p.of)
		if !ok && b.system.passive() {
			return nil, logical.ErrReadOnly // as when reading a token
		}
		if !ok {
			return nil, notPublished()
		}
		now := time.Now()
		body, err := json.Marshal(p.document(set, id, now))
		if err != nil {
			return nil, fmt.Errorf("encoding a published document: %w", err)
		}
		return &logical.Response{Data: map[string]any{
			logical.HTTPContentType: "application/json",
			logical.HTTPRawBody:     body,
			logical.HTTPStatusCode:  http.StatusOK,
			// Only the authorization server's own cache may keep it: a shared cache could prolong max-age.
			logical.HTTPCacheControlHeader: fmt.Sprintf("private, max-age=%d", seconds(set.maxAge(now))),
		}}, nil
	}
}
