//go:build servers

package acceptance

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A thief is a host that records token requests.
type thief struct {
	*httptest.Server
	caught chan url.Values
}

func startThief(t *testing.T) *thief {
	t.Helper()
	th := &thief{caught: make(chan url.Values, 100)}
	th.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		th.caught <- r.PostForm
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(th.Close)
	return th
}

func (th *thief) form(t *testing.T) url.Values {
	t.Helper()
	select {
	case form := <-th.caught:
		return form
	case <-t.Context().Done():
		t.Fatal("the thief has caught no request")
		return nil
	}
}

// exchangeForm sends a form, as a token request.
func exchangeForm(t *testing.T, endpoint string, form url.Values) answer {
	t.Helper()
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	return bed.Must(ask(t.Context(), endpoint, form.Encode(), header))(t)
}

// An issuer is like the mount's, and makes any assertion that a test needs.
type issuer struct {
	*httptest.Server
	key *rsa.PrivateKey
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	key := bed.Must(rsa.GenerateKey(rand.Reader, 2048))(t)
	i := &issuer{key: key}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/jwks" {
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one", Algorithm: "RS256", Use: "sig"}}})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.URL, "jwks_uri": i.URL + "/jwks", "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	key := jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: i.key, KeyID: "one"}}
	signer := bed.Must(jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT")))(t)
	payload := bed.Must(json.Marshal(claims))(t)
	signed := bed.Must(signer.Sign(payload))(t)
	compact := bed.Must(signed.CompactSerialize())(t)
	return compact
}
