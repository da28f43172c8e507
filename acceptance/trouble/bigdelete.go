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

// A BigDelete deletes a config with many roles and tokens, while brokers of other servers read for the first time.
type BigDelete struct {
	Roles  int
	Others int // number of other servers, each with its own client
}

// A BigDeleteReport has the results for the other servers and for the deleted names.
type BigDeleteReport struct {
	BigDelete
	Delete    Result
	Cold      []Result      // first reads of the others, since the start of the delete
	Warm      []Result      // continuous reads of another server's held token
	Status    []Result      // status reads of another server during the delete
	Gone      []Result      // reads of deleted names immediately after the delete
	Early     []Result      // reads of deleted names more than a second after the start of the delete
	Listed    []Result      // lists of the config's roles, of status/ and of all configs, after the delete
	Left      int           // entries of the config in storage when the delete returned
	Clean     time.Duration // from the delete's return until all entries were gone
	Create    Result        // first write of a new config with the same name, immediately after the delete
	Created   time.Duration // from the delete's return until a write was accepted
	Recreated []Result      // reads of a role of the new config, while old entries remained and afterwards
	Still     int           // entries at the end that do not belong to the new config
}

// Run deletes the config "big". The Vault must have raft storage and no other users.
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
	return paths, each(n, func(i int) error { // the write gets a token and stores it
		return done(s.Write(ctx, fmt.Sprintf("role/%s/role-%d", config, i), map[string]any{"scopes": fmt.Sprintf("scope-%d", i)}))
	})
}

// readCold reads each path once, several at a time.
func (BigDelete) readCold(ctx context.Context, s *Stage, paths []string) []Result {
	results := make([]Result, len(paths))
	_ = each(len(paths), func(i int) error { // failed reads are results, not errors
		results[i] = s.Read(ctx, paths[i])
		return nil
	})
	return results
}

// readWhile reads a path repeatedly until ctx ends.
func (s *Stage) readWhile(ctx context.Context, path string) (results []Result) {
	for {
		r := s.Read(context.WithoutCancel(ctx), path)
		results = append(results, r)
		if bed.Sleep(ctx, 20*time.Millisecond) != nil {
			return results
		}
	}
}

// earlyReads returns the reads that began more than a second after the start of the delete.
func earlyReads(all []Result, deleting time.Time) []Result {
	return slices.DeleteFunc(all, func(r Result) bool { return r.Begun.Before(deleting.Add(time.Second)) })
}

// ownedKeys are parts of the storage keys that belong to the config.
var ownedKeys = []string{"/role/big/", "/token/big/"}

func entries(ctx context.Context, s *Stage) (n int, err error) {
	found, err := Stored(ctx, s.Root, ownedKeys...)
	for _, key := range ownedKeys {
		n += found[key]
	}
	return n, err
}

// recreate writes a new config and role with the old names, and waits until storage has no old entries.
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
