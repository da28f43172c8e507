package mcpoauth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// configWrite is a write of a config. Its methods are the steps, in order.
type configWrite struct {
	data       *framework.FieldData
	server     string
	old        *config  // nil for a new config
	next       *config  // the config to store
	writtenFor *config  // see store.writtenFor
	mount      settings // zero if next publishes nothing
	madeKey    bool     // the plugin made a key: the authorization server cannot know it yet
	verify     bool     // the operator's verify field
	warnings   []string // empty ones are left out of the response
}

// writeConfig creates or updates a config. If it fails, nothing has changed, unless storage failed: then
// the write may have taken effect, or take effect later.
func (b *backend) writeConfig(ctx context.Context, name tokens.Name, d *framework.FieldData, exists bool) (*logical.Response, error) {
	w, err := b.beginConfigWrite(ctx, name.Server, d, exists)
	if err != nil {
		return nil, err
	}
	if err := w.setKeysAndValidate(); err != nil {
		return nil, err
	}
	if err := w.discover(ctx); err != nil {
		return nil, err
	}
	now := time.Now()
	w.next.assignPublicID(w.server, w.old)
	if w.old == nil || !w.next.sameCredentials(w.old) || !w.next.sameRoute(w.writtenFor) {
		w.next.writeCredentials(now)
	}
	if err := validSize(w.next); err != nil {
		return nil, err
	}
	moved := w.next.movedNote(w.server, w.old, w.mount)
	w.warnings = append(w.warnings, w.next.certificateWarning(now), oddResources(w.next.Resource), moved)
	w.warnings = append(w.warnings, w.next.identityWarnings()...)
	// The authorization server cannot know a key or URL made just now.
	unknown := w.madeKey || moved != "" && w.next.KeyType != ""
	write, needed, err := b.planWrite(ctx, name, w, w.verify && !unknown)
	if err != nil {
		return nil, err
	}
	if !needed {
		return warn(w.warnings...), nil
	}
	w.next.Revision = newID()
	if write.verify && write.fetch {
		w.next.CredentialsProof = w.next.proof(now) // stored only if the request succeeds
	}
	granted, err := b.carryOut(ctx, write)
	if w.old == nil {
		if left, err := b.store.rolesAndTokens(ctx, w.server); err != nil || len(left) > 0 {
			b.sweepSoon(w.server) // left by an interrupted delete
		}
	}
	if err != nil {
		return nil, w.next.withFindings(b.withRoleHint(ctx, w.server, w.next, err))
	}
	if w.madeKey && w.next.Identity == identityStatic {
		w.warnings = append(w.warnings, fmt.Sprintf("a signing key was made, and no token was requested, because the authorization server cannot know the key yet: register the public key from keys/%s there, then write refresh/%s", w.server, w.server))
	} else if unknown {
		w.warnings = append(w.warnings, fmt.Sprintf("no token was requested, because the authorization server cannot know the new key or URL yet: enter there the values of keys/%s, then write refresh/%s", w.server, w.server))
	}
	if granted != nil {
		w.warnings = append(w.warnings, w.next.tokenWarnings(nil, granted.AccessToken, granted.Scope, granted.ExpiresIn)...)
	}
	return warn(w.warnings...), nil
}

// beginConfigWrite reads the stored config and sets the fields of the request.
func (b *backend) beginConfigWrite(ctx context.Context, server string, d *framework.FieldData, exists bool) (*configWrite, error) {
	old, err := b.store.config(ctx, server)
	if err != nil {
		return nil, err
	}
	if exists != (old != nil) {
		return nil, tokens.ErrConflict
	}
	w := &configWrite{data: d, server: server, old: old, next: newConfig(), verify: d.Get("verify").(bool)}
	if old != nil {
		w.next = old.clone()
		if err := old.refuseDiscovered(d, true); err != nil {
			return nil, err
		}
	}
	configTable.update(w.next, d)
	if w.writtenFor, err = b.store.writtenFor(ctx, server, old, w.next); err != nil {
		return nil, err
	}
	if w.next.publishes() {
		w.mount, err = b.store.settings(ctx)
	}
	return w, err
}

