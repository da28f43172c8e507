package mcpoauth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

func (b *backend) keysPaths() []*framework.Path {
	return []*framework.Path{
		{
			Pattern:         "keys/" + framework.GenericNameRegex("server") + "$",
			Fields:          map[string]*framework.FieldSchema{"server": serverField()},
			HelpSynopsis:    "Read the client's public keys, to register them at the authorization server.",
			HelpDescription: strings.TrimSpace(keysHelp),
			DisplayAttrs:    display("keys"),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback:    b.serveOperator(b.readKeys),
					Summary:     "Read the client's public keys as a JWK Set.",
					Description: "For authorization servers at which an administrator registers the keys.",
					Responses: responses(http.StatusOK, "The public keys", map[string]*framework.FieldSchema{
						"keys":               {Type: framework.TypeSlice, Description: "The public keys as JWKs (RFC 7517): the active key, the next key, and those that were active in the last day."},
						"active_key_id":      textSchema("The kid of the active key."),
						"next_key_id":        textSchema("The kid of the next key, during a rotation."),
						"next_key_active_at": timeSchema("When the next key becomes active"),
						"jwks_path":          textSchema("The path in the mount at which the keys are published; absent if they are not."),
						"jwks_uri":           textSchema("The URL of jwks_path, to register as the client's jwks_uri, once public_url is set in settings."),
						"issuer":             textSchema("With identity=issuer: the issuer to enter at the authorization server (iss)."),
						"subject":            textSchema("With identity=issuer: the subject to enter there (sub)."),
						"audience":           textSchema("With identity=issuer or document: the audience of assertions (aud)."),
						"document_url":       textSchema("With identity=document: the URL that is the client's id at the authorization server."),
					}),
				},
			},
		},
		{
			Pattern: "keys/" + framework.GenericNameRegex("server") + "/rotate$",
			Fields: map[string]*framework.FieldSchema{
				"server": serverField(),
				"activate_after": {
					Type:        framework.TypeDurationSecond,
					Default:     seconds(defaultActivateAfter),
					Description: "How long the new key is published before it signs: at least 5m, for which authorization servers may cache a key set. Default: 600.",
				},
			},
			HelpSynopsis:    "Make a new signing key.",
			HelpDescription: strings.TrimSpace(keysHelp),
			DisplayAttrs:    displayVerb("rotate", "keys"),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: forwarded(b.serveWrite(b.rotateKeys), "Make a new signing key, which becomes active later.",
					"Only for a key that the plugin made. The new key is published at once, and signs after activate_after.",
					responses(http.StatusOK, "The new key", map[string]*framework.FieldSchema{
						"key_id":    textSchema("The kid of the new key."),
						"active_at": timeSchema("When the new key becomes active"),
					})),
			},
		},
	}
}

