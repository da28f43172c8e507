//go:build brokers

package acceptance

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Consumers of each kind get a token again after an outage of two minutes of the authorization server or of Vault,
// and after the MCP server has refused a token. The log has the times.
func TestBrokersRecover(t *testing.T) {
	b := bed.New(t, bed.Options{})
	u := newUpstream(t, b, "", 40*time.Second)
	commands := exampleBrokers(t)
	faults := u.behindProxy(t, map[string]any{})
	p := u.startTokenProxy(t)
	dir := u.runExample(t, "agent", "agent.hcl", "", map[string]string{"agent.hcl": u.example(t, "vault-agent/agent.hcl")})
	vaultToken := u.exampleBroker(t).Client.Token()
	consumers := map[string]func(t *testing.T) error{
		"mcp-token-proxy": func(t *testing.T) error { return accepted(t, p.url, "") },
		"Vault Agent": func(t *testing.T) error {
			content, err := os.ReadFile(filepath.Join(dir, "authorization"))
			if err != nil {
				return err
			}
			return accepted(t, u.mcp.URL, string(content))
		},
	}
	for language, command := range commands {
		broker := u.startExample(t, command, "VAULT_ADDR="+b.Vault.Address, "VAULT_TOKEN="+vaultToken)
		consumers[language] = func(t *testing.T) error {
			if said := broker.list(t); said != "tools: forecast" {
				return errors.New(said)
			}
			return nil
		}
	}

	outage := func(away, back func() error) func() error {
		return func() error {
			if err := away(); err != nil {
				return err
			}
			<-time.After(2 * time.Minute)
			return back()
		}
	}
	for _, trouble := range []struct {
		name string
		pass func() error // returns at the end of the trouble
	}{
		{"the authorization server was away", outage(func() error { return faults.Set(bed.Refused) }, func() error { return faults.Set(bed.NoFault) })},
		{"Vault was away", outage(b.Nodes[0].Stop, func() error { return b.Nodes[0].Start(t.Context()) })},
		{"a token was refused", func() error {
			held := u.token(t, "token/"+u.name)
			waitForAge(t, held.LastVaultRotation, cooldown+time.Second) // last_vault_rotation is rounded down to a second
			u.mcp.Refuse(claims(held.AccessToken).ID)
			return nil
		}},
	} {
		for name, consume := range consumers {
			bed.Eventually(t, time.Minute, func() error { return consume(t) })
			t.Logf("%s holds a token", name)
		}
		var ended time.Time // read only after over is closed
		over := make(chan struct{})
		tests := map[string]func(t *testing.T){"trouble": func(t *testing.T) {
			defer close(over)
			if err := trouble.pass(); err != nil {
				t.Error(err)
			}
			ended = time.Now()
		}}
		for name, consume := range consumers {
			tests[name] = func(t *testing.T) {
				failures := 0
				bed.Eventually(t, 10*time.Minute, func() error {
					isOver := false
					select {
					case <-over:
						isOver = true
					default:
					}
					err := consume(t)
					switch {
					case err != nil:
						failures++
					case !isOver:
						err = errors.New("the trouble is not over")
					}
					return err
				})
				t.Logf("%s: a token again after %s; %d tries had none", t.Name(), time.Since(ended).Round(100*time.Millisecond), failures)
			}
		}
		t.Run(trouble.name, func(t *testing.T) { atOnce(t, tests) })
	}
}

// accepted returns an error if a request has no token, or a token that the MCP server refuses.
func accepted(t *testing.T, url, authorization string) error {
	t.Helper()
	a, err := ask(t.Context(), url, "{}", http.Header{"Authorization": {authorization}})
	if a.status == http.StatusServiceUnavailable || a.status == http.StatusUnauthorized {
		err = errors.Join(err, errors.New(a.body))
	}
	return err
}
