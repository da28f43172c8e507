package acceptance

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// cooldown is the minimum age of a token before it is replaced (compare and refresh).
const cooldown = 10 * time.Second

// An MCP server refuses a valid token, and a hundred brokers notice at once: one token request serves them all.
func TestHundredBrokersReplaceARefusedToken(t *testing.T) {
	t.Parallel()
	const brokers = 100
	u := newConfigured(t, shared(t), "", 5*time.Minute)
	obtained := time.Now()
	client := u.compareAndRefresh(t)
	rejected := u.token(t, "token/"+u.name)

	// A younger token would not be replaced.
	waitForAge(t, obtained, cooldown)
	if status, err := callMCP(t.Context(), u.mcp.URL, rejected.Authorization); err != nil || status != http.StatusOK {
		t.Fatalf("the MCP server answered with status %d, %v", status, err)
	}
	// The answer is slow, so all brokers arrive before it.
	bed.OK(t, u.bed.AS.SetResource(t.Context(), bed.Resource{
		URL: u.mcp.URL, Scope: u.client.Scope, TTL: 5 * time.Minute, Delay: 2 * time.Second,
	}))
	u.mcp.Refuse(claims(rejected.AccessToken).ID)

	var (
		start = make(chan struct{})
		done  sync.WaitGroup
		mu    sync.Mutex // guards the fields below
		ids   = map[string]int{}
		told  = map[bool]int{}
	)
	for range brokers {
		done.Go(func() {
			<-start
			token, refreshed, err := replaceToken(t.Context(), u, client, rejected)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[token.TokenID]++
			told[refreshed]++
		})
	}
	close(start)
	done.Wait()

	if len(ids) != 1 || ids[rejected.TokenID] > 0 {
		t.Errorf("the brokers went on with %d tokens, want one new one", len(ids))
	}
	u.wantRequests(t, 2)
	u.wantUnauthorized(t, brokers)
	if told[true] == 0 {
		t.Error("no broker got the answer that the token had been replaced")
	}
	t.Logf("%d of %d brokers shared the request, %d came after it", told[true], brokers, told[false])
}

// A young token is not replaced, with or without its id, and causes no request. An older one is replaced.
func TestCooldownHoldsWithAndWithoutTokenID(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{true, false} {
		t.Run(fmt.Sprintf("token_id given %t", named), func(t *testing.T) {
			t.Parallel()
			u := newConfigured(t, shared(t), "", 5*time.Minute)
			young := u.token(t, "token/"+u.name)
			fields := map[string]any{}
			if named {
				fields["token_id"] = young.TokenID
			}
			kept := 0
			bed.Eventually(t, 3*cooldown, func() error {
				answer := u.write(t, "refresh/"+u.name, fields)
				if refreshed, _ := answer.Data["refreshed"].(bool); refreshed {
					return nil
				}
				if answer.Data["token_id"] != young.TokenID {
					t.Fatal("a young token was replaced")
				}
				kept++
				return errNotRefreshed
			})
			if kept == 0 {
				t.Error("the token was replaced at once")
			}
			requests := u.wantRequests(t, 2)
			if gap := requests[1].Time.Sub(requests[0].Time); gap < cooldown {
				t.Errorf("the token was replaced after %s, want at least %s", gap, cooldown)
			}
			if got := u.token(t, "token/"+u.name); got.TokenID == young.TokenID {
				t.Error("the token is still the same")
			}
			t.Logf("%d refreshes kept the token", kept)
		})
	}
}

