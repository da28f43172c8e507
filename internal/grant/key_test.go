package grant

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// testKeys has a key of every kind, including refused kinds. It is made once, because RSA keys are slow to make.
var testKeys = sync.OnceValue(func() map[string]crypto.Signer {
	keys := map[string]crypto.Signer{}
	for name, generate := range map[string]func() (crypto.Signer, error){
		"RSA 2048": func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
		"RSA 1024": func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 1024) },
		"P-224":    func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P224(), rand.Reader) },
		"P-256":    func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		"P-384":    func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
		"P-521":    func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) },
		"Ed25519":  func() (crypto.Signer, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err },
	} {
		var err error
		if keys[name], err = generate(); err != nil {
			panic(err)
		}
	}
	return keys
})

func pkcs8(t testing.TB, key any) string {
	t.Helper()
	return pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))(t))
}

func pkcs1(name string) string {
	return pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(testKeys()[name].(*rsa.PrivateKey)))
}

func sec1(t testing.TB, name string) string {
	t.Helper()
	return pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(testKeys()[name].(*ecdsa.PrivateKey)))(t))
}

func key(t testing.TB, name string) *Key {
	t.Helper()
	return must(ParseKey(pkcs8(t, testKeys()[name])))(t)
}

func TestParseKeyReadsEveryForm(t *testing.T) {
	keys := testKeys()
	ec := pemOf("EC PARAMETERS", []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07})
	for _, tc := range []struct {
		name, in, key string
		algorithms    string
	}{
		{"RSA, PKCS#8", pkcs8(t, keys["RSA 2048"]), "RSA 2048", "[RS256 PS256]"},
		{"RSA, PKCS#1", pkcs1("RSA 2048"), "RSA 2048", "[RS256 PS256]"},
		{"P-256, PKCS#8", pkcs8(t, keys["P-256"]), "P-256", "[ES256]"},
		{"P-256, SEC 1", sec1(t, "P-256"), "P-256", "[ES256]"},
		{"P-256, SEC 1, as openssl ecparam -genkey has it", ec + sec1(t, "P-256"), "P-256", "[ES256]"},
		{"P-384, PKCS#8", pkcs8(t, keys["P-384"]), "P-384", "[ES384]"},
		{"P-384, SEC 1", sec1(t, "P-384"), "P-384", "[ES384]"},
		{"Ed25519, PKCS#8", pkcs8(t, keys["Ed25519"]), "Ed25519", "[EdDSA Ed25519]"},
		{"PKCS#8 with SEC 1's label", strings.ReplaceAll(pkcs8(t, keys["P-256"]), "PRIVATE", "EC PRIVATE"), "P-256", "[ES256]"},
		{"an export's attributes", "Bag Attributes\n    localKeyID: 01\n" + pkcs8(t, keys["P-256"]), "P-256", "[ES256]"},
		{"Windows line ends", strings.ReplaceAll(pkcs8(t, keys["P-256"]), "\n", "\r\n"), "P-256", "[ES256]"},
		{"no final line break", strings.TrimSpace(pkcs8(t, keys["P-256"])), "P-256", "[ES256]"},
	} {
		k, err := ParseKey(tc.in)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		want := keys[tc.key].(interface{ Equal(crypto.PrivateKey) bool })
		if !want.Equal(k.signer) || fmt.Sprint(k.Algorithms()) != tc.algorithms || k.Alg != k.Algorithms()[0] || len(k.ID) != 43 {
			t.Errorf("%s: %s, %s, %v", tc.name, k.ID, k.Alg, k.Algorithms())
		}
	}
}

// jwkOf returns a test key as a private JWK, with additional members.
func jwkOf(t testing.TB, name string, members ...string) string {
	t.Helper()
	data := must(json.Marshal(jose.JSONWebKey{Key: testKeys()[name]}))(t)
	return "{" + strings.Join(append(members, string(data[1:])), ",")
}

