package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
)

// authVault is Vault's login, without a network, so that a test can run in a bubble of fake time.
type authVault struct {
	mu     sync.Mutex // guards the fields below
	ttl    time.Duration
	maxTTL time.Duration
	away   bool
	logins []map[string]any // the requests' bodies and paths
	issued time.Time        // the latest token
	renews int
}

func (v *authVault) with(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
}

var errAway = errors.New("connection refused")

func (v *authVault) RoundTrip(r *http.Request) (*http.Response, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.away {
		return nil, errAway
	}
	recorder := httptest.NewRecorder()
	body := map[string]any{}
	_ = json.NewDecoder(r.Body).Decode(&body)
	switch {
	case strings.HasSuffix(r.URL.Path, "/login"):
		body["path"] = r.URL.Path
		body["token"] = r.Header.Get("X-Vault-Token")
		v.logins = append(v.logins, body)
		v.issued = time.Now()
		v.auth(recorder, v.ttl)
	case r.URL.Path == "/v1/auth/token/renew-self":
		v.renews++
		v.auth(recorder, min(v.ttl, time.Until(v.issued.Add(v.maxTTL))))
	default:
		recorder.WriteHeader(http.StatusNotFound)
	}
	return recorder.Result(), nil
}

func (v *authVault) auth(to http.ResponseWriter, ttl time.Duration) {
	_ = json.NewEncoder(to).Encode(map[string]any{"auth": map[string]any{
		"client_token": fmt.Sprintf("vault-%d", len(v.logins)), "lease_duration": int(ttl.Seconds()), "renewable": true,
	}})
}

// start runs a login by a method at the Vault until the test ends. Its log is discarded.
func (v *authVault) start(t *testing.T, m authMethod) *login {
	t.Helper()
	c := api.DefaultConfig()
	c.Address, c.AgentAddress, c.MaxRetries = "http://vault.test", "", 0
	c.HttpClient.Transport = v
	client, err := api.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	client.ClearToken()
	l, ok := m.vaultToken(client, slog.New(slog.DiscardHandler)).(*login)
	if !ok {
		t.Fatal("the method does not log in")
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return l
}

func (v *authVault) wantLogins(t *testing.T, least, most int) {
	t.Helper()
	v.with(func() {
		if n := len(v.logins); n < least || n > most {
			t.Errorf("%d logins, want %d to %d", n, least, most)
		}
	})
}

func wantToken(t *testing.T, l *login, want string) {
	t.Helper()
	if got, err := l.token(t.Context()); got != want || err != nil {
		t.Errorf("token %q, %v; want %q", got, err, want)
	}
}

// appRole writes the files of an AppRole.
func appRole(t *testing.T) authMethod {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"role-id": "role\n", "secret-id": "secret\n"} {
		writeFile(t, filepath.Join(dir, name), content)
	}
	return authMethod{Type: "approle", Config: authConfig{
		RoleIDFile: filepath.Join(dir, "role-id"), SecretIDFile: filepath.Join(dir, "secret-id"),
	}}
}

// The token is renewed. When it can no longer be renewed, the proxy logs in before the token ends.
func TestLoginIsRenewedAndMadeAgain(t *testing.T) {
	m := appRole(t)
	synctest.Test(t, func(t *testing.T) {
		v := &authVault{ttl: time.Hour, maxTTL: 10 * time.Hour}
		l := v.start(t, m)
		wantToken(t, l, "vault-1")
		for range 100 {
			time.Sleep(time.Hour)
			synctest.Wait()
			token, err := l.token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			v.with(func() {
				if latest := fmt.Sprintf("vault-%d", len(v.logins)); token != latest || time.Since(v.issued) >= v.maxTTL {
					t.Errorf("%s: %d logins, the latest %s ago", token, len(v.logins), time.Since(v.issued))
				}
			})
		}
		v.wantLogins(t, 10, 13)
		v.with(func() {
			if v.renews < 50 {
				t.Errorf("%d renewals in 100 hours", v.renews)
			}
			if got := v.logins[0]; got["role_id"] != "role" || got["secret_id"] != "secret" || got["path"] != "/v1/auth/approle/login" || got["token"] != "" {
				t.Errorf("the login gave %v", got)
			}
		})
	})
}

// If Vault does not answer, the first caller gets the reason, and the delays between logins grow.
func TestLoginWaitsForVault(t *testing.T) {
	m := appRole(t)
	synctest.Test(t, func(t *testing.T) {
		v := &authVault{ttl: time.Hour, maxTTL: time.Hour, away: true}
		l := v.start(t, m)
		if _, err := l.token(t.Context()); !errors.Is(err, errAway) || !strings.Contains(err.Error(), "log in to Vault by approle") {
			t.Errorf("got %v, want an error that Vault is unavailable", err)
		}
		time.Sleep(10 * time.Minute)
		v.with(func() { v.away = false })
		time.Sleep(loginMost)
		wantToken(t, l, "vault-1")

		// If Vault is unavailable later, the token stays.
		v.with(func() { v.away = true })
		time.Sleep(2 * time.Hour)
		wantToken(t, l, "vault-1")
	})
}

