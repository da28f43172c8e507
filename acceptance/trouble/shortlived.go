package trouble

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A ShortLived is many names with tokens too short-lived to be refreshed ahead. Each name is read once.
type ShortLived struct {
	Names    int
	Lifetime time.Duration // expires_in
	Calm     time.Duration // duration without readers
}

// A ShortLivedReport counts requests and storage writes.
type ShortLivedReport struct {
	ShortLived
	Warned []string // warnings of a config write
	Reads  []Result // one read of each name
	Asked  int      // token requests for Reads
	Writes int      // storage writes of the whole Vault during Reads
	Stored int      // stored tokens afterwards

	CalmAsked  int // requests in the calm
	CalmWrites int // storage writes of the whole Vault in the calm
	IdleWrites int // Vault's own storage writes in the same time before the reads
}

// Run creates the names, each a config with its own client, reads each once, and waits. Vault must be a single node
// without other users.
func (l ShortLived) Run(ctx context.Context, s *Stage) (*ShortLivedReport, error) {
	r := &ShortLivedReport{ShortLived: l}
	// A token of a second may have expired on arrival, because lifetimes count from the whole second of the request.
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

// during runs f, and returns the storage writes and token requests meanwhile.
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

// appliedIndex returns raft's index, which increases with each storage write.
func appliedIndex(ctx context.Context, client *api.Client) (int, error) {
	leader, err := client.Sys().LeaderWithContext(ctx)
	if err != nil {
		return 0, err
	}
	if leader.RaftAppliedIndex == 0 {
		return 0, fmt.Errorf("%s does not report raft's index", leader.LeaderAddress)
	}
	return int(leader.RaftAppliedIndex), nil
}
