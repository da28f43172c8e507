package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A standbyLag measures the delay of standbys after changes at the active node.
type standbyLag struct {
	changes int // multiplied by the standbys read
	late    int // changes after which a standby returned an old answer
	longest time.Duration
	reads   int
}

// measure makes a change at the active node, and reads at all standbys until each has given 20 new answers in a row.
// read reports whether an answer is old. An error of read fails the test.
func (l *standbyLag) measure(t *testing.T, c *cluster, change func(), read func(context.Context, *api.Client) (old bool, err error)) {
	t.Helper()
	change()
	changed := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var mu sync.Mutex // guards l
	var done sync.WaitGroup
	for _, node := range c.standbys {
		done.Go(func() {
			reads, fresh := 0, 0
			var last time.Duration // from the change to the end of the last old answer
			for fresh < 20 {
				old, err := read(ctx, c.clients[node])
				reads++
				switch {
				case err != nil:
					t.Errorf("%s, %s after the change: %v", node.ID, round(time.Since(changed)), err)
					return
				case !old:
					fresh++
				case fresh > 0:
					t.Errorf("%s gave an old answer after a new one", node.ID)
					return
				default:
					last = time.Since(changed)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			l.changes, l.reads, l.longest = l.changes+1, l.reads+reads, max(l.longest, last)
			if last > 0 {
				l.late++
			}
		})
	}
	done.Wait()
}

func (l *standbyLag) String() string {
	return fmt.Sprintf("after %d of %d changes a standby gave an old answer, for %s at most; %d reads", l.late, l.changes, round(l.longest), l.reads)
}

// atStandbys waits until each standby returns the active node's token.
func (c *cluster) atStandbys(t *testing.T, u *upstream, path string) *bed.Token {
	t.Helper()
	held := u.token(t, path)
	for _, node := range c.standbys {
		c.awaitToken(t, node, path, held)
	}
	return held
}

// awaitToken waits until a node returns a token.
func (c *cluster) awaitToken(t *testing.T, node *bed.Node, path string, want *bed.Token) {
	t.Helper()
	bed.Until(t, 30*time.Second, node.ID+" has token "+want.TokenID, func() bool {
		token, err := c.bed.ReadToken(t.Context(), c.clients[node], path)
		return err == nil && token.TokenID == want.TokenID
	})
}

const lagRounds = 20

// A standby returns the token of a deleted config or role only until it has received the delete.
func TestTokenEndsWithItsConfigAtStandbys(t *testing.T) {
	t.Parallel()
	c := standbys(t)
	u := c.upstream(t, time.Hour)
	for _, kind := range []string{"config", "role"} {
		lag := new(standbyLag)
		for i := range lagRounds {
			name := fmt.Sprintf("%s-%d", u.name, i)
			if kind == "config" {
				u.write(t, "config/"+name, u.settings(nil))
			} else {
				name = u.name + "/" + name
				u.configure(t, nil)
				u.write(t, "role/"+name, map[string]any{"scopes": "tools:list"})
			}
			c.atStandbys(t, u, "token/"+name)
			lag.measure(t, c, func() {
				bed.Must(u.root.Logical().DeleteWithContext(t.Context(), bed.Mount+"/"+kind+"/"+name))(t)
			}, func(ctx context.Context, standby *api.Client) (bool, error) {
				_, err := c.bed.ReadToken(ctx, standby, "token/"+name)
				if errors.Is(err, bed.ErrNotFound) {
					return false, nil
				}
				return true, err
			})
		}
		t.Logf("delete of a %s: %s", kind, lag)
	}
}

// A standby returns the token of old settings only until it has received the write.
func TestTokenOfOldSettingsEndsAtStandbys(t *testing.T) {
	t.Parallel()
	c := standbys(t)
	u := c.upstream(t, time.Hour)
	u.configure(t, nil)
	u.write(t, "role/"+u.name+"/reader", map[string]any{"scopes": "tools:list"})
	for kind, name := range map[string]string{"config": u.name, "role": u.name + "/reader"} {
		lag := new(standbyLag)
		for i := range lagRounds {
			held := c.atStandbys(t, u, "token/"+name)
			scopes := []string{"tools:call", "tools:list"}[i%2]
			lag.measure(t, c, func() {
				u.write(t, kind+"/"+name, map[string]any{"scopes": scopes})
			}, func(ctx context.Context, standby *api.Client) (bool, error) {
				token, err := c.bed.ReadToken(ctx, standby, "token/"+name)
				if err != nil || token.TokenID == held.TokenID {
					return true, err
				}
				if token.Scope != scopes {
					err = fmt.Errorf("the new token has the scopes %q, want %q", token.Scope, scopes)
				}
				return false, err
			})
		}
		t.Logf("new settings of a %s: %s", kind, lag)
	}
}

// A standby serves a new mount as soon as it has received the mount, and always from then on.
func TestMountComesToStandbys(t *testing.T) {
	t.Parallel()
	c := standbys(t)
	sys := c.clients[c.active].Sys()
	lag := new(standbyLag)
	for i := range 5 {
		mount := fmt.Sprintf("enabled-%d", i)
		lag.measure(t, c, func() {
			bed.OK(t, sys.MountWithContext(t.Context(), mount, &api.MountInput{Type: bed.PluginName}))
		}, func(ctx context.Context, standby *api.Client) (bool, error) {
			response, err := bed.ReadRaw(ctx, standby, mount+"/metrics") // each node answers this path itself
			if err == nil {
				return false, response.Body.Close()
			}
			refused, ok := errors.AsType[*api.ResponseError](err)
			if ok && refused.StatusCode == http.StatusNotFound && strings.Contains(err.Error(), "no handler for route") {
				return true, nil
			}
			return false, err
		})
		t.Cleanup(func() { bed.OK(t, sys.UnmountWithContext(context.WithoutCancel(t.Context()), mount)) })
	}
	t.Logf("enabled mounts: %s", lag)
}
