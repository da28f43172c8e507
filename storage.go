package mcpoauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// The keys of the mount's storage. Configs and tokens are seal wrapped, tokens
// and proofs are local to a cluster (see backend.go).
const (
	configPrefix = "config/" // config/<server>
	rolePrefix   = "role/"   // role/<server>/<role>
	tokenPrefix  = "token/"  // token/<server>, token/<server>/<role>
	provedPrefix = "proved/" // proved/<server>
	settingsKey  = "settings"
)

// schema is the version of the stored entries' form. A version that reads a newer
// form than it knows would lose what it does not know at the next write.
const schema = 3

// storageTimeout bounds each storage call: some are made on contexts without an end.
const storageTimeout = 10 * time.Second

// store is the mount's storage, in the plugin's own types.
type store struct {
	storage logical.Storage
	// failed is told of each call that storage did not answer as asked: get, put, delete
	// or list. It may be nil. Calls that were given up are not storage's fault.
	failed func(operation string)
	// proofs is shared by all copies.
	proofs *proofs
}

// fault counts a call that failed, and makes its error. If ctx has ended, the error wraps that of
// ctx: inside a plugin, storage says it in gRPC's words only.
func (s store) fault(ctx context.Context, operation, text string, err error) error {
	if s.failed != nil && !errors.Is(ctx.Err(), context.Canceled) {
		s.failed(operation)
	}
	if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
		return fmt.Errorf("%s: %w (%w)", text, ended, err)
	}
	return fmt.Errorf("%s: %w", text, err)
}

// envelope is around every stored entry.
type envelope struct {
	Schema int             `json:"schema"`
	Data   json.RawMessage `json:"data"`
}

// errUnreadable: an entry is not one that this version of the plugin can read.
var errUnreadable = errors.New("storage holds what this version of the plugin cannot read")

// get reads an entry into out, and reports whether there was one.
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
	// A decoding error's text may quote the entry, so it is not passed on. A null would decode into anything.
	var e envelope
	err = json.Unmarshal(entry.Value, &e)
	switch {
	case err == nil && e.Schema > schema:
		return false, fmt.Errorf("%w: the stored entry %s was written by a newer version of this plugin (schema %d, this version knows %d): upgrade the plugin", errUnreadable, key, e.Schema, schema)
	case err != nil || e.Schema < 1 || string(e.Data) == "null" || json.Unmarshal(e.Data, out) != nil:
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
