package acceptance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Credentials register the upstream's client at the authorization server, and return the config's fields.
type credentials func(t *testing.T, u *upstream) map[string]any

// secret registers a client whose id and secret have every permitted character (RFC 6749 appendix A.1 and A.2).
func secret(method string) credentials {
	return func(t *testing.T, u *upstream) map[string]any {
		t.Helper()
		var visible []byte
		for c := byte(0x20); c < 0x7f; c++ {
			visible = append(visible, c)
		}
		u.client.ID = u.name + string(visible)
		u.client.Secret = rand.Text() + string(visible)
		u.client.AuthMethod = method
		u.setClient(t)
		return map[string]any{"client_secret": u.client.Secret}
	}
}

// A keyForm makes a key of one type and writes it in one PEM form.
type keyForm func(t *testing.T) (crypto.Signer, *pem.Block)

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key := bed.Must(rsa.GenerateKey(rand.Reader, 2048))(t)
	return key
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key := bed.Must(ecdsa.GenerateKey(curve, rand.Reader))(t)
	return key
}

func ed25519Key(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	bed.OK(t, err)
	return key
}

func pkcs8(newKey func(t *testing.T) crypto.Signer) keyForm {
	return func(t *testing.T) (crypto.Signer, *pem.Block) {
		t.Helper()
		key := newKey(t)
		der := bed.Must(x509.MarshalPKCS8PrivateKey(key))(t)
		return key, &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	}
}

var (
	rsaPKCS8  = pkcs8(func(t *testing.T) crypto.Signer { return rsaKey(t) })
	p256PKCS8 = pkcs8(func(t *testing.T) crypto.Signer { return ecKey(t, elliptic.P256()) })
	p384PKCS8 = pkcs8(func(t *testing.T) crypto.Signer { return ecKey(t, elliptic.P384()) })
	edPKCS8   = pkcs8(func(t *testing.T) crypto.Signer { return ed25519Key(t) })
)

func rsaPKCS1(t *testing.T) (crypto.Signer, *pem.Block) {
	t.Helper()
	key := rsaKey(t)
	return key, &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
}

func p256SEC1(t *testing.T) (crypto.Signer, *pem.Block) {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	der := bed.Must(x509.MarshalECPrivateKey(key))(t)
	return key, &pem.Block{Type: "EC PRIVATE KEY", Bytes: der}
}

// operatorKey registers the public part of a new operator's key under its thumbprint (RFC 7638), the default of
// key_id.
func operatorKey(form keyForm) credentials {
	return func(t *testing.T, u *upstream) map[string]any {
		t.Helper()
		key, block := form(t)
		thumbprint := bed.Must((&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256))(t)
		return u.registerKey(t, key, block, base64.RawURLEncoding.EncodeToString(thumbprint))
	}
}

// namedKey registers a key, with a certificate, under an id other than its thumbprint.
func namedKey(t *testing.T, u *upstream) map[string]any {
	t.Helper()
	key, block := p256PKCS8(t)
	fields := u.registerKey(t, key, block, "named key/1")
	der := selfSigned(t, key)
	digest := sha256.Sum256(der)
	u.x5t = base64.RawURLEncoding.EncodeToString(digest[:])
	fields["key_id"] = "named key/1"
	fields["certificate"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return fields
}

// selfSigned makes a certificate for a key, in DER.
func selfSigned(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(90 * 24 * time.Hour)}
	return bed.Must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t)
}

func (u *upstream) registerKey(t *testing.T, key crypto.Signer, block *pem.Block, kid string) map[string]any {
	t.Helper()
	private := string(pem.EncodeToMemory(block))
	u.bed.Secrecy.AddPrivateKey("private key of "+u.client.ID, private)
	u.useKeys(t, &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: kid, Use: "sig"}}})
	return map[string]any{"private_key": private}
}

// registerAs registers a client with the upstream's id and scope.
func (u *upstream) registerAs(t *testing.T, client bed.Client) {
	t.Helper()
	client.ID, client.Scope = u.client.ID, u.client.Scope
	u.client = client
	u.setClient(t)
}

// useKeys registers the client with public keys.
func (u *upstream) useKeys(t *testing.T, keys *jose.JSONWebKeySet) {
	t.Helper()
	u.registerAs(t, bed.Client{AuthMethod: "private_key_jwt", JWKS: keys})
}

// madeKey lets the plugin make the key. registerMadeKey registers the client.
func madeKey(kind string) credentials {
	return func(*testing.T, *upstream) map[string]any {
		return map[string]any{"key_type": kind}
	}
}

// registerMadeKey registers the plugin's public key, by its URL if it is published.
func (u *upstream) registerMadeKey(t *testing.T) {
	t.Helper()
	uri := u.jwksURI(t)
	if uri == "" {
		u.useKeys(t, u.publicKeys(t))
		return
	}
	u.registerAs(t, bed.Client{AuthMethod: "private_key_jwt", JWKSURI: uri})
}

// publicKeys reads the public keys as the operator.
func (u *upstream) publicKeys(t *testing.T) *jose.JSONWebKeySet {
	t.Helper()
	data := bed.Must(json.Marshal(map[string]any{"keys": u.read(t, "keys/"+u.name)["keys"]}))(t)
	keys := new(jose.JSONWebKeySet)
	bed.OK(t, json.Unmarshal(data, keys))
	for _, key := range keys.Keys {
		if !key.IsPublic() || !key.Valid() {
			t.Fatal("keys/ has an entry that is not a public key")
		}
	}
	return keys
}

// publishedKey lets the plugin make the key, and the authorization server fetch its public part from Vault.
func publishedKey(kind string) credentials {
	return func(*testing.T, *upstream) map[string]any {
		return map[string]any{"key_type": kind, "publish_jwks": true}
	}
}

// jwksURI returns the public URL of the upstream's keys, or "" if they are not published.
func (u *upstream) jwksURI(t *testing.T) string {
	t.Helper()
	path, _ := u.read(t, "keys/"+u.name)["jwks_path"].(string)
	if path == "" {
		return ""
	}
	return u.mountURL() + path
}

// mountURL returns the mount's URL, with a slash at the end.
func (u *upstream) mountURL() string { return u.bed.Vault.Address + "/v1/" + bed.Mount + "/" }

// certificate issues a client certificate, and registers the client with it.
func certificate(register func(*bed.Client, *bed.Certificate)) credentials {
	return func(t *testing.T, u *upstream) map[string]any {
		t.Helper()
		issued := bed.Must(u.bed.AS.NewClientCertificate(u.client.ID))(t)
		u.client = bed.Client{ID: u.client.ID, AuthMethod: "tls_client_auth", Scope: u.client.Scope}
		register(&u.client, issued)
		u.setClient(t)
		return map[string]any{
			"client_certificate":     issued.PEM,
			"client_certificate_key": issued.KeyPEM,
			"ca_cert":                u.bed.AS.CA.PEM,
		}
	}
}

func bySubject(c *bed.Client, issued *bed.Certificate) { c.SubjectDN = issued.Subject }
func byName(c *bed.Client, _ *bed.Certificate)         { c.SANDNS = c.ID }