func (b *backend) readKeys(ctx context.Context, name tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	c, _, err := b.store.effective(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(c.Keys) == 0 {
		return nil, noKeys(name)
	}
	now := time.Now()
	published, err := c.publicKeys(now)
	if err != nil {
		return nil, err
	}
	keys := make([]any, len(published))
	for i, key := range published {
		if err := json.Unmarshal(key.jwk, &keys[i]); err != nil {
			return nil, fmt.Errorf("encoding a public key: %w", err)
		}
	}
	data := map[string]any{"keys": keys}
	if active := c.Keys.activeAt(now); active >= 0 {
		data["active_key_id"] = c.Keys[active].ID
	}
	if pending := c.Keys.pendingAt(now); pending != nil {
		data["next_key_id"] = pending.ID
		data["next_key_active_at"] = rfc3339(pending.ActiveFrom)
	}
	if id := c.publicID(name.Server); id != "" {
		mount := settings{PublicURL: c.PublicURL}
		if c.Identity == identityStatic {
			if mount, err = b.store.settings(ctx); err != nil {
				return nil, err
			}
		}
		path := c.Identity.jwksPath(id)
		data["jwks_path"] = path
		if mount.PublicURL != "" {
			data["jwks_uri"] = mount.url(path)
		}
	}
	switch c.Identity {
	case identityStatic:
	case identityIssuer:
		data["issuer"], data["subject"], data["audience"] = c.issuerURL(), c.subject(), c.assertionAudience()
	case identityDocument:
		data["document_url"], data["audience"] = c.documentURL(), c.assertionAudience()
	}
	return &logical.Response{Data: data}, nil
}

// noKeys returns the error for a config without signing keys.
func noKeys(name tokens.Name) error {
	return &requestError{status: http.StatusNotFound, text: fmt.Sprintf(
		"the config %q has no signing key: write token_endpoint_auth_method=private_key_jwt with key_type or private_key", name.Server)}
}

func (b *backend) rotateKeys(ctx context.Context, name tokens.Name, d *framework.FieldData) (*logical.Response, error) {
	after := defaultActivateAfter
	setSeconds(d, "activate_after", &after, defaultActivateAfter)
	if after < jwksMaxAge || after > maxActivateAfter {
		return nil, badRequest("activate_after must be between %s and %s: authorization servers may cache the earlier key set for %s", jwksMaxAge, maxActivateAfter, jwksMaxAge)
	}
	old, _, err := b.store.effective(ctx, name)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	switch {
	case len(old.Keys) == 0:
		return nil, noKeys(name)
	case old.KeyType == "":
		return nil, badRequest("the plugin did not make the signing key of %q: to replace it, write another private_key to config/%s", name.Server, name.Server)
	}
	if pending := old.Keys.pendingAt(now); pending != nil {
		return nil, badRequest("a rotation of %q is under way: rotate again after %s, when its new key becomes active", name.Server, rfc3339(pending.ActiveFrom))
	}
	if until, full := old.Keys.fullUntil(now); full {
		return nil, badRequest("%q publishes %d keys, the limit, and each stays for a day after its use: rotate again after %s", name.Server, maxPublished, rfc3339(until))
	}
	key, err := newSigningKey(old.KeyType, now.Add(after).UTC().Round(0))
	if err != nil {
		return nil, err
	}
	next := old.clone()
	next.Keys = next.Keys.rotated(key, now)
	next.Revision = newID()
	if err := validSize(next); err != nil {
		return nil, err
	}
	err = b.engine.Change(ctx, name, tokens.Change{
		Terms: b.store.termsUnder(next),
		Write: func(ctx context.Context) error {
			if err := b.unchanged(ctx, name.Server, old); err != nil {
				return err
			}
			return b.putConfig(ctx, name.Server, next)
		},
	})
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{
		"key_id":    key.ID,
		"active_at": rfc3339(key.ActiveFrom),
	}}, nil
}

const keysHelp = `
With token_endpoint_auth_method=private_key_jwt, identity=issuer or identity=document, the
plugin signs assertions (RFC 7523), for which the authorization server needs the public key.

  vault read mcp-oauth/keys/weather
  vault write -force mcp-oauth/keys/weather/rotate
  curl $(vault read -field=jwks_uri mcp-oauth/keys/weather)

keys/<server> returns the public keys as a JWK Set. Register them at the authorization
server. Or write publish_jwks=true to the config and public_url to settings, and register
the jwks_uri that keys/<server> shows: there the authorization server fetches the keys,
without a Vault token. If a write changes where the credentials are sent, the private_key,
the identity, the grant, public_url or, with an identity, the assertion's subject or claims,
the URL gets a new <id> and the old one returns 404: register the new one.

With identity=issuer, keys/<server> shows the issuer, subject and audience to enter at the
authorization server, which fetches the issuer's metadata and keys below issuer/<id>/.
With identity=document it shows document_url, the client's id there.

keys/<server>/rotate replaces a key that the plugin made. The new key is published at once
and signs after activate_after; the old key stays published for a day after that. To
replace a key that you wrote, write another private_key.
`
