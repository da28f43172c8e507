package mcpoauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// The keys of the mount's storage. Configs and tokens are seal wrapped, tokens are
// local to a cluster (see backend.go).
const (
	configPrefix = "config/" // config/<server>
	rolePrefix   = "role/"   // role/<server>/<role>
	tokenPrefix  = "token/"  // token/<server>, token/<server>/<role>
)

// schema is the version of the stored entries' form. A version that reads a newer
// form than it knows would lose what it does not know at the next write.
const schema = 1

// storageTimeout bounds each storage call: some are made on contexts without an end.
const storageTimeout = 10 * time.Second

// store is the mount's storage, in the plugin's own types.
type store struct {
	storage logical.Storage
	// failed is told of each call that storage did not answer as asked: get, put, delete
	// or list. It may be nil. Calls that were given up are not storage's fault.
	failed func(operation string)
}

// fault tells of a call that failed, and makes its error.
func (s store) fault(ctx context.Context, operation, text string, err error) error {
	if s.failed != nil && !errors.Is(ctx.Err(), context.Canceled) {
		s.failed(operation)
	}
	return fmt.Errorf("%s: %w", text, err)
}

// store is what the engine keeps its tokens in.
var _ tokens.Store = store{}

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

// Terms implements tokens.Store.
func (s store) Terms(ctx context.Context, name tokens.Name) (*tokens.Terms, error) {
	c, err := s.config(ctx, name.Server)
	if err != nil {
		return nil, err
	}
	return s.termsUnder(c)(ctx, name)
}

// termsUnder gives the terms of a config and of its roles where the config is known, as it is
// to the write of it; tokens.ErrNotConfigured of all where it is nil.
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
		return c.terms(r), nil
	}
}

// effective reads what governs a name: its config, and its role where it is one.
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

// storedToken is the form of a token in storage.
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
		// Nobody can write a token again but the engine, so it fetches one: after the
		// plugin was set back to an older version too.
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

// Save implements tokens.Store.
func (s store) Save(ctx context.Context, name tokens.Name, t *tokens.Token) error {
	return s.put(ctx, tokenPrefix+name.String(), storedToken{
		AccessToken: t.AccessToken,
		Scope:       t.Scope,
		Shape:       t.Shape,
		Issued:      t.Issued.UTC(),
		Expires:     t.Expires.UTC(),
		RefreshAt:   t.RefreshAt.UTC(),
		Repeats:     t.Repeats,
	})
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

// envelope is around every stored entry.
type envelope struct {
	Schema int             `json:"schema"`
	Data   json.RawMessage `json:"data"`
}

// errUnreadable: an entry is not one that this version of the plugin can read.
var errUnreadable = errors.New("storage holds what this version of the plugin cannot read")

// get reads an entry into out, and tells whether there was one.
func (s store) get(ctx context.Context, key string, out any) (found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	entry, err := s.storage.Get(ctx, key)
	if err != nil {
		return false, s.fault(ctx, "get", "reading "+key+" from storage", err)
	}
	if entry == nil {
		return false, nil
	}
	// A decoding error's text may quote the entry, so it is not passed on.
	var e envelope
	if json.Unmarshal(entry.Value, &e) != nil {
		return false, fmt.Errorf("%w: the stored entry %s is damaged: an operator must delete it and write it again", errUnreadable, key)
	}
	if e.Schema > schema {
		return false, fmt.Errorf("%w: the stored entry %s was written by a newer version of this plugin (schema %d, this version knows %d): upgrade the plugin", errUnreadable, key, e.Schema, schema)
	}
	// A null would decode into anything.
	if e.Schema < 1 || string(e.Data) == "null" || json.Unmarshal(e.Data, out) != nil {
		return false, fmt.Errorf("%w: the stored entry %s is damaged: an operator must delete it and write it again", errUnreadable, key)
	}
	return true, nil
}

func (s store) put(ctx context.Context, key string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	entry, err := logical.StorageEntryJSON(key, envelope{Schema: schema, Data: data})
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	if err := s.storage.Put(ctx, entry); err != nil {
		return s.fault(ctx, "put", "writing "+key+" to storage", err)
	}
	return nil
}

func (s store) delete(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	if err := s.storage.Delete(ctx, key); err != nil {
		return s.fault(ctx, "delete", "deleting "+key+" from storage", err)
	}
	return nil
}

func (s store) list(ctx context.Context, prefix string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	names, err := s.storage.List(ctx, prefix)
	if err != nil {
		return nil, s.fault(ctx, "list", "listing "+prefix+" in storage", err)
	}
	return names, nil
}
