package trouble

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A BigDelete is the delete of a config with many roles and tokens, while brokers of other servers read for the
// first time.
type BigDelete struct {
	Roles  int
	Others int // servers, each with a client of its own
}

// A BigDeleteReport is the result for the others and for the deleted names.
type BigDeleteReport struct {
	BigDelete
	Delete    Result
	Cold      []Result      // the first reads of the others, from the delete's begin on
	Warm      []Result      // reads of one of the others all the time, whose token was held before
	Status    []Result      // reads of the health of the others, meanwhile
	Gone      []Result      // reads of deleted names, as soon as the delete had returned
	Early     []Result      // as Gone, more than a second after the start of the delete
	Listed    []Result      // lists of the config's roles, of the health and of all configs, then
	Left      int           // entries of the config in storage when the delete had returned
	Clean     time.Duration // from then until there were none
	Create    Result        // the first write of a new config of that name, as soon as the delete had returned
	Created   time.Duration // from then until a write was accepted
	Recreated []Result      // reads of a role of a new config of that name, until the old one's entries had gone, and then
	Still     int           // entries in the end that are not the new config's
}

// Run deletes the config "big". The Vault must have raft storage and no other user.
func (d BigDelete) Run(ctx context.Context, s *Stage) (*BigDeleteReport, error) {
	r := &BigDeleteReport{BigDelete: d}
	paths, others, err := d.prepare(ctx, s)
	if err != nil {
		return nil, err
	}
	warm, cold := others[0], others[1:]
	if err := done(s.Read(ctx, warm)); err != nil {
		return nil, err
	}

	meanwhile, stop := context.WithCancel(ctx)
	defer stop()
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	deleting := time.Now()
	readers.Go(func() { r.Cold = d.readCold(ctx, s, cold) })
	readers.Go(func() { r.Warm = s.readWhile(meanwhile, warm) })
	readers.Go(func() { r.Status = s.readWhile(meanwhile, "status/"+cold[len(cold)-1][len("token/"):]) })
	readers.Go(func() { r.Early = earlyReads(s.readWhile(meanwhile, paths[len(paths)-1]), deleting) })
	r.Delete = s.Delete(ctx, "config/big")
	if err := done(r.Delete); err != nil {
		return nil, fmt.Errorf("the delete: %w", err)
	}
	r.Gone = s.ReadAll(ctx, []string{
		paths[0], paths[len(paths)/2], paths[len(paths)-1], "token/big", "config/big", "role/big/role-0", "status/big", "status/big/role-0",
	})
	r.Listed = []Result{s.List(ctx, "role/big"), s.List(ctx, "role/big/"), s.List(ctx, "config"), s.List(ctx, "status")}
	returned := r.Delete.Ended()
	if r.Left, err = entries(ctx, s); err != nil {
		return nil, err
	}
	if err := d.recreate(ctx, s, r, returned); err != nil {
		return nil, err
	}
	stop()
	readers.Wait()
	return r, nil
}

func (d BigDelete) prepare(ctx context.Context, s *Stage) (paths, others []string, err error) {
	if paths, err = s.holding(ctx, "big", d.Roles); err != nil {
		return nil, nil, err
	}
	others, err = s.Clients(ctx, "other", d.Others)
	return paths, others, err
}

// holding writes a config with n roles and their tokens, and returns the token paths.
func (s *Stage) holding(ctx context.Context, config string, n int) (paths []string, err error) {
	s.AS.Set(s.AS.Issue(time.Hour))
	if err := s.Configure(ctx, config, nil); err != nil {
		return nil, err
	}
	for i := range n {
		paths = append(paths, fmt.Sprintf("token/%s/role-%d", config, i))
	}
	return paths, each(n, func(i int) error { // the write obtains a token and stores it
		return done(s.Write(ctx, fmt.Sprintf("role/%s/role-%d", config, i), map[string]any{"scopes": fmt.Sprintf("scope-%d", i)}))
	})
}

// readCold reads each path once, some at a time.
func (BigDelete) readCold(ctx context.Context, s *Stage, paths []string) []Result {
	results := make([]Result, len(paths))
	_ = each(len(paths), func(i int) error { // no read is an error
		results[i] = s.Read(ctx, paths[i])
		return nil
	})
	return results
}

// readWhile reads a path again and again until ctx ends.
func (s *Stage) readWhile(ctx context.Context, path string) (results []Result) {
	for {
		r := s.Read(context.WithoutCancel(ctx), path)
		results = append(results, r)
		if bed.Sleep(ctx, 20*time.Millisecond) != nil {
			return results
		}
	}
}

// earlyReads returns the reads begun more than a second after the start of the delete.
func earlyReads(all []Result, deleting time.Time) []Result {
	return slices.DeleteFunc(all, func(r Result) bool { return r.Begun.Before(deleting.Add(time.Second)) })
}

// ownedKeys are parts of the storage keys of the config's entries.
var ownedKeys = []string{"/role/big/", "/token/big/"}

func entries(ctx context.Context, s *Stage) (n int, err error) {
	found, err := Stored(ctx, s.Root, ownedKeys...)
	for _, key := range ownedKeys {
		n += found[key]
	}
	return n, err
}

// recreate writes a new config and role of the old names, and waits until storage has no other entries of the
// config.
func (d BigDelete) recreate(ctx context.Context, s *Stage, r *BigDeleteReport, returned time.Time) error {
	const role, entriesOfRole = "role-7", 2
	config := s.Config(map[string]any{"verify": false})
	r.Create = s.Write(ctx, "config/big", config)
	last := r.Create
	err := wait(ctx, "the config can be created again", func() (bool, error) {
		if done(last) != nil {
			last = s.Write(ctx, "config/big", config)
		}
		return done(last) == nil, nil
	})
	if err != nil {
		return err
	}
	r.Created = last.Ended().Sub(r.Create.Begun)
	if err := done(s.Write(ctx, "role/big/"+role, map[string]any{"scopes": "new", "verify": false})); err != nil {
		return err
	}
	read := func() { r.Recreated = append(r.Recreated, s.Read(ctx, "token/big/"+role)) }
	read()
	err = wait(ctx, "the deleted config's entries are gone", func() (bool, error) {
		read()
		n, err := entries(ctx, s)
		r.Still = n - entriesOfRole
		return r.Still <= 0, err
	})
	r.Clean = time.Since(returned)
	read()
	old := s.Read(ctx, "token/big/role-8")
	if err == nil && old.Status != http.StatusNotFound {
		r.Gone = append(r.Gone, old)
	}
	return err
}
