package acceptance

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// jwtUntil returns an access token with these iat and exp.
func jwtUntil(issued, end time.Time) string {
	payload, err := json.Marshal(map[string]int64{"iat": issued.Unix(), "exp": end.Unix()})
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode(payload) + "." + encode([]byte("signature"))
}

// The server's clock may be wrong. Its Date header decides whether a JWT has expired.
func TestEndOfATokenByTheServersClock(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	server := bed.Must(u.bed.NewScriptedServer())(t)
	settings := map[string]any{"token_url": server.TokenURL(), "client_id": u.client.ID, "client_secret": u.client.Secret, "scopes": ""}
	for _, skew := range []time.Duration{-time.Minute, 0, time.Minute} {
		issue := func(age, lifetime time.Duration) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				now := time.Now().Add(skew)
				w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
				server.AnswerToken(w, jwtUntil(now.Add(-age), now.Add(-age+lifetime)), map[string]any{"expires_in": int(lifetime / time.Second)})
			}
		}
		server.Set(issue(0, 30*time.Second))
		u.write(t, "config/"+u.name, settings)
		token := u.read(t, "token/"+u.name)
		end, err := time.Parse(time.RFC3339, token["expires_at"].(string))
		if left := time.Until(end); err != nil || left < 20*time.Second || left > 30*time.Second {
			t.Errorf("with clocks %s apart a token of 30 s ends in %s: %v", skew, left, err)
		}
		// The server answers with an expired token.
		server.Set(issue(31*time.Second, 30*time.Second))
		changed := map[string]any{"scopes": fmt.Sprintf("other-%d", skew/time.Minute)}
		u.refuse(t, "config/"+u.name, changed, http.StatusBadGateway, "has expired already")
		if again := u.read(t, "token/"+u.name); again["token_id"] != token["token_id"] {
			t.Error("the refused write changed the token")
		}
	}
}

// A field given twice is refused: the command sends a list, and a map would keep only the last value.
func TestCommandThatGivesAFieldTwice(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 5*time.Minute)
	r := &release{t: t, bed: u.bed}
	for _, args := range [][]string{
		{"client_id=a", "client_id=b"},
		{"default_ttl=1m", "default_ttl=2m"},
		{"omit_resource=true", "omit_resource=false"},
		{"extra_params=tenant=a", "extra_params=tenant=b"},
		{"extra_headers=x-key=a", "extra_headers=X-Key=b"},
		{"assertion_claims=a=1", "assertion_claims=a=2"},
	} {
		r.refused("Code: 400", append([]string{"write", bed.Mount + "/config/" + u.name}, args...)...)
	}
	r.vault("write", bed.Mount+"/config/"+u.name, "extra_params=tenant=a", "extra_params=region=b", "extra_headers=x-key=a")
	config := u.read(t, "config/"+u.name)
	if text(config["extra_params"]) != `{"region":"b","tenant":"a"}` || text(config["extra_headers"]) != `["X-Key"]` {
		t.Errorf("the config is %v", config)
	}
}

// The error for an invalid name gives the rule for names, also through a real Vault.
func TestNameThatIsNotAllowed(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	u.refuse(t, "config/a@b", map[string]any{"client_id": "x"}, http.StatusBadRequest, `the name "a@b" is not allowed`)
	u.refuse(t, "role/"+u.name+"/a+b", map[string]any{"scopes": "x"}, http.StatusBadRequest, `the name "a+b" is not allowed`)
	u.refuse(t, "config/"+u.name, map[string]any{"scope": "x"}, http.StatusBadRequest, `did you mean "scopes"?`)
}
