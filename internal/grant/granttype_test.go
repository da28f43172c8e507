package grant

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bearing is a request with the JWT bearer grant.
func bearing(over http.RoundTripper, k *Key) *request {
	r := newRequest(over)
	r.Grant, r.AuthMethod, r.ClientID, r.ClientSecret = JWTBearer, None, "", ""
	r.Resources = []string{"https://weather.example.com/mcp"}
	r.Assertion = &Assertion{Key: k, Issuer: "https://vault.example.com/issuer", Subject: "agent", Audience: "https://as.example.com/token", Lifetime: 5 * time.Minute}
	return r
}

// The assertion is the grant. The client authenticates by its own method too.
func TestJWTBearerGrantSendsTheAssertion(t *testing.T) {
	k := key(t, "RSA 2048")
	jwks := published(t, k)
	for name, test := range map[string]struct {
		change func(*request)
		params []string // besides the parameters of the grant
		basic  bool
	}{
		"nothing else":  {func(*request) {}, nil, false},
		"a client id":   {func(r *request) { r.ClientID = "app" }, []string{"client_id"}, false},
		"a secret":      {func(r *request) { r.ClientID, r.ClientSecret, r.AuthMethod = "app", testSecret, ClientSecretBasic }, nil, true},
		"a secret sent": {func(r *request) { r.ClientID, r.ClientSecret, r.AuthMethod = "app", testSecret, ClientSecretPost }, []string{"client_id", "client_secret"}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := bearing(nil, k)
			test.change(r)
			req := sent(t, r)
			want := append([]string{"assertion", "grant_type", "resource"}, test.params...)
			slices.Sort(want)
			if got := slices.Sorted(maps.Keys(req.PostForm)); !slices.Equal(got, want) || (req.Header.Get("Authorization") != "") != test.basic {
				t.Errorf("%s: the parameters are %q; want %q", name, got, want)
			}
			if got := req.PostForm.Get("grant_type"); got != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
				t.Errorf("%s: grant_type is %q", name, got)
			}
			_, claims := verified(t, req.PostForm.Get("assertion"), "RS256", jwks)
			lifetime := time.Duration(claims["exp"].(float64)-claims["iat"].(float64)) * time.Second
			if claims["iss"] != "https://vault.example.com/issuer" || claims["sub"] != "agent" ||
				claims["aud"] != "https://as.example.com/token" || lifetime != 5*time.Minute {
				t.Errorf("%s: the claims are %v", name, claims)
			}
		})
	}
}

// A client with an issuer's assertion authenticates with private_key_jwt, with or without an id of its own.
func TestFederatedAssertionNamesIssuerAndSubject(t *testing.T) {
	k := key(t, "RSA 2048")
	for _, id := range []string{"", "app"} {
		r := asserting(nil, k)
		r.ClientID, r.Assertion.Issuer, r.Assertion.Subject = id, "https://vault.example.com/issuer", "agent"
		form := sent(t, r).PostForm
		_, claims := verified(t, form.Get("client_assertion"), "RS256", published(t, k))
		if claims["iss"] != "https://vault.example.com/issuer" || claims["sub"] != "agent" ||
			form.Get("client_id") != id || form.Has("client_id") != (id != "") {
			t.Errorf("the client is %q, and the claims are %v", form.Get("client_id"), claims)
		}
	}
}

// These requests with an issuer's assertion fail before they are sent.
func TestUnsendableGrants(t *testing.T) {
	for want, change := range map[string]func(*request){
		"one key must not sign both":                         func(r *request) { r.AuthMethod, r.ClientID = PrivateKeyJWT, "app" },
		"exactly one resource, and this is for 0":            func(r *request) { r.Resources = nil },
		"exactly one resource, and this is for 2":            func(r *request) { r.Resources = []string{"a:b", "c:d"} },
		"needs identity=issuer":                              func(r *request) { r.Assertion.Issuer = "" },
		"needs a private_key":                                func(r *request) { r.Assertion.Key = nil },
		"assertion_subject is missing":                       func(r *request) { r.Assertion.Subject = "" },
		"equals the issuer":                                  func(r *request) { r.Assertion.Subject = r.Assertion.Issuer },
		`token_endpoint_auth_method "none" is not supported`: func(r *request) { r.Grant = ClientCredentials },
		"private_key_jwt needs a client_id": func(r *request) {
			r.Grant, r.AuthMethod, r.Assertion.Issuer = "", PrivateKeyJWT, ""
		},
	} {
		n := &network{handler: granted}
		r := bearing(n, key(t, "Ed25519"))
		change(r)
		_, err := r.Do(t.Context())
		if _, ok := err.(*UnavailableError); !ok || !strings.Contains(err.Error(), want) || n.count != 0 {
			t.Errorf("%d requests, %v; want %q", n.count, err, want)
		}
	}
}

// The error names the assertion's claims and the field to change, and never contains the assertion.
func TestRefusalOfAnIssuersAssertionNamesItsClaims(t *testing.T) {
	const who = `iss "https://vault.example.com/issuer", sub "agent", aud "https://as.example.com/token"`
	for _, test := range []struct {
		code   string
		status int
		change func(*request)
		says   string
	}{
		{"invalid_grant", 400, func(*request) {}, "the assertion is the grant: the assertion had " + who},
		{"invalid_request", 400, func(*request) {}, "the assertion is the grant"},
		{"invalid_client", 401, func(*request) {}, "no client authentication was sent"},
		{"unauthorized_client", 400, func(*request) {}, "the JWT bearer grant"},
		{"unsupported_grant_type", 400, func(*request) {}, "the JWT bearer grant"},
		{"invalid_client", 401, func(r *request) { r.Grant, r.AuthMethod = "", PrivateKeyJWT }, "private_key_jwt was used: the assertion had " + who},
	} {
		n := &network{handler: func(w http.ResponseWriter, req *http.Request) {
			_ = req.ParseForm()
			description := "no"
			if test.code == "invalid_request" {
				description = "the assertion is bad: " + req.PostForm.Get("assertion")
			}
			body := url.PathEscape(description)
			answering(test.status, "application/json", `{"error":"`+test.code+`","error_description":"`+strings.ReplaceAll(body, "%20", " ")+`"}`)(w, req)
		}}
		r := bearing(n, key(t, "RSA 2048"))
		test.change(r)
		_, err := r.Do(t.Context())
		if refused, ok := err.(*RefusedError); !ok || !strings.Contains(refused.Advice, test.says) || strings.Contains(err.Error(), "eyJ") || n.count != 1 {
			t.Errorf("%s: %d requests, %v; want %q", test.code, n.count, err, test.says)
		}
	}
}
