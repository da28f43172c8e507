package mcpoauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Storage keys. Configs and tokens are seal wrapped; tokens and proofs are local to a cluster (see backend.go).
const (
	configPrefix = "config/" // config/<server>
	rolePrefix   = "role/"   // role/<server>/<role>
	tokenPrefix  = "token/"  // token/<server>, token/<server>/<role>
	provedPrefix = "proved/" // proved/<server>
	settingsKey  = "settings"
)

// schema is the version of the form of stored entries. Entries of a newer version are refused: the next write would
// lose their unknown fields.
const schema = 3

// storageTimeout bounds each storage call, since some run on contexts without a deadline.
const storageTimeout = 10 * time.Second

// store reads and writes the mount's storage in the plugin's own types.
type store struct {
	storage logical.Storage
	// failed is called with the operation (get, put, delete or list) of each failed storage call, unless the caller
	// canceled it. It may be nil.
	failed func(operation string)
	// proofs is shared by all copies.
	proofs *proofs
}

// fault counts a failed call and returns its error. If ctx has ended, the error wraps ctx's error: inside a plugin,
// storage returns only a gRPC status.
func (s store) fault(ctx context.Context, operation, text string, err error) error {
	if s.failed != nil && !errors.Is(ctx.Err(), context.Canceled) {
		s.failed(operation)
	}
	if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
		return fmt.Errorf("%s: %w (%w)", text, ended, err)
	}
	return fmt.Errorf("%s: %w", text, err)
}

// envelope is the outer form of every stored entry.
type envelope struct {
	Schema int             `json:"schema"`
	Data   json.RawMessage `json:"data"`
}

// errUnreadable: this version of the plugin cannot decode an entry.
var errUnreadable = errors.New("unreadable storage entry")

// get reads an entry into out, and reports whether it exists.
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
	// A decoding error may quote the entry, so it is not wrapped. null would decode into any type.
	var e envelope
	err = json.Unmarshal(entry.Value, &e)
	switch {
	case err == nil && e.Schema > schema:
		return false, fmt.Errorf("%w: %s was written by a newer version of this plugin (schema %d, this version knows %d): upgrade the plugin", errUnreadable, key, e.Schema, schema)
	case err != nil || e.Schema < 1 || string(e.Data) == "null" || json.Unmarshal(e.Data, out) != nil:
		return false, fmt.Errorf("%w: %s is damaged: an operator must delete it and write it again", errUnreadable, key)
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
