package mcpoauth

import (
	"context"
	"errors"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// storedProof is the form of a proof in storage: of credentials that were written unverified, and that a
// token request has proved since. It is an entry beside the config's, local to a cluster as tokens are,
// because a performance secondary obtains tokens and may not write configs.
type storedProof struct {
	Proof string `json:"proof"`
}

// proving is the terms with a fetch that records its success as a proof of the config's credentials, in
// memory. It is stored when the token is.
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

// verified reports whether a token request with the config's credentials has succeeded since they were
// written.
func (s store) verified(ctx context.Context, server string, c *config) (bool, error) {
	proof := c.proof(time.Now())
	if c.CredentialsProof == proof || s.proofs.of(server).proof == proof {
		return true, nil
	}
	stored, err := s.proof(ctx, server)
	return stored == proof, err
}

// writtenFor returns the config that the stored credentials were written for: old, nil for a new config. While no token
// request has succeeded with a signing key, the audience of its assertions may still be wrong, so next may change it
// without a new key.
func (s store) writtenFor(ctx context.Context, server string, old, next *config) (*config, error) {
	if old == nil || len(old.Keys) == 0 || old.CredentialsID == "" || next.AssertionAudience == old.AssertionAudience {
		return old, nil
	}
	verified, err := s.verified(ctx, server, old)
	if err != nil || verified {
		return old, err
	}
	meant := old.clone()
	meant.AssertionAudience = next.AssertionAudience
	return meant, nil
}

// storeProof stores what proving has recorded. If storage fails, the next token that is saved tries again:
// nothing depends on a proof but what status/ says, and whether a verified write needs a request.
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

// proof reads a server's proof; empty if there is none, or none that this version can read.
func (s store) proof(ctx context.Context, server string) (string, error) {
	var stored storedProof
	_, err := s.get(ctx, provedPrefix+server, &stored)
	if errors.Is(err, errUnreadable) {
		return "", nil
	}
	return stored.Proof, err
}