// Tokens with a short lifetime, or without an end, cause few logins.
func TestLoginsAreFew(t *testing.T) {
	m := appRole(t)
	for name, c := range map[string]struct {
		ttl   time.Duration
		least int
		most  int
	}{"of a second": {time.Second, 100, 601}, "without an end": {0, 1, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := &authVault{ttl: c.ttl, maxTTL: c.ttl}
				l := v.start(t, m)
				wantToken(t, l, "vault-1")
				time.Sleep(10 * time.Minute)
				v.wantLogins(t, c.least, c.most)
			})
		})
	}
}

// If Vault refuses a token that is not new, the token was revoked, and the proxy logs in again. It does not log in
// for every 403, because the cause may be a policy.
func TestRevokedTokenIsReplaced(t *testing.T) {
	m := appRole(t)
	synctest.Test(t, func(t *testing.T) {
		v := &authVault{ttl: time.Hour, maxTTL: 100 * time.Hour}
		l := v.start(t, m)
		for range 300 {
			token, err := l.token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			l.refused(token)
			synctest.Wait()
			time.Sleep(time.Second)
		}
		v.wantLogins(t, 5, 1+int(300*time.Second/refusedAfter))
		synctest.Wait()
		before, _ := l.token(t.Context())
		time.Sleep(refusedAfter)
		l.refused("another")
		synctest.Wait()
		wantToken(t, l, before)
	})
}

// Kubernetes replaces the file of the service account's token.
func TestKubernetesLogin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	writeFile(t, file, "jwt-1")
	m := authMethod{Type: "kubernetes", MountPath: "auth/cluster-1/", Config: authConfig{Role: "mcp-broker", JWTFile: file}}
	synctest.Test(t, func(t *testing.T) {
		v := &authVault{ttl: time.Hour, maxTTL: time.Hour}
		l := v.start(t, m)
		wantToken(t, l, "vault-1")
		writeFile(t, file, "jwt-2")
		time.Sleep(time.Hour)
		wantToken(t, l, "vault-2")
		v.with(func() {
			for i, login := range v.logins {
				if login["role"] != "mcp-broker" || login["jwt"] != fmt.Sprintf("jwt-%d", i+1) || login["path"] != "/v1/auth/cluster-1/login" {
					t.Errorf("login %d gave %v", i+1, login)
				}
			}
		})
	})
}

// Requests for tokens use the login of the configuration.
func TestRequestsHaveTheTokenOfTheFile(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "sink")
	c := w.config()
	c.AutoAuth = &autoAuth{Methods: []authMethod{{Type: "token_file", Config: authConfig{TokenFile: file}}}}
	url := w.start(c)
	response := post(t, url, message)
	if body := text(t, response); response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "sink") {
		t.Errorf("without the file: %d %s", response.StatusCode, body)
	}
	for i, content := range []string{"hvs.first\n", "hvs.second"} {
		writeFile(t, file, content)
		waitFor(t, func() bool { // until the failure's window and the ttl have passed
			return post(t, url, message).StatusCode == http.StatusOK && len(w.tokensVaultSaw()) > i
		})
		waitFor(t, func() bool {
			post(t, url, message)
			saw := w.tokensVaultSaw()
			return saw[len(saw)-1] == strings.TrimSpace(content)
		})
	}
	for _, token := range w.tokensVaultSaw() {
		if token != "hvs.first" && token != "hvs.second" {
			t.Error("Vault received a token that is not from the file")
		}
	}
	for name, content := range map[string]string{"empty": "\n", "two lines": "hvs.a\nhvs.b", "binary": "hvs.\x00"} {
		writeFile(t, file, content)
		if _, err := tokenFile(file).token(t.Context()); err == nil || strings.Contains(err.Error(), "hvs") {
			t.Errorf("%s: %v, want an error without the file's content", name, err)
		}
	}
}

// Without auto_auth, the proxy uses VAULT_TOKEN, or no token if it connects to the listener of an Agent or Proxy.
func TestRequestsHaveTheEnvironmentsToken(t *testing.T) {
	w := newWorld(t)
	for _, token := range []string{"vault-token", ""} {
		t.Setenv("VAULT_TOKEN", token)
		if response := post(t, w.start(w.config()), message); response.StatusCode != http.StatusOK {
			t.Errorf("status %d", response.StatusCode)
		}
		saw := w.tokensVaultSaw()
		if got := saw[len(saw)-1]; got != token {
			t.Errorf("Vault received the token %q, want %q", got, token)
		}
	}
}
