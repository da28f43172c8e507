package acceptance

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A certified authorization server accepts the optional forms of client assertions that RFC 7523 does not define.
func TestFormsOfAssertions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		credentials credentials
		fields      map[string]any
		typ, alg    string
		kid         func(u *upstream) string
	}{
		"RFC 10070's type": {operatorKey(p256PKCS8), map[string]any{"assertion_type": "client-authentication+jwt"}, "client-authentication+jwt", "ES256", onlyKey},
		"Ed25519":          {operatorKey(edPKCS8), map[string]any{"signing_alg": "Ed25519"}, "JWT", "Ed25519", onlyKey},
		"no kid":           {operatorKey(rsaPKCS8), map[string]any{"key_id": ""}, "JWT", "RS256", func(*upstream) string { return "" }},
		"further claims":   {operatorKey(p256PKCS8), map[string]any{"assertion_claims": map[string]any{"tenant": "north", "level": 3}}, "JWT", "ES256", onlyKey},
		"a JWK":            {jwkKey, nil, "JWT", "PS256", onlyKey},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, shared(t), "", 5*time.Minute)
			settings := u.discovered(c.credentials(t, u))
			settings["client_id"] = u.client.ID
			maps.Copy(settings, c.fields)
			if answer := u.write(t, "config/"+u.name, settings); answer != nil {
				t.Errorf("the write warns %q", answer.Warnings)
			}
			u.token(t, "token/"+u.name)
			requests := u.wantRequests(t, 1)
			got := requests[0].Assertion
			if requests[0].Status != http.StatusOK || got.Type != c.typ || got.Alg != c.alg || got.KeyID != c.kid(u) {
				t.Errorf("the assertion was %+v, want typ %s, alg %s and kid %q", got, c.typ, c.alg, c.kid(u))
			}
		})
	}
}

func onlyKey(u *upstream) string { return u.client.JWKS.Keys[0].KeyID }

// jwkKey is a key in JWK form, registered with its kid and alg.
func jwkKey(t *testing.T, u *upstream) map[string]any {
	t.Helper()
	key, block := rsaPKCS8(t)
	u.registerKey(t, key, block, "known as this")
	u.client.JWKS.Keys[0].Algorithm = "PS256"
	u.useKeys(t, u.client.JWKS)
	jwk := bed.Must(json.Marshal(jose.JSONWebKey{Key: key, KeyID: "known as this", Algorithm: "PS256", Use: "sig"}))(t)
	var members map[string]string
	bed.OK(t, json.Unmarshal(jwk, &members))
	u.bed.Secrecy.AddPrivateKey("JWK of "+u.client.ID, members["d"])
	return map[string]any{"private_key": string(jwk)}
}

// The certificate is registered at the authorization server (RFC 8705 section 2.2).
func TestSelfSignedClientCertificate(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	key, block := p256PKCS8(t)
	der := selfSigned(t, key)
	certificate := bed.Must(x509.ParseCertificate(der))(t)
	u.registerAs(t, bed.Client{AuthMethod: "self_signed_tls_client_auth", JWKS: &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: key.Public(), Certificates: []*x509.Certificate{certificate}},
	}}})
	private := string(pem.EncodeToMemory(block))
	u.bed.Secrecy.AddPrivateKey("key of a certificate", private)
	u.write(t, "config/"+u.name, u.discovered(map[string]any{
		"client_id": u.client.ID, "ca_cert": u.bed.AS.CA.PEM, "token_endpoint_auth_method": "self_signed_tls_client_auth",
		"client_certificate":     string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		"client_certificate_key": private,
	}))
	u.token(t, "token/"+u.name)
	if request := u.wantRequests(t, 1)[0]; request.Status != http.StatusOK {
		t.Errorf("the token request is %+v", request)
	}
}

// The server asks for the certificate after it has read the request.
func TestCertificateByRenegotiation(t *testing.T) {
	t.Parallel()
	b := shared(t)
	u := newUpstream(t, b, "", 5*time.Minute)
	files := bed.Must(b.AS.CA.ServerFiles(t.TempDir()))(t)
	tokenURL := bed.Must(b.NewAuthServer(t.Context(), "renegotiate.mjs", files))(t)
	issued := bed.Must(b.AS.NewClientCertificate(u.client.ID))(t)
	settings := map[string]any{
		"token_url": tokenURL, "client_id": u.client.ID, "ca_cert": b.AS.CA.PEM,
		"client_certificate": issued.PEM, "client_certificate_key": issued.KeyPEM,
	}
	u.write(t, "config/"+u.name, settings)
	if _, err := b.ReadToken(t.Context(), u.root, "token/"+u.name); err != nil {
		t.Error(err)
	}
	// The error for a certificate of another CA differs.
	other := bed.Must(bed.NewCA())(t)
	foreign := bed.Must(other.Client(u.client.ID))(t)
	b.Secrecy.AddPrivateKey("key of a certificate of another CA", foreign.KeyPEM)
	settings["client_certificate"], settings["client_certificate_key"] = foreign.PEM, foreign.KeyPEM
	u.refuse(t, "config/"+u.name, settings, http.StatusBadRequest, "tls_client_auth was used, with a client_certificate without a chain")
}
