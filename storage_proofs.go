package mcpoauth

import (
	"context"
	"errors"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// storedProof is the stored form of a proof for credentials that were written unverified. It is an entry of its own,
// local to a cluster like tokens: a performance secondary obtains tokens, but may not write configs.
type storedProof struct {
	Proof string `json:"proof"`
}

// proving returns terms whose fetch, on success, records a proof of the credentials of c in memory. Save stores it
// with the token.
func (s store) proving(server string, c *config, terms *tokens.Terms) *tokens.Terms {
	fetch := terms.Fetch
	terms.Fetch = func(ctx context.Context) (*grant.Token, error) {
		proof := c.proof(time.Now())
		token, err := fetch(ctx)
		if err == nil && c.CredentialsProof != proof {
			s.proofs.add(server, proof)
		}
		return token, err
	}
	return terms
}

// verified reports whether a token request has succeeded with the credentials of c since they were written.
func (s store) verified(ctx context.Context, server string, c *config) (bool, error) {
	proof := c.proof(time.Now())
	if c.CredentialsProof == proof || s.proofs.of(server).proof == proof {
		return true, nil
	}
	stored, err := s.proof(ctx, server)
	return stored == proof, err
}

// writtenFor returns the config for which the stored credentials were written: old, nil for a new config. Until a
// token request has succeeded with a signing key, the operator may still be correcting the audience of its
// assertions, so next may change the audience without a new key.
func (s store) writtenFor(ctx context.Context, server string, old, next *config) (*config, error) {
	if old == nil || len(old.Keys) == 0 || old.CredentialsID == "" || next.AssertionAudience == old.AssertionAudience {
		return old, nil
	}
	verified, err := s.verified(ctx, server, old)
	if err != nil || verified {
		return old, err
	}
	corrected := old.clone()
	corrected.AssertionAudience = next.AssertionAudience
	return corrected, nil
}

// storeProof stores the recorded proof. If storage fails, the next saved token tries again: the proof decides only
// the status, and whether a verified write requests a token.
func (s store) storeProof(ctx context.Context, server string) {
	known := s.proofs.of(server)
	if known.proof == "" || known.stored {
		return
	}
	stored, err := s.proof(ctx, server)
	if err == nil && stored != known.proof {
		err = s.put(ctx, provedPrefix+server, storedProof{Proof: known.proof})
	}
	if err == nil {
		s.proofs.markStored(server, known.proof)
	}
}

// proof reads a server's stored proof; empty if it is absent or unreadable.
func (s store) proof(ctx context.Context, server string) (string, error) {
	var stored storedProof
	_, err := s.get(ctx, provedPrefix+server, &stored)
	if errors.Is(err, errUnreadable) {
		return "", nil
	}
	return stored.Proof, err
}
