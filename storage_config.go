package mcpoauth

import (
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// config reads a config; nil when there is none.
func (s store) config(ctx context.Context, server string) (*config, error) {
	var c config
	found, err := s.get(ctx, configPrefix+server, &c)
	if !found {
		return nil, err
	}
	return &c, nil
}

func (s store) putConfig(ctx context.Context, server string, c *config) error {
	return s.put(ctx, configPrefix+server, c)
}

func (s store) putRole(ctx context.Context, name tokens.Name, r *role) error {
	return s.put(ctx, rolePrefix+name.String(), r)
}

// servers lists the configs.
func (s store) servers(ctx context.Context) ([]string, error) {
	return s.list(ctx, configPrefix)
}

// serversWithRoles lists the servers that have roles.
func (s store) serversWithRoles(ctx context.Context) (map[string]bool, error) {
	entries, err := s.list(ctx, rolePrefix)
	if err != nil {
		return nil, err
	}
	servers := make(map[string]bool, len(entries))
	for _, entry := range entries {
		servers[strings.TrimSuffix(entry, "/")] = true
	}
	return servers, nil
}

// roles lists the roles of a server.
func (s store) roles(ctx context.Context, server string) ([]string, error) {
	return s.list(ctx, rolePrefix+server+"/")
}

// effective reads what governs a name: its config, and its role if it is one.
// tokens.ErrNotConfigured when either is missing.
func (s store) effective(ctx context.Context, name tokens.Name) (*config, *role, error) {
	c, r, err := s.configAndRole(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if c == nil || name.Role != "" && r == nil {
		return nil, nil, tokens.ErrNotConfigured
	}
	return c, r, nil
}

// configAndRole reads a name's config and role; each is nil when there is none.
func (s store) configAndRole(ctx context.Context, name tokens.Name) (*config, *role, error) {
	c, err := s.config(ctx, name.Server)
	if c == nil {
		return nil, nil, err
	}
	r, err := s.role(ctx, name, c)
	return c, r, err
}

// role reads a role of a config; nil when there is none, and for the config's own name.
func (s store) role(ctx context.Context, name tokens.Name, c *config) (*role, error) {
	if name.Role == "" {
		return nil, nil
	}
	var r role
	// A role left over from an earlier config of the same name is none.
	found, err := s.get(ctx, rolePrefix+name.String(), &r)
	if err != nil || !found || r.Incarnation != c.Incarnation {
		return nil, err
	}
	return &r, nil
}

// roleReaders is how many roles are read at a time.
const roleReaders = 8

// rolesOf lists the roles of a config: not those that an earlier config of the same name left, which
// are being swept.
func (s store) rolesOf(ctx context.Context, server string) ([]string, error) {
	c, _, err := s.effective(ctx, tokens.Name{Server: server})
	if err != nil {
		return nil, err
	}
	names, err := s.roles(ctx, server)
	if err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(roleReaders)
	for i, role := range names {
		group.Go(func() error {
			r, err := s.role(ctx, tokens.Name{Server: server, Role: role}, c)
			if r == nil && !errors.Is(err, errUnreadable) { // one that cannot be read is to be seen
				names[i] = ""
			}
			if errors.Is(err, errUnreadable) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" }), nil
}