// RFC 7517: a JWK's kid and alg identify the key to the authorization server.
func TestParseKeyReadsJWKs(t *testing.T) {
	for _, tc := range []struct{ in, key, id, alg string }{
		{jwkOf(t, "RSA 2048"), "RSA 2048", "", "RS256"},
		{jwkOf(t, "RSA 2048", `"alg":"PS256"`, `"kid":"key 1"`, `"use":"sig"`), "RSA 2048", "key 1", "PS256"},
		{" \n" + jwkOf(t, "P-256", `"key_ops":["sign"]`) + "\n", "P-256", "", "ES256"},
		{jwkOf(t, "P-384"), "P-384", "", "ES384"},
		{jwkOf(t, "Ed25519"), "Ed25519", "", "EdDSA"},
		{jwkOf(t, "Ed25519", `"alg":"Ed25519"`), "Ed25519", "", "Ed25519"},
		{`{"keys":[` + jwkOf(t, "P-256", `"kid":"a"`) + `]}`, "P-256", "a", "ES256"},
	} {
		k, err := ParseKey(tc.in)
		if err != nil {
			t.Errorf("%s: %v", tc.key, err)
			continue
		}
		id := tc.id
		if id == "" {
			id = key(t, tc.key).ID
		}
		named, _ := k.Named()
		want := testKeys()[tc.key].(interface{ Equal(crypto.PrivateKey) bool })
		if !want.Equal(k.signer) || k.ID != id || k.Alg != tc.alg || named != tc.id {
			t.Errorf("%s: %s, %s", tc.key, k.ID, k.Alg)
		}
	}
}

