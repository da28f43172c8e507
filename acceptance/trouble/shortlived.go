package trouble

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A ShortLived is many names whose tokens live too short to be refreshed ahead, each read once and then left alone.
type ShortLived struct {
	Names    int
	Lifetime time.Duration // expires_in
	Calm     time.Duration // without readers
}

// A ShortLivedReport is what such names cost.
type ShortLivedReport struct {
	ShortLived
	Warned []string // by a config write that obtained such a token
	Reads  []Result // the one read of each name
	Asked  int      // requests for these
	Writes int      // storage writes of the whole Vault meanwhile
	Stored int      // tokens in storage after it

	CalmAsked  int // requests in the calm
	CalmWrites int // storage writes of the whole Vault in the calm
	IdleWrites int // the same in as long a time before the names were read: Vault's own
}

// Run creates the names, each a config with a client of its own, reads each once, and leaves them alone. The Vault must be
// a single node and have no other user.
func (l ShortLived) Run(ctx context.Context, s *Stage) (*ShortLivedReport, error) {
	r := &ShortLivedReport{ShortLived: l}
	// One of a second may have ended when it arrives: lifetimes count from the whole second of the request.
	s.AS.Set(s.AS.Issue(max(l.Lifetime, 3*time.Second)))
	warned := s.Write(ctx, "config/warned", s.Config(nil))
	if err := done(warned); err != nil {
		return nil, err
	}
	r.Warned = warned.Warn
	paths, err := s.Clients(ctx, "short", l.Names)
	if err != nil {
		return nil, err
	}
	s.AS.Set(s.AS.Issue(l.Lifetime))
	if r.IdleWrites, _, err = s.during(ctx, func() error { return bed.Sleep(ctx, l.Calm) }); err != nil {
		return nil, err
	}
	r.Writes, r.Asked, err = s.during(ctx, func() error {
		r.Reads = s.ReadAll(ctx, paths)
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.CalmWrites, r.CalmAsked, err = s.during(ctx, func() error { return bed.Sleep(ctx, l.Calm) })
	if err != nil {
		return nil, err
	}
	stored, err := Stored(ctx, s.Root, "/token/short-", "/token/warned")
	r.Stored = stored["/token/short-"] + stored["/token/warned"]
	return r, err
}

// during is how many storage writes and token requests there were while f ran.
func (s *Stage) during(ctx context.Context, f func() error) (writes, asked int, err error) {
	var before, after [2]int
	for i, at := range []*[2]int{&before, &after} {
		if i == 1 {
			if err := f(); err != nil {
				return 0, 0, err
			}
		}
		if at[0], err = appliedIndex(ctx, s.Root); err != nil {
			return 0, 0, err
		}
		if at[1], err = s.Asked(ctx); err != nil {
			return 0, 0, err
		}
	}
	return after[0] - before[0], after[1] - before[1], nil
}

// appliedIndex is that of raft, which every write to storage raises by one.
func appliedIndex(ctx context.Context, client *api.Client) (int, error) {
	leader, err := client.Sys().LeaderWithContext(ctx)
	if err != nil {
		return 0, err
	}
	if leader.RaftAppliedIndex == 0 {
		return 0, fmt.Errorf("%s reports no index of raft", leader.LeaderAddress)
	}
	return int(leader.RaftAppliedIndex), nil
}
