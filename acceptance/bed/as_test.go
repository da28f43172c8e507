package bed

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const testResource = "http://127.0.0.1:1/mcp"

// The authorization server checks private_key_jwt with each algorithm of its metadata.
func TestAuthorizationServerChecksAssertions(t *testing.T) {
	as := startTestAS(t, t.TempDir())
	setResource(t, as, testResource, time.Minute)
	for alg, key := range signers(t) {
		t.Run(string(alg), func(t *testing.T) {
			id := "jwt-" + string(alg)
			client := Client{ID: id, AuthMethod: "private_key_jwt", JWKS: publicKeys(key, "one")}
			OK(t, as.SetClient(t.Context(), client))
			good := assertion(t, alg, key, "one", id, as.Issuer)
			for _, c := range []struct {
				name, assertion string
				want            int
			}{
				{"issuer", good, http.StatusOK},
				{"token endpoint", assertion(t, alg, key, "one", id, as.TokenURL()), http.StatusOK},
				{"used before", good, http.StatusUnauthorized},
				{"another audience", assertion(t, alg, key, "one", id, "http://127.0.0.1:1"), http.StatusUnauthorized},
				{"another kid", assertion(t, alg, key, "two", id, as.Issuer), http.StatusUnauthorized},
				{"another key", assertion(t, alg, signers(t)[alg], "one", id, as.Issuer), http.StatusUnauthorized},
			} {
				got := post(t, http.DefaultClient, as.TokenURL(), url.Values{
					"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
					"client_assertion":      {c.assertion},
				})
				if got != c.want {
					t.Errorf("%s: status %d, want %d", c.name, got, c.want)
				}
			}
			requests := Must(as.Requests(t.Context(), id))(t)
			first := requests[0]
			if got := first.Assertion; first.AuthMethod != "private_key_jwt" || got.Alg != string(alg) || got.KeyID != "one" || got.Audience != as.Issuer {
				t.Errorf("the first request was recorded as %+v", first)
			}
		})
	}
}

// The authorization server keeps a fetched key set for as long as the answer allows.
func TestAuthorizationServerKeepsFetchedKeys(t *testing.T) {
	as := startTestAS(t, t.TempDir())
	setResource(t, as, testResource, time.Minute)
	key := signers(t)[jose.ES256]
	published := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=300")
		_ = json.NewEncoder(w).Encode(publicKeys(key, "one"))
	}))
	t.Cleanup(published.Close)
	OK(t, as.SetClient(t.Context(), Client{ID: "fetched", AuthMethod: "private_key_jwt", JWKSURI: published.URL + "/keys"}))
	for range 3 {
		got := post(t, http.DefaultClient, as.TokenURL(), url.Values{
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {assertion(t, jose.ES256, key, "one", "fetched", as.Issuer)},
		})
		if got != http.StatusOK {
			t.Errorf("status %d, want 200", got)
		}
	}
	fetches := Must(as.KeyFetches(t.Context(), published.URL+"/keys"))(t)
	if len(fetches) != 1 || fetches[0].Status != http.StatusOK {
		t.Errorf("fetches of the key set: %+v, want one", fetches)
	}
}

