package mcpoauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"sync"
	"testing"
	"time"
)

// credentialKind is one way for a client to authenticate.
type credentialKind struct {
	name    string
	full    fields // every readable field of these credentials, each with a value other than its default
	secrets fields // the write-only fields
	give    fields // the fewest fields for these credentials
	field   string // the field that the error asks for
	bring   fields // supplies it
	none    fields // removes the credentials
}

func credentialKinds(t *testing.T) []credentialKind {
	t.Helper()
	certificate, key := certificateAndKey(t)
	return []credentialKind{
		{
			name:    "secret",
			full:    fields{"token_endpoint_auth_method": "client_secret_basic", "raw_basic_auth": true},
			secrets: fields{"client_secret": secret},
			give:    fields{"client_secret": secret},
			field:   "client_secret", bring: fields{"client_secret": secret},
			none: fields{"client_secret": ""},
		},
		{
			name: "operator's key",
			full: fields{
				"token_endpoint_auth_method": "private_key_jwt", "key_id": "the key", "signing_alg": "ES256",
				"certificate": certificate, "publish_jwks": true, "assertion_audience": "token_endpoint",
				"assertion_type": "client-authentication+jwt", "assertion_claims": map[string]any{"tenant": "north", "level": json.Number("12345678901234567890"), "roles": []any{"a"}},
			},
			secrets: fields{"private_key": key},
			give:    fields{"private_key": key},
			field:   "private_key", bring: fields{"private_key": key},
			none: fields{"private_key": "", "certificate": ""},
		},
		{
			name: "plugin-made key",
			full: fields{
				"token_endpoint_auth_method": "private_key_jwt", "key_type": "ed25519", "signing_alg": "EdDSA", "key_id": "",
				"publish_jwks": true, "assertion_audience": "issuer",
			},
			give:  fields{"key_type": "ec-p256"},
			field: "key_type (which makes a new key)", bring: fields{"key_type": "ec-p256"},
			none: fields{"key_type": ""},
		},
		{
			name:    "client certificate",
			full:    fields{"token_endpoint_auth_method": "tls_client_auth", "client_certificate": certificate},
			secrets: fields{"client_certificate_key": key},
			give:    fields{"client_certificate": certificate, "client_certificate_key": key},
			field:   "client_certificate_key", bring: fields{"client_certificate_key": key},
			none: fields{"client_certificate": "", "client_certificate_key": ""},
		},
	}
}

// certificateAndKey makes a certificate and its private key, both as PEM.
func certificateAndKey(t *testing.T) (certificate, key string) {
	t.Helper()
	private := ecKey(t, elliptic.P256())
	return certificateOf(t, private, time.Now().Add(90*24*time.Hour)), pemOf(t, private)
}

// certificateOf makes a self-signed certificate, as PEM.
func certificateOf(t *testing.T, key crypto.Signer, end time.Time) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: end}
	return encodePEM("CERTIFICATE", must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t))
}

// pemOf returns a private key as PKCS#8 PEM.
func pemOf(t *testing.T, key crypto.Signer) string {
	t.Helper()
	return encodePEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))(t))
}

func encodePEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// rsaKey is made once, because generating it is slow.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	return must(ecdsa.GenerateKey(curve, rand.Reader))(t)
}

func edKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSwitchingTheKindOfCredentials(t *testing.T) {
	as, kinds := newAuthority(t).newServer(t, false), credentialKinds(t)
	for _, has := range kinds {
		for _, gets := range kinds {
			if has.name == gets.name {
				continue
			}
			t.Run(has.name+" to "+gets.name, func(t *testing.T) {
				m := newMount(t)
				m.write("config/weather", with(with(as.endpoint(), has.give), fields{"verify": false}))
				m.write("config/weather", with(with(has.none, gets.give), fields{"verify": false}))
				// All fields of both kinds.
				m.write("config/other", with(with(as.endpoint(), with(has.full, has.secrets)), fields{"issuer": as.URL, "verify": false}))
				emptied := with(has.none, nil)
				for field, value := range has.full {
					emptied[field] = ""
					if _, is := value.(bool); is {
						emptied[field] = false
					}
				}
				m.write("config/other", with(with(with(emptied, gets.give), with(gets.full, gets.secrets)), fields{"verify": false}))
				c := m.config("weather")
				equal(t, "a stored secret, key, key type, certificate", []bool{
					c.ClientSecret != "", len(c.Keys) > 0, c.KeyType != "", c.ClientCertificate != "" && c.ClientCertificateKey != "",
				}, []bool{
					gets.give["client_secret"] != nil, gets.give["private_key"] != nil || gets.give["key_type"] != nil,
					gets.give["key_type"] != nil, gets.give["client_certificate"] != nil,
				})
			})
		}
	}
}

// The same key in another form changes nothing.
func TestWritingTheSameCredentialsAgainChangesNothing(t *testing.T) {
	as := newAuthority(t).newServer(t, false)
	for _, kind := range credentialKinds(t) {
		m := newMount(t)
		m.write("config/weather", with(with(as.endpoint(), kind.give), fields{"verify": false}))
		was := m.storage.entries(t)
		for range 2 {
			for _, same := range []fields{
				kind.give, with(as.endpoint(), kind.bring), with(m.read("config/weather"), kind.secrets), m.read("config/weather"),
			} {
				m.write("config/weather", with(same, fields{"verify": false}))
			}
		}
		m.storage.unchanged(t, was)
	}
	as.asked(t, 0, "after writes that change nothing")
}

// Some tools write all fields in every request.
func TestEmptyFieldsBesideTheOtherKindOfKey(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"private_key": "", "key_type": "ec-p256"}))
	was := m.storage.entries(t)
	m.write("config/weather", fields{"private_key": "", "key_type": "ec-p256", "verify": false})
	m.storage.unchanged(t, was)
	_, key := certificateAndKey(t)
	m.write("config/weather", fields{"private_key": key, "key_type": "", "verify": false})
	m.write("config/weather", fields{"private_key": "", "key_type": "ed25519"})
	equal(t, "key_type", m.read("config/weather")["key_type"], "ed25519")
	m.rejects("config/weather", fields{"private_key": key, "key_type": "ed25519"}, "contradict each other")
	as.asked(t, 0, "after all of them")
}

func TestWriteOfAKeyOfTheDefaultTypeCanBeRepeated(t *testing.T) {
	m, as := newMount(t), newAuthServer(t)
	write := with(as.endpoint(), fields{"token_endpoint_auth_method": "private_key_jwt", "key_type": ""})
	m.write("config/weather", write)
	m.token("weather") // an unverified config is verified by its next write
	was := m.storage.entries(t)
	m.write("config/weather", write)
	m.storage.unchanged(t, was)
}
