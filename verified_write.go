package mcpoauth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// verifiedWrite is a write of a config or a role that may need a token request to succeed first.
type verifiedWrite struct {
	name    tokens.Name
	terms   *tokens.Terms // of name, after the write
	verify  bool          // obtain a token before storing, if fetch is set too
	fetch   bool          // settings have changed or are unproven
	refresh bool          // replace other tokens of the server soon
	store   func(context.Context) error
	// after returns the terms of each affected name after the write.
	after func(context.Context, tokens.Name) (*tokens.Terms, error)
}

// fetchUnproven sets w.fetch if w.verify is set and the credentials of c are not verified.
func (b *backend) fetchUnproven(ctx context.Context, w *verifiedWrite, c *config) error {
	if !w.verify || w.fetch {
		return nil
	}
	verified, err := b.store.verified(ctx, w.name.Server, c)
	w.fetch = !verified
	return err
}

// carryOut obtains a token on the new terms if verify and fetch are set, then stores the write and publishes both. It
// returns the token, or nil without a fetch.
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

// writeBudget bounds an operator's request until it begins to store: its calls to other servers, its storage reads,
// and its wait for other writes of the same server. Vault's seal and step-down wait for running requests, so a
// request takes 15 s at most; the rest has half a second.
const writeBudget = 14500 * time.Millisecond

// errWriteBudget is the cause of a context that ended with the budget.
var errWriteBudget = errors.New("the time that a write may take is over")

// budgeted returns ctx with the deadline of writeBudget.
func budgeted(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, writeBudget, errWriteBudget)
}

// unchanged returns tokens.ErrConflict if the stored config has changed since old was read.
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