func TestParseKeyErrorsNameTheRemedy(t *testing.T) {
	good := pkcs8(t, testKeys()["P-256"])
	x25519 := must(ecdh.X25519().GenerateKey(rand.Reader))(t)
	public := must(x509.MarshalPKIXPublicKey(testKeys()["P-256"].Public()))(t)
	//nolint:staticcheck // weak by design, but openssl rsa -aes128 has written it for decades
	legacy := must(x509.EncryptPEMBlock(rand.Reader, "RSA PRIVATE KEY",
		x509.MarshalPKCS1PrivateKey(testKeys()["RSA 2048"].(*rsa.PrivateKey)), []byte("pw"), x509.PEMCipherAES128))(t)
	block, _ := pem.Decode([]byte(sec1(t, "P-256")))
	// The curve's identifier ends in another number: prime239v3.
	otherCurve := pemOf("EC PRIVATE KEY", bytes.Replace(block.Bytes, []byte{0xce, 0x3d, 0x03, 0x01, 0x07}, []byte{0xce, 0x3d, 0x03, 0x01, 0x06}, 1))

	const reads = "; with the vault command, private_key=@key.pem reads a file"
	const notPEM = `private_key must hold a private key in PEM form ("-----BEGIN PRIVATE KEY-----")` + reads
	const unknownJWK = "private_key: the JWK is not a private key of a known kind: write an RSA, P-256, P-384 or Ed25519 key with all its members"
	publicJWK := published(t, key(t, "P-256"))
	const encrypted = "private_key: PEM block 1 is encrypted: write the key without a passphrase, as openssl pkey -in key.pem prints it"
	const damaged = "private_key: PEM block 1 is damaged or cut short: copy the file again"
	const unknown = "private_key: PEM block 1 is not a private key of a known kind: write an RSA, EC or Ed25519 key in PKCS#8, PKCS#1 or SEC 1 form"
	for _, tc := range []struct {
		name, in, want string
	}{
		{"empty", "", notPEM},
		{"a path", "/etc/ssl/key.pem", notPEM},
		{"a JWK without x", `{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}`, unknownJWK},
		{"half a JWK", `{"kty":"OKP","crv":"Ed25519","d":"nWGx`, "private_key: the JWK is damaged or cut short: copy the file again"},
		{"a public JWK", string(publicJWK), "private_key: the JWK is a public key: write the private key that belongs to it"},
		{"a symmetric JWK", `{"kty":"oct","k":"c2VjcmV0"}`, "private_key: the JWK is a symmetric key: write an RSA, EC or OKP key"},
		{"JSON that is no JWK", `{"private_key":"x"}`, "private_key: the JWK names no kty: write an RSA, EC or OKP key (RFC 7517)"},
		{"a JWK for encryption", jwkOf(t, "P-256", `"use":"enc"`), "private_key: the JWK is for encryption, by its use: write one for signatures"},
		{"a JWK with an alg of its kind that is not supported", jwkOf(t, "RSA 2048", `"alg":"RS512"`), "private_key: the JWK's alg does not fit the key: use RS256 or PS256, or leave its alg out"},
		{"a JWK with another key's alg", jwkOf(t, "P-256", `"alg":"RS256"`), "private_key: the JWK's alg does not fit the key: use ES256, or leave its alg out"},
		{"an empty JWK Set", `{"keys":[]}`, "private_key: the JWK Set holds 0 keys: write one of them alone"},
		{"two JWKs", `{"keys":[` + jwkOf(t, "P-256") + `,` + jwkOf(t, "P-384") + `]}`, "private_key: the JWK Set holds 2 keys: write one of them alone"},
		{"an X25519 JWK", `{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}`, unknownJWK},
		{"a JWK on P-521", jwkOf(t, "P-521"), "private_key is a key on the curve P-521: use one on P-256 or P-384"},
		{"an RSA 1024 JWK", jwkOf(t, "RSA 1024"), "private_key is an RSA key of 1024 bits: use one of 2048 to 8192"},
		{"base64 without lines", strings.Join(strings.Split(good, "\n")[1:3], ""), notPEM},
		{"written-out line breaks", strings.ReplaceAll(good, "\n", `\n`), `private_key holds \n in letters; PEM needs real line breaks` + reads},
		{"spaces for line breaks", strings.ReplaceAll(good, "\n", " "), damaged},
		{"damaged", strings.Replace(good, "M", "*", 1), damaged},
		{"cut short", good[:len(good)/2], damaged},
		{"damaged before a good one", strings.Replace(good, "M", "*", 1) + good, damaged},
		{"garbage after", good + "and more", "private_key: what follows PEM block 1 is not a private key: remove it"},
		{"two keys", good + pkcs1("RSA 2048"), "private_key: PEM block 2 is a second private key: write one alone"},
		{"key and certificate", good + pemOf("CERTIFICATE", []byte("x")), "private_key: PEM block 2 is a certificate, which has a field of its own, certificate"},
		{"certificate", selfSigned(t, someday).pem, "private_key: PEM block 1 is a certificate, which has a field of its own, certificate"},
		{"public key", pemOf("PUBLIC KEY", public), "private_key: PEM block 1 is a public key: write the private key that belongs to it"},
		{"RSA public key", pemOf("RSA PUBLIC KEY", []byte("x")), "private_key: PEM block 1 is a public key: write the private key that belongs to it"},
		{"request", pemOf("CERTIFICATE REQUEST", []byte("x")), "private_key: PEM block 1 is not a private key: only one PRIVATE KEY block belongs here"},
		{"encrypted PKCS#8", pemOf("ENCRYPTED PRIVATE KEY", []byte("x")), encrypted},
		{"encrypted PKCS#1", string(pem.EncodeToMemory(legacy)), encrypted},
		{"OpenSSH", pemOf("OPENSSH PRIVATE KEY", []byte("x")), "private_key: PEM block 1 is in OpenSSH's form: convert a copy of the file with ssh-keygen -p -m PKCS8 -f"},
		{"parameters alone", pemOf("EC PARAMETERS", []byte("x")), "private_key holds EC parameters without a private key: copy the whole file"},
		{"rubbish inside", pemOf("PRIVATE KEY", []byte("x")), unknown},
		{"X25519", pkcs8(t, x25519), unknown},
		{"another curve", otherCurve, unknown},
		{"RSA 1024", pkcs1("RSA 1024"), "private_key is an RSA key of 1024 bits: use one of 2048 to 8192"},
		{"P-224", sec1(t, "P-224"), "private_key is a key on the curve P-224: use one on P-256 or P-384"},
		{"P-521", pkcs8(t, testKeys()["P-521"]), "private_key is a key on the curve P-521: use one on P-256 or P-384"},
	} {
		k, err := ParseKey(tc.in)
		if k != nil || err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
}

func TestGeneratedKeyIsStoredAndReadAgain(t *testing.T) {
	for kind, alg := range map[KeyType]string{RSA2048: "RS256", ECP256: "ES256", Ed25519: "EdDSA"} {
		k := must(GenerateKey(kind))(t)
		if k.Alg != alg {
			t.Errorf("%s: %s", kind, k.Alg)
		}
		again := must(ParseKey(must(k.PEM())(t)))(t)
		same := k.signer.(interface{ Equal(crypto.PrivateKey) bool })
		if !same.Equal(again.signer) || again.ID != k.ID || again.Alg != k.Alg {
			t.Errorf("%s: another key was read: %s %s, want %s %s", kind, again.ID, again.Alg, k.ID, k.Alg)
		}
		if other, err := GenerateKey(kind); err != nil || other.ID == k.ID {
			t.Errorf("%s: the same key twice: %v", kind, err)
		}
	}
	if k, err := GenerateKey("rsa-1024"); k != nil || err == nil || err.Error() != `key_type "rsa-1024" is not supported: use rsa-2048, ec-p256 or ed25519` {
		t.Errorf("%v", err)
	}
}

func TestChooseAlgorithm(t *testing.T) {
	for _, tc := range []struct {
		key       string
		wanted    string
		supported string
		want      string
		err       string
	}{
		{"RSA 2048", "", "", "RS256", ""},
		{"RSA 2048", "", "ES256 PS256 RS256", "RS256", ""},
		{"RSA 2048", "", "ES256 PS256", "PS256", ""},
		{"RSA 2048", "PS256", "RS256", "PS256", ""}, // the operator's choice precedes the metadata
		{"RSA 2048", "ES256", "ES256", "", `signing_alg "ES256" does not fit the private key: use RS256 or PS256`},
		{"P-256", "", "RS256 ES256", "ES256", ""},
		{"P-256", "ES384", "", "", `signing_alg "ES384" does not fit the private key: use ES256`},
		{"P-384", "", "", "ES384", ""},
		{"P-384", "none", "", "", `signing_alg "none" does not fit the private key: use ES384`},
		{"Ed25519", "", "EdDSA", "EdDSA", ""},
		{"Ed25519", "", "Ed25519 EdDSA", "EdDSA", ""},
		{"Ed25519", "", "RS256 Ed25519", "Ed25519", ""},
		{"Ed25519", "Ed25519", "EdDSA", "Ed25519", ""},
		{"Ed25519", "HS256", "", "", `signing_alg "HS256" does not fit the private key: use EdDSA or Ed25519`},
		{"Ed25519", "", "evil RS256 ES256", "", "the private key signs with EdDSA or Ed25519, but the authorization server's metadata names RS256 or ES256: write a private_key or key_type for that"},
		{"Ed25519", "", "evil RS512", "", "the authorization server's metadata names no signing algorithm that is supported here; if it accepts EdDSA or Ed25519 all the same, set signing_alg"},
	} {
		got, err := key(t, tc.key).ChooseAlgorithm(tc.wanted, strings.Fields(tc.supported))
		if errorText(err) != tc.err || err == nil && got != tc.want {
			t.Errorf("%s, wanted %q of %q: %q, %v", tc.key, tc.wanted, tc.supported, got, err)
		}
	}
}

// RFC 7638 section 3.1 and RFC 8037 appendix A.3.
func TestThumbprintIsThatOfTheStandards(t *testing.T) {
	for want, public := range map[string]string{
		"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs": `{"kty":"RSA","e":"AQAB","alg":"RS256","kid":"2011-04-29","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}`,
		"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k": `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
	} {
		var jwk jose.JSONWebKey
		noError(t, json.Unmarshal([]byte(public), &jwk))
		if got, err := thumbprint(jwk.Key); err != nil || got != want {
			t.Errorf("%s %v, want %s", got, err, want)
		}
	}
}

func TestPublicJWKSHoldsPublicMembersOnly(t *testing.T) {
	for name, want := range map[string]string{
		"RSA 2048": "alg e kid kty n use",
		"P-256":    "alg crv kid kty use x y",
		"P-384":    "alg crv kid kty use x y",
		"Ed25519":  "alg crv kid kty use x",
	} {
		k := key(t, name)
		data := published(t, k)
		var set struct{ Keys []map[string]string }
		if err := json.Unmarshal(data, &set); err != nil || len(set.Keys) != 1 {
			t.Fatalf("%s: %v", data, err)
		}
		if got := slices.Sorted(maps.Keys(set.Keys[0])); strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", name, got, want)
		}
		if jwk := set.Keys[0]; jwk["kid"] != k.ID || jwk["alg"] != k.Alg || jwk["use"] != "sig" {
			t.Errorf("%s: %v", name, jwk)
		}
	}
}

func TestPublicJWKSKeepsTheOrder(t *testing.T) {
	if data := string(published(t)); data != `{"keys":[]}` {
		t.Error(data)
	}
	first, second := key(t, "P-256"), key(t, "RSA 2048")
	first.ID, second.ID, second.Alg = "a", "b", "PS256"
	data := published(t, first, second)
	var set jose.JSONWebKeySet
	noError(t, json.Unmarshal(data, &set))
	if len(set.Keys) != 2 || set.Keys[0].KeyID != "a" || set.Keys[1].KeyID != "b" || set.Keys[1].Algorithm != "PS256" {
		t.Errorf("%s", data)
	}
}

// A key that is printed to a log by mistake reveals nothing.
func TestKeyIsNotPrinted(t *testing.T) {
	signer := key(t, "Ed25519")
	signer.ID = "kid-1"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		for _, value := range []any{signer, *signer, Assertion{Key: signer}, &Request{Assertion: &Assertion{Key: signer}}} {
			got := fmt.Sprintf(verb, value)
			seed := testKeys()["Ed25519"].(ed25519.PrivateKey).Seed()
			for _, secret := range []string{fmt.Sprintf("%d", seed[:4])[1:10], fmt.Sprintf("%x", seed[:4]), string(seed[:4])} {
				if strings.Contains(got, secret) {
					t.Errorf("%s of %T: %s", verb, value, got)
				}
			}
		}
	}
	if got := fmt.Sprint(signer); got != "key kid-1" {
		t.Error(got)
	}
	if data, err := json.Marshal(signer); err != nil || string(data) != `{"ID":"kid-1","Alg":"EdDSA"}` {
		t.Errorf("%s %v", data, err)
	}
}

// FuzzParseKey checks that the result is a key that signs, or an error that does not repeat the input.
func FuzzParseKey(f *testing.F) {
	good := pkcs8(f, testKeys()["P-256"])
	for _, s := range []string{
		"", good, good + good, good[:80], good + "x", strings.ReplaceAll(good, "\n", `\n`),
		pkcs8(f, testKeys()["RSA 2048"]), pkcs8(f, testKeys()["Ed25519"]), pkcs8(f, testKeys()["P-521"]),
		pkcs1("RSA 2048"), pkcs1("RSA 1024"), sec1(f, "P-256"), sec1(f, "P-384"), sec1(f, "P-224"),
		pemOf("EC PARAMETERS", []byte("x")) + sec1(f, "P-256"),
		pemOf("ENCRYPTED PRIVATE KEY", []byte("x")), pemOf("PUBLIC KEY", []byte("x")),
		"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
		selfSigned(f, someday).pem,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseKey(s)
		if (k == nil) != (err != nil) {
			t.Fatalf("%v, %v", k, err)
		}
		if err != nil {
			wantOwnWords(t, err, "private_key", s)
			return
		}
		stored := must(k.PEM())(t)
		if again, err := ParseKey(stored); err != nil || again.ID != k.ID {
			t.Fatalf("%v, %v", again, err)
		}
		if k.ID == "" || k.fits(k.Alg) != nil {
			t.Fatalf("%q %q", k.ID, k.Alg)
		}
	})
}

// wantOwnWords checks that an error is about the field, is short, and repeats no usable piece of the input.
func wantOwnWords(t *testing.T, err error, field, input string) {
	t.Helper()
	text := err.Error()
	if !strings.HasPrefix(text, field) || len(text) > 250 {
		t.Fatal(err)
	}
	for line := range strings.FieldsSeq(input) {
		if len(line) >= 24 && strings.Contains(text, line) {
			t.Fatalf("%q is in %q", line, text)
		}
	}
}
