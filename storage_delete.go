package mcpoauth

import (
	"context"
	"slices"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// deleteConfig deletes a config. Its roles, tokens and proof are worthless without it, and sweep deletes them.
func (s store) deleteConfig(ctx context.Context, server string) error {
	return s.delete(ctx, configPrefix+server)
}

// deleteProof deletes the proof of a server's credentials.
func (s store) deleteProof(ctx context.Context, server string) error {
	s.proofs.forget(server)
	return s.delete(ctx, provedPrefix+server)
}

// deleteRole deletes a role and then its token.
func (s store) deleteRole(ctx context.Context, name tokens.Name) error {
	if err := s.delete(ctx, rolePrefix+name.String()); err != nil {
		return err
	}
	return s.Delete(ctx, name)
}

// rolesAndTokens lists the names of a server's stored roles and role tokens.
func (s store) rolesAndTokens(ctx context.Context, server string) ([]string, error) {
	var names []string
	for _, prefix := range []string{rolePrefix, tokenPrefix} {
		listed, err := s.list(ctx, prefix+server+"/")
		if err != nil {
			return nil, err
		}
		names = append(names, listed...)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// sweepTask identifies a retry of tokens.Engine that sweeps after deleted configs.
type sweepTask struct {
	server string // empty: all servers
}

const (
	// sweepWait bounds a delete's wait for its sweep, because Vault's seal and step-down wait for running requests.
	sweepWait = 5 * time.Second
	// sweepAtOnce is the number of names swept per hold of the server's write lock.
	sweepAtOnce = 16
)

// sweep deletes the roles and tokens of a deleted config. If the server has been configured again meanwhile, those of
// the new config stay.
func (b *backend) sweep(ctx context.Context, server string) error {
	names, err := b.store.rolesAndTokens(ctx, server)
	if err != nil {
		return err
	}
	names = append([]string{""}, names...) // the config's own token and proof
	for some := range slices.Chunk(names, sweepAtOnce) {
		err := b.engine.Locked(ctx, server, func(ctx context.Context) error {
			c, err := b.store.config(ctx, server)
			for _, role := range some {
				if err == nil {
					err = b.sweepName(ctx, tokens.Name{Server: server, Role: role}, c)
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepName deletes a role and its token unless they belong to c, the stored config or nil.
func (b *backend) sweepName(ctx context.Context, name tokens.Name, c *config) error {
	if name.Role == "" {
		if c != nil {
			return nil
		}
		if err := b.store.Delete(ctx, name); err != nil {
			return err
		}
		return b.store.deleteProof(ctx, name.Server)
	}
	if c != nil {
		if r, err := b.store.role(ctx, name, c); r != nil || err != nil {
			return err
		}
	}
	return b.store.deleteRole(ctx, name)
}

// sweepSoon sweeps in the background until it succeeds. The channel closes after the first attempt.
func (b *backend) sweepSoon(server string) (tried <-chan struct{}) {
	done := make(chan struct{})
	started := b.engine.Go(func(ctx context.Context) {
		defer close(done)
		if b.sweep(ctx, server) != nil {
			b.engine.Retry(sweepTask{server}, time.Now().Add(time.Second), "roles of a deleted config could not be deleted",
				func(ctx context.Context) error { return b.sweep(ctx, server) })
		}
	})
	if !started {
		close(done)
	}
	return done
}

// sweepAll sweeps after deletes that were interrupted, for example by a crash.
func (b *backend) sweepAll() {
	if b.system.passive() {
		return
	}
	b.engine.Retry(sweepTask{}, time.Now(), "roles of deleted configs could not be listed", func(ctx context.Context) error {
		withRoles, err := b.store.serversWithRoles(ctx)
		if err != nil || len(withRoles) == 0 {
			return err
		}
		servers, err := b.store.servers(ctx)
		if err != nil {
			return err
		}
		for _, server := range servers {
			delete(withRoles, server)
		}
		for server := range withRoles {
			b.sweepSoon(server)
		}
		return nil
	})
}
