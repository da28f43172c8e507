package mcpoauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// testStorage is a mount's storage that counts and can fail.
type testStorage struct {
	logical.InmemStorage

	calls   atomic.Int64
	trouble atomic.Pointer[trouble]
	// before is called with each call, in the form of fail's arguments. It is set before the mount starts.
	before func(call string)

	mu       sync.Mutex // guards the fields below
	failing  []string   // calls to fail: "put token/" is each put of a key with this prefix, "get" is each get
	afterGet func()     // called after the next get
	late     []func()   // puts and deletes that failed and take effect later
}

// errStorage is the error of a failing call. Storage errors cross the plugin boundary as plain text.
var errStorage = errors.New("storage is out of order")

// errUnheard is the error of a put or a delete that took effect although it failed.
var errUnheard = fmt.Errorf("%w, after it was done", errStorage)

// errLate is the error of a put or a delete that takes effect later, before all calls after it.
var errLate = fmt.Errorf("%w, and is done late", errStorage)

// trouble selects the failing calls, counted from 1, and how they fail.
type trouble struct {
	at      int64 // the failing call
	lasting bool  // every later call fails too
	done    bool  // puts and deletes take effect, and only the answer is lost
	hanging bool  // the call lasts until its context ends; with done it takes effect later

	calls, struck atomic.Int64
}

func (t *trouble) call(ctx context.Context) error {
	n := t.calls.Add(1)
	if n < t.at || n > t.at && !t.lasting {
		return nil
	}
	t.struck.Add(1)
	switch {
	case t.hanging:
		<-ctx.Done()
		if t.done {
			return fmt.Errorf("%w: %w", errLate, ctx.Err())
		}
		return fmt.Errorf("%w: %w", errStorage, ctx.Err())
	case t.done:
		return errUnheard
	default:
		return errStorage
	}
}

// fail makes exactly these calls fail from now on.
func (s *testStorage) fail(calls ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = calls
}

func (s *testStorage) call(ctx context.Context, method, key string) error {
	s.calls.Add(1)
	call := method + " " + key
	if s.before != nil {
		s.before(call)
	}
	if trouble := s.trouble.Load(); trouble != nil {
		return trouble.call(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.failing {
		if strings.HasPrefix(call, f) {
			return errStorage
		}
	}
	return nil
}

func (s *testStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := s.call(ctx, "get", key); err != nil {
		return nil, err
	}
	entry, err := s.InmemStorage.Get(ctx, key)
	s.mu.Lock()
	after := s.afterGet
	s.afterGet = nil
	s.mu.Unlock()
	if after != nil {
		after()
	}
	return entry, err
}

// meanwhile calls do after the next get, before the get returns.
func (s *testStorage) meanwhile(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.afterGet = do
}

func (s *testStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return s.write(ctx, "put", entry.Key, func(ctx context.Context) error { return s.InmemStorage.Put(ctx, entry) })
}

func (s *testStorage) Delete(ctx context.Context, key string) error {
	return s.write(ctx, "delete", key, func(ctx context.Context) error { return s.InmemStorage.Delete(ctx, key) })
}

// write does a put or a delete, or fails, or both.
func (s *testStorage) write(ctx context.Context, method, key string, do func(context.Context) error) error {
	err := s.call(ctx, method, key)
	if errors.Is(err, errLate) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.late = append(s.late, func() { _ = do(context.WithoutCancel(ctx)) })
		time.AfterFunc(tokens.LateCommit-time.Second, s.doLate)
		return err
	}
	if err != nil && err != errUnheard {
		return err
	}
	s.doLate()
	return cmp.Or(do(ctx), err)
}

func (s *testStorage) doLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, do := range s.late {
		do()
	}
	s.late = nil
}

func (s *testStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.call(ctx, "list", prefix); err != nil {
		return nil, err
	}
	return s.InmemStorage.List(ctx, prefix)
}

// entries returns the stored entries by key.
func (s *testStorage) entries(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, key := range must(logical.CollectKeys(t.Context(), &s.InmemStorage))(t) {
		all[key] = string(must(s.InmemStorage.Get(t.Context(), key))(t).Value)
	}
	return all
}

// unchanged checks that the stored entries are as before.
func (s *testStorage) unchanged(t *testing.T, was map[string]string) {
	t.Helper()
	if is := s.entries(t); !maps.Equal(is, was) {
		t.Errorf("storage changed:\nit was %q\nit is  %q", was, is)
	}
}