// Only the registered certificate at the HTTPS listener authenticates by tls_client_auth.
func TestAuthorizationServerChecksClientCertificates(t *testing.T) {
	as := startTestAS(t, t.TempDir())
	setResource(t, as, testResource, time.Minute)
	otherCA := Must(NewCA())(t)
	own, other, foreign := Must(as.CA.Client("tls"))(t), Must(as.CA.Client("other"))(t), Must(otherCA.Client("tls"))(t)
	for _, client := range []Client{
		{ID: "by subject", AuthMethod: "tls_client_auth", SubjectDN: own.Subject},
		{ID: "by name", AuthMethod: "tls_client_auth", SANDNS: "tls"},
	} {
		OK(t, as.SetClient(t.Context(), client))
		for _, c := range []struct {
			name        string
			endpoint    string
			certificate *Certificate
			want        int
		}{
			{"its own", as.MTLSTokenURL(), own, http.StatusOK},
			{"another client's", as.MTLSTokenURL(), other, http.StatusUnauthorized},
			{"another CA's", as.MTLSTokenURL(), foreign, http.StatusUnauthorized},
			{"none", as.MTLSTokenURL(), nil, http.StatusUnauthorized},
			{"none over http", as.TokenURL(), nil, http.StatusUnauthorized},
		} {
			got := post(t, tlsClient(t, as.CA, c.certificate), c.endpoint, url.Values{"client_id": {client.ID}})
			if got != c.want {
				t.Errorf("%s, certificate %s: status %d, want %d", client.ID, c.name, got, c.want)
			}
		}
	}
}

// Both well-known URLs return the metadata.
func TestAuthorizationServerMetadata(t *testing.T) {
	as := startTestAS(t, t.TempDir())
	for _, name := range []string{"oauth-authorization-server", "openid-configuration"} {
		var metadata struct {
			Issuer   string
			Endpoint string   `json:"token_endpoint"`
			Methods  []string `json:"token_endpoint_auth_methods_supported"`
			Algs     []string `json:"token_endpoint_auth_signing_alg_values_supported"`
			Aliases  struct {
				Endpoint string `json:"token_endpoint"`
			} `json:"mtls_endpoint_aliases"`
		}
		response := Must(http.Get(as.Issuer + "/.well-known/" + name))(t)
		OK(t, json.NewDecoder(response.Body).Decode(&metadata))
		response.Body.Close()
		if metadata.Issuer != as.Issuer || metadata.Endpoint != as.TokenURL() || metadata.Aliases.Endpoint != as.MTLSTokenURL() {
			t.Errorf("%s: %+v", name, metadata)
		}
		methods := []string{"client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"}
		algs := []string{"RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"}
		if !slices.Equal(metadata.Methods, methods) || !slices.Equal(metadata.Algs, algs) {
			t.Errorf("%s: methods %q, algorithms %q", name, metadata.Methods, metadata.Algs)
		}
	}
}

// signers returns a new key for each algorithm that the server accepts.
func signers(t *testing.T) map[jose.SignatureAlgorithm]crypto.Signer {
	t.Helper()
	rsaKey := Must(rsa.GenerateKey(rand.Reader, 2048))(t)
	p256 := Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	p384 := Must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	OK(t, err)
	return map[jose.SignatureAlgorithm]crypto.Signer{
		jose.RS256: rsaKey, jose.PS256: rsaKey, jose.ES256: p256, jose.ES384: p384, jose.EdDSA: ed,
	}
}

func publicKeys(key crypto.Signer, kid string) *jose.JSONWebKeySet {
	return &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: kid, Use: "sig"}}}
}

func assertion(t *testing.T, alg jose.SignatureAlgorithm, key crypto.Signer, kid, client, audience string) string {
	t.Helper()
	signer := Must(jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil))(t)
	signed := Must(jwt.Signed(signer).Claims(map[string]any{
		"iss": client, "sub": client, "aud": audience, "jti": rand.Text(),
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}).Serialize())(t)
	return signed
}

// tlsClient trusts the CA and presents the certificate, if any.
func tlsClient(t *testing.T, ca *CA, certificate *Certificate) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM([]byte(ca.PEM))
	if certificate != nil {
		pair := Must(tls.X509KeyPair([]byte(certificate.PEM), []byte(certificate.KeyPEM)))(t)
		// The client presents it even if the server does not ask for certificates of this CA.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func post(t *testing.T, client *http.Client, endpoint string, form url.Values) int {
	t.Helper()
	form.Set("grant_type", "client_credentials")
	form.Set("resource", testResource)
	response := Must(client.PostForm(endpoint, form))(t)
	response.Body.Close()
	return response.StatusCode
}