// setKeysAndValidate sets the signing key and checks the config as far as is possible without contacting a server.
func (w *configWrite) setKeysAndValidate() error {
	_, givenIdentity := w.data.GetOk("identity")
	if err := w.next.pinPublicURL(w.old, givenIdentity, w.mount); err != nil {
		return err
	}
	if err := w.next.validate(); err != nil {
		return err
	}
	var err error
	if w.madeKey, err = w.next.updateKeys(w.data, w.writtenFor); err != nil {
		return err
	}
	if err := w.next.validCredentials(); err != nil {
		return err
	}
	return w.next.validExpiry(w.old)
}

// discover finds the authorization server if that is needed. A write that would send stored credentials to another
// place must supply them: discover checks this before it contacts a server, and again for the endpoint it found.
func (w *configWrite) discover(ctx context.Context) error {
	field, trusted := w.next.suppliesCredentials(w.data, w.madeKey)
	trusted = trusted || w.old == nil
	if !trusted && !w.next.sameRoute(w.writtenFor) {
		return badRequest("a write that changes where or how the credentials travel (server_url or issuer that discovery starts from, token_url, assertion_audience, ca_cert, allow_insecure_http, allow_private_addresses) must supply %s too: stored credentials are sent only where they were written for", field)
	}
	var err error
	if w.warnings, err = w.next.resolve(ctx, w.old, w.data.Get("rediscover").(bool), w.verify, trusted); err != nil {
		return err
	}
	if w.old == nil {
		if err := w.next.refuseDiscovered(w.data, false); err != nil {
			return err
		}
	}
	if !trusted {
		if err := w.next.sameEndpoint(w.old, field); err != nil {
			return err
		}
	}
	return w.next.fitsServer()
}

// planWrite returns the write of w. needed is false if the config is unchanged, verified and not failing. A write
// clears the backoff, since the operator may have removed the cause.
func (b *backend) planWrite(ctx context.Context, name tokens.Name, w *configWrite, verify bool) (write verifiedWrite, needed bool, err error) {
	old, next, failing := w.old, w.next, b.engine.Failing(name)
	write = verifiedWrite{name: name, terms: next.terms(nil), after: b.store.termsUnder(next), verify: verify}
	write.refresh = old != nil && (!next.sameCredentials(old) || !next.sameRoute(old) || !next.Discovered.same(old.Discovered))
	write.fetch = old == nil || write.refresh || failing ||
		write.terms.Shape != old.terms(nil).Shape || next.RequestTimeout != old.RequestTimeout
	if err := b.fetchUnproven(ctx, &write, next); err != nil {
		return write, false, err
	}
	write.store = func(ctx context.Context) error {
		if err := b.unchanged(ctx, name.Server, old); err != nil {
			return err
		}
		return b.putConfig(ctx, name.Server, next)
	}
	needed = old == nil || !next.same(old) || failing || write.verify && write.fetch
	return write, needed, nil
}

// movedNote returns the values to enter at the authorization server if the write has changed the URL of the public
// keys; "" otherwise.
func (c *config) movedNote(server string, old *config, mount settings) string {
	id := c.publicID(server)
	if id == "" || id == old.publicID(server) {
		return ""
	}
	var note string
	switch c.Identity {
	case identityIssuer:
		note = fmt.Sprintf("enter at the authorization server the issuer %s, the subject %s and the audience %s", c.issuerURL(), quote(c.subject()), quote(c.assertionAudience()))
	case identityDocument:
		note = fmt.Sprintf("the client's id at the authorization server is %s", c.documentURL())
	default:
		note = fmt.Sprintf("the public keys are at %s: register that URL as the client's jwks_uri", mount.url(jwksPrefix+id))
	}
	if old.publishes() {
		note += "; the earlier URL is gone, because it was trusted for other credentials or another destination"
	}
	return note
}

// withRoleHint adds a hint to a refusal if the scopes or the audience may be configured in roles instead: the config
// has roles, or lacks scopes.
func (b *backend) withRoleHint(ctx context.Context, server string, c *config, err error) error {
	if _, refused := errors.AsType[*grant.RefusedError](err); !refused || grant.ClientWide(err) {
		return err
	}
	if len(c.parameters(nil).Scopes) > 0 {
		if roles, listErr := b.store.roles(ctx, server); listErr != nil || len(roles) == 0 {
			return err
		}
	}
	return fmt.Errorf("%w; if the config's roles set the scopes or the audience, write the config with verify=false (and with token_url, if the authorization server has yet to be discovered)", err)
}
