package mcpoauth

import (
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// config reads a config; nil if it does not exist.
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

// servers lists the servers with a config.
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

// effective reads the config of a name and, if it names a role, the role. It returns tokens.ErrNotConfigured if
// either does not exist.
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

// configAndRole reads the config and the role of a name; each is nil if it does not exist.
func (s store) configAndRole(ctx context.Context, name tokens.Name) (*config, *role, error) {
	c, err := s.config(ctx, name.Server)
	if c == nil {
		return nil, nil, err
	}
	r, err := s.role(ctx, name, c)
	return c, r, err
}

// role reads a role of a config; nil if it does not exist or name is the config's own.
func (s store) role(ctx context.Context, name tokens.Name, c *config) (*role, error) {
	if name.Role == "" {
		return nil, nil
	}
	var r role
	// A role of an earlier config with the same name does not count.
	found, err := s.get(ctx, rolePrefix+name.String(), &r)
	if err != nil || !found || r.Incarnation != c.Incarnation {
		return nil, err
	}
	return &r, nil
}

// roleReaders is the number of roles read at a time.
const roleReaders = 8

// rolesOf lists the roles of a config, without those left by an earlier config of the same name.
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
			if r == nil && !errors.Is(err, errUnreadable) { // keep an unreadable role visible
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
