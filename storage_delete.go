package mcpoauth

import (
	"context"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// deleteConfig deletes a config and then all that belongs to it. In this order: the
// secret goes first, and what a crash leaves behind cannot be used without it.
func (s store) deleteConfig(ctx context.Context, server string) error {
	if err := s.delete(ctx, configPrefix+server); err != nil {
		return err
	}
	return s.deleteBelongings(ctx, server)
}

// deleteBelongings deletes the roles and tokens of a server.
func (s store) deleteBelongings(ctx context.Context, server string) error {
	for _, prefix := range []string{rolePrefix, tokenPrefix} {
		names, err := s.list(ctx, prefix+server+"/")
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := s.delete(ctx, prefix+server+"/"+name); err != nil {
				return err
			}
		}
	}
	return s.delete(ctx, tokenPrefix+server)
}

// deleteRole deletes a role and then its token.
func (s store) deleteRole(ctx context.Context, name tokens.Name) error {
	if err := s.delete(ctx, rolePrefix+name.String()); err != nil {
		return err
	}
	return s.Delete(ctx, name)
}
