package mcpoauth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// verifiedWrite is a write of a config or a role, which may have to prove itself first.
type verifiedWrite struct {
	name    tokens.Name
	terms   *tokens.Terms // of the name, after the write
	verify  bool          // whether the operator wants the proof
	fetch   bool          // whether there is something to prove
	refresh bool          // whether the tokens that stay are to be replaced soon
	store   func(context.Context) error
	// after gives the terms of all names that the write concerns, after it.
	after func(context.Context, tokens.Name) (*tokens.Terms, error)
}

// fetchUnproven sets w.fetch if the operator wants the proof, and no token request with the credentials of c has
// succeeded since they were written.
func (b *backend) fetchUnproven(ctx context.Context, w *verifiedWrite, c *config) error {
	if !w.verify || w.fetch {
		return nil
	}
	verified, err := b.store.verified(ctx, w.name.Server, c)
	w.fetch = !verified
	return err
}

// carryOut obtains a token on the new terms, if there is something to prove, and
// then stores and publishes all together. It gives the token, nil if none was
// fetched.
func (b *backend) carryOut(ctx context.Context, w verifiedWrite) (*grant.Token, error) {
	change := tokens.Change{Write: w.store, Terms: w.after}
	if w.verify && w.fetch {
		token, err := b.engine.Verify(ctx, w.name, w.terms)
		if errors.Is(err, context.DeadlineExceeded) && errors.Is(context.Cause(ctx), errWriteBudget) {
			err = &grant.UnavailableError{Reason: fmt.Sprintf("no answer within the %s that a write may take", writeBudget)}
		}
		if _, limited := errors.AsType[*tokens.FailedError](err); limited {
			return nil, fmt.Errorf("nothing was stored: %w", err)
		}
		if err != nil {
			return nil, fmt.Errorf("nothing was stored: with these settings no token for %q could be obtained from the authorization server at %s: %w", w.name, w.terms.Host, err)
		}
		change.Token = token
		change.Refresh = w.refresh
	}
	return change.Token, b.engine.Change(ctx, w.name, change)
}

// writeBudget bounds an operator's request: what it asks of others, its reads of storage, and its wait
// for other writes of the server, until it begins to store. Vault's seal and step-down wait for the
// requests under way: one takes 15 s at most, of which half a second is for the rest of it.
const writeBudget = 14500 * time.Millisecond

// errWriteBudget is the cause of a context that ended because the budget was used up.
var errWriteBudget = errors.New("the time that a write may take is over")

// budgeted is ctx, and ends with the budget of a write.
func budgeted(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, writeBudget, errWriteBudget)
}

// unchanged returns tokens.ErrConflict unless the stored config is still old.
func (b *backend) unchanged(ctx context.Context, server string, old *config) error {
	current, err := b.store.config(ctx, server)
	if err != nil {
		return err
	}
	if (current == nil) != (old == nil) || current != nil && current.Revision != old.Revision {
		return tokens.ErrConflict
	}
	return nil
}
