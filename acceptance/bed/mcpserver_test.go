package bed

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The MCP server checks that the authorization server has signed the token for it, and that the token has not
// expired.
func TestMCPServerTakesOnlyItsOwnTokens(t *testing.T) {
	dir, otherDir := t.TempDir(), t.TempDir()
	as := startTestAS(t, dir)
	sameKeys := startTestAS(t, dir) // a different issuer with the same signing keys
	otherKeys := startTestAS(t, otherDir)

	server := Must(startMCPServer(t.Context(), as.issuer(), nil, MCPOptions{}, as.secrecy))(t)
	t.Cleanup(func() { server.close() })
	const short = 5 * time.Second
	for _, each := range []*AuthorizationServer{as, sameKeys, otherKeys} {
		setResource(t, each, server.URL, time.Minute)
		setResource(t, each, "http://127.0.0.1:1/mcp", time.Minute)
	}

	good := fetchToken(t, as, server.URL)
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	forged := strings.Join([]string{header, rewrite(t, payload), signature}, ".")
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + payload + "."
	revoked := fetchToken(t, as, server.URL)
	server.Refuse(claim(t, revoked, "jti"))
	setResource(t, as, server.URL, short)
	expired := fetchToken(t, as, server.URL)
	if got := request(t, server.URL, expired).StatusCode; got == http.StatusUnauthorized {
		t.Error("a token is refused before it has expired")
	}
	Until(t, 2*short, "the token expires", func() bool { return server.Check(expired) != nil })

	for _, c := range []struct{ name, token string }{
		{"no token", ""},
		{"another audience", fetchToken(t, as, "http://127.0.0.1:1/mcp")},
		{"another issuer", fetchToken(t, sameKeys, server.URL)},
		{"other keys", fetchToken(t, otherKeys, server.URL)},
		{"forged", forged},
		{"unsigned", unsigned},
		{"revoked", revoked},
		{"expired", expired},
		{"garbage", "garbage"},
	} {
		before := server.Counts().Unauthorized
		response := request(t, server.URL, c.token)
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: status %d, want 401", c.name, response.StatusCode)
		}
		if challenge := response.Header.Get("WWW-Authenticate"); !strings.Contains(challenge, "/.well-known/oauth-protected-resource/mcp") {
			t.Errorf("%s: challenge %q", c.name, challenge)
		}
		want := 1
		if c.token == "" {
			want = 0 // only refused tokens are counted
		}
		if got := server.Counts().Unauthorized - before; got != want {
			t.Errorf("%s: %d requests counted as refused, want %d", c.name, got, want)
		}
	}
	if got := request(t, server.URL, good).StatusCode; got == http.StatusUnauthorized {
		t.Error("a good token is refused")
	}
	// One token was valid all the time, and one expired later.
	if got := server.Counts().Tokens; got != 2 {
		t.Errorf("%d tokens accepted, want 2", got)
	}
}

func startTestAS(t *testing.T, dir string) *AuthorizationServer {
	t.Helper()
	source := Must(InstallPackages(t.Context(), "as", t.Logf))(t)
	as := Must(startAuthorizationServer(t.Context(), source, dir, filepath.Join(dir, "as.log"), new(Secrecy)))(t)
	t.Cleanup(func() { as.close() })
	OK(t, as.SetClient(t.Context(), Client{ID: "client", Secret: "secret", AuthMethod: "client_secret_post"}))
	return as
}

func setResource(t *testing.T, as *AuthorizationServer, resource string, ttl time.Duration) {
	t.Helper()
	OK(t, as.SetResource(t.Context(), Resource{URL: resource, TTL: ttl}))
}

// testForm is a token request of startTestAS's client.
func testForm(resource string) url.Values {
	return url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"client"}, "client_secret": {"secret"}, "resource": {resource},
	}
}

func fetchToken(t *testing.T, as *AuthorizationServer, resource string) string {
	t.Helper()
	response := Must(http.PostForm(as.TokenURL(), testForm(resource)))(t)
	defer response.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.AccessToken == "" {
		t.Fatalf("no token from %s: %s, %v", as.Issuer, response.Status, err)
	}
	return answer.AccessToken
}

// request sends a request that passes the guard if the token is good, although it is not valid MCP.
func request(t *testing.T, endpoint, token string) *http.Response {
	t.Helper()
	req := Must(http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, strings.NewReader("{}")))(t)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	response := Must(http.DefaultClient.Do(req))(t)
	response.Body.Close()
	return response
}

// rewrite changes a token's payload to a later expiry.
func rewrite(t *testing.T, payload string) string {
	t.Helper()
	claims := decode(t, payload)
	claims["exp"] = time.Now().Add(time.Hour).Unix()
	b := Must(json.Marshal(claims))(t)
	return base64.RawURLEncoding.EncodeToString(b)
}

func claim(t *testing.T, token, name string) string {
	t.Helper()
	value, _ := decode(t, strings.Split(token, ".")[1])[name].(string)
	return value
}

func decode(t *testing.T, payload string) map[string]any {
	t.Helper()
	b := Must(base64.RawURLEncoding.DecodeString(payload))(t)
	var claims map[string]any
	OK(t, json.Unmarshal(b, &claims))
	return claims
}