// If an authorization server repeats a token, it gets at most two more requests before the token's end, and one at
// the end. The token keeps its times, and is not served after its end.
func TestRepeatedTokenCostsTwoEarlyRetriesAndOneAtItsEnd(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 20*time.Second)
	proxy := u.behindProxy(t, map[string]any{"verify": false})
	bed.OK(t, proxy.Set(bed.Repeat))
	first := u.token(t, "token/"+u.name)
	log := startReaders(t, u, "token/"+u.name)
	bed.Until(t, 60*time.Second, "another token", func() bool {
		id := log.tokenID("token/" + u.name)
		return id != "" && id != first.TokenID
	})
	log.check(t)

	// Times are in whole seconds, so a repeated answer may give an end one second earlier.
	expires := first.ExpiresAt
	for _, r := range log.all() {
		if r.err != nil || r.token.TokenID != first.TokenID {
			continue
		}
		if !r.token.LastVaultRotation.Equal(first.LastVaultRotation) || r.token.ExpiresAt.After(first.ExpiresAt) ||
			r.token.ExpiresAt.Before(first.ExpiresAt.Add(-time.Second)) {
			t.Fatalf("the token from %s to %s is now from %s to %s",
				first.LastVaultRotation, first.ExpiresAt, r.token.LastVaultRotation, r.token.ExpiresAt)
		}
		if r.token.ExpiresAt.Before(expires) {
			expires = r.token.ExpiresAt
		}
	}
	attempts := proxy.Attempts()
	end := slices.IndexFunc(attempts, func(a bed.Attempt) bool { return !a.Time.Before(expires) })
	if end < 0 {
		end = len(attempts)
	}
	// The first request, the scheduled one and two early retries come before the request for the next token.
	if end < 2 || end > 4 {
		t.Errorf("%d requests before the token's end, want at most four", end)
	}
	if atEnd := len(attempts) - end; atEnd > 1 {
		t.Errorf("%d requests at the token's end, want one", atEnd)
	}
	t.Logf("%d requests, %d of them before the token's end", len(attempts), end)
}

// compareAndRefresh logs in as a broker that may read the token, and replace it only by id, as in the help of
// refresh/.
func (u *upstream) compareAndRefresh(t *testing.T) *api.Client {
	t.Helper()
	rules := `
path "` + bed.Mount + `/token/` + u.name + `" {
  capabilities = ["read"]
}
path "` + bed.Mount + `/refresh/` + u.name + `" {
  capabilities        = ["update"]
  required_parameters = ["token_id"]
}`
	return newIdentity(t, u.bed, u.name, rules).Client
}

// replaceToken reports a refused token, reads the new one and calls again, as a broker does.
func replaceToken(ctx context.Context, u *upstream, client *api.Client, held *bed.Token) (token *bed.Token, refreshed bool, err error) {
	status, err := callMCP(ctx, u.mcp.URL, held.Authorization)
	if err != nil || status != http.StatusUnauthorized {
		return nil, false, fmt.Errorf("the MCP server answered the refused token with status %d: %w", status, err)
	}
	answer, err := client.Logical().WriteWithContext(ctx, bed.Mount+"/refresh/"+u.name,
		map[string]any{"token_id": held.TokenID})
	if err != nil {
		return nil, false, err
	}
	refreshed, _ = answer.Data["refreshed"].(bool)
	if token, err = u.bed.ReadToken(ctx, client, "token/"+u.name); err != nil {
		return nil, refreshed, err
	}
	if answer.Data["token_id"] != token.TokenID {
		return nil, refreshed, fmt.Errorf("refresh/ returned token_id %v, and then token/ returned %s", answer.Data["token_id"], token.TokenID)
	}
	if status, err = callMCP(ctx, u.mcp.URL, token.Authorization); err == nil && status != http.StatusOK {
		err = fmt.Errorf("the MCP server answered the new token with status %d", status)
	}
	return token, refreshed, err
}

// callMCP initialises an MCP session with the token, and returns the HTTP status.
func callMCP(ctx context.Context, endpoint, authorization string) (int, error) {
	const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",` +
		`"capabilities":{},"clientInfo":{"name":"broker","version":"1.0.0"}}}`
	a, err := ask(ctx, endpoint, initialize, http.Header{
		"Authorization": {authorization}, "Accept": {"application/json, text/event-stream"},
	})
	return a.status, err
}
