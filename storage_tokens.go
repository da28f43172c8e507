package mcpoauth

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

var _ tokens.Store = store{}

// Terms implements tokens.Store.
func (s store) Terms(ctx context.Context, name tokens.Name) (*tokens.Terms, error) {
	c, err := s.config(ctx, name.Server)
	if err != nil {
		return nil, err
	}
	return s.termsUnder(c)(ctx, name)
}

// termsUnder returns a function for the terms of a server's names under c, such as a config about to be written. If c
// is nil every name is tokens.ErrNotConfigured.
func (s store) termsUnder(c *config) func(context.Context, tokens.Name) (*tokens.Terms, error) {
	return func(ctx context.Context, name tokens.Name) (*tokens.Terms, error) {
		if c == nil {
			return nil, tokens.ErrNotConfigured
		}
		r, err := s.role(ctx, name, c)
		if err != nil {
			return nil, err
		}
		if name.Role != "" && r == nil {
			return nil, tokens.ErrNotConfigured
		}
		return s.proving(name.Server, c, c.terms(r)), nil
	}
}

// storedToken is the stored form of a token.
type storedToken struct {
	AccessToken string    `json:"access_token"`
	Scope       string    `json:"scope,omitempty"`
	Shape       string    `json:"shape"`
	Issued      time.Time `json:"issued"`
	Expires     time.Time `json:"expires"`
	RefreshAt   time.Time `json:"refresh_at"`
	Repeats     int       `json:"repeats,omitempty"`
}

// Load implements tokens.Store.
func (s store) Load(ctx context.Context, name tokens.Name) (*tokens.Token, error) {
	var t storedToken
	found, err := s.get(ctx, tokenPrefix+name.String(), &t)
	if errors.Is(err, errUnreadable) {
		// The engine fetches another token, for example after a downgrade of the plugin.
		return nil, nil
	}
	if !found {
		return nil, err
	}
	return &tokens.Token{
		AccessToken: t.AccessToken,
		Scope:       t.Scope,
		Shape:       t.Shape,
		Issued:      t.Issued,
		Expires:     t.Expires,
		RefreshAt:   t.RefreshAt,
		Repeats:     t.Repeats,
	}, nil
}

// Save implements tokens.Store. It also stores the proof recorded by proving.
func (s store) Save(ctx context.Context, name tokens.Name, t *tokens.Token) error {
	err := s.put(ctx, tokenPrefix+name.String(), storedToken{
		AccessToken: t.AccessToken,
		Scope:       t.Scope,
		Shape:       t.Shape,
		Issued:      t.Issued.UTC(),
		Expires:     t.Expires.UTC(),
		RefreshAt:   t.RefreshAt.UTC(),
		Repeats:     t.Repeats,
	})
	if err == nil {
		s.storeProof(ctx, name.Server)
	}
	return err
}

// Delete implements tokens.Store.
func (s store) Delete(ctx context.Context, name tokens.Name) error {
	return s.delete(ctx, tokenPrefix+name.String())
}

// Names implements tokens.Store.
func (s store) Names(ctx context.Context) ([]tokens.Name, error) {
	entries, err := s.list(ctx, tokenPrefix)
	if err != nil {
		return nil, err
	}
	var names []tokens.Name
	for _, entry := range entries {
		server, isDir := strings.CutSuffix(entry, "/")
		if !isDir {
			names = append(names, tokens.Name{Server: server})
			continue
		}
		roles, err := s.list(ctx, tokenPrefix+entry)
		if err != nil {
			return nil, err
		}
		for _, role := range roles {
			names = append(names, tokens.Name{Server: server, Role: role})
		}
	}
	return names, nil
}
