package grant

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // of thumbprints
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// KeyType is a kind of key for GenerateKey, by its name in the API.
type KeyType string

const (
	// RSA2048 signs with RS256 or PS256.
	RSA2048 KeyType = "rsa-2048"
	// ECP256 signs with ES256.
	ECP256 KeyType = "ec-p256"
	// Ed25519 signs with EdDSA or, by its newer name (RFC 9864), Ed25519.
	Ed25519 KeyType = "ed25519"
)

// RSA keys below minRSABits must not sign (RFC 7518 section 3.3). Keys above maxRSABits are so slow that
// they would delay other refreshes.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// Key is a private key that signs client assertions. Its secret part is neither printed nor marshalled;
// only PEM returns it.
type Key struct {
	// ID is the kid of assertions and of the published key. ParseKey and GenerateKey set it to the JWK thumbprint
	// (RFC 7638, SHA-256, base64url) or to the kid of a JWK. If the authorization server knows the key by another
	// name, set that. "" leaves the kid out.
	ID string
	// Alg is the JWS algorithm of signatures, one of Algorithms. ParseKey and GenerateKey set it to the first, or to
	// the alg of a JWK.
	Alg string

	signer crypto.Signer // *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey
	named  jwkNames
}

// ParseKey reads an unencrypted private key in PEM form (PKCS#8, PKCS#1 or SEC 1) or as a JWK (RFC 7517): RSA of 2048
// to 8192 bits, P-256, P-384 or Ed25519. Its errors name the fault and the remedy, and repeat nothing of the text.
func ParseKey(text string) (*Key, error) {
	var signer crypto.Signer
	var named jwkNames
	var err error
	if isJWK(text) {
		signer, named, err = privateKey.jwk(text)
	} else {
		signer, err = privateKey.privateKey(text)
	}
	if err != nil {
		return nil, err
	}
	if err := privateKey.strong(signer.Public(), elliptic.P256(), elliptic.P384()); err != nil {
		return nil, err
	}
	key, err := newKey(signer)
	if err != nil {
		return nil, err
	}
	key.named = named
	if named.id != "" {
		key.ID = named.id
	}
	if named.alg != "" {
		if err := key.fits(named.alg); err != nil {
			return nil, fmt.Errorf("%s: the JWK's alg does not fit the key: use %s, or leave its alg out", privateKey.name, oneOf(key.Algorithms()))
		}
		key.Alg = named.alg
	}
	return key, nil
}

// GenerateKey makes a key. It fails if the type is unknown.
func GenerateKey(kind KeyType) (*Key, error) {
	var signer crypto.Signer
	var err error
	switch kind {
	case RSA2048:
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case ECP256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case Ed25519:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("key_type %q is not supported: use %s, %s or %s", kind, RSA2048, ECP256, Ed25519)
	}
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return newKey(signer)
}

// Named returns the kid and the alg of the JWK from which the key was read, by which the authorization server knows
// the key. Each is "" if the JWK lacks it. Both are "" for a key in PEM form.
func (k *Key) Named() (id, alg string) { return k.named.id, k.named.alg }

// newKey wraps a key of a supported kind.
func newKey(signer crypto.Signer) (*Key, error) {
	id, err := thumbprint(signer.Public())
	if err != nil {
		return nil, err
	}
	k := &Key{ID: id, signer: signer}
	k.Alg = k.Algorithms()[0]
	return k, nil
}

// strong returns an error if the field's key is too weak, too slow or on another curve.
func (f pemField) strong(public crypto.PublicKey, curves ...elliptic.Curve) error {
	switch p := public.(type) {
	case *rsa.PublicKey:
		if bits := p.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("%s is an RSA key of %d bits: use one of %d to %d", f.name, bits, minRSABits, maxRSABits)
		}
	case *ecdsa.PublicKey:
		if !slices.Contains(curves, p.Curve) {
			var names []string
			for _, curve := range curves {
				names = append(names, curve.Params().Name)
			}
			return fmt.Errorf("%s is a key on the curve %s: use one on %s", f.name, p.Params().Name, oneOf(names))
		}
	}
	return nil
}

// Algorithms returns the JWS algorithms (RFC 7518 section 3.1, RFC 8037, RFC 9864) for the key, preferred first: more
// servers accept RS256 than PS256, and the older EdDSA than Ed25519.
func (k *Key) Algorithms() []string {
	switch public := k.signer.Public().(type) {
	case *rsa.PublicKey:
		return []string{string(jose.RS256), string(jose.PS256)}
	case *ecdsa.PublicKey:
		if public.Curve == elliptic.P384() {
			return []string{string(jose.ES384)}
		}
		return []string{string(jose.ES256)}
	default:
		return []string{string(jose.EdDSA), algEd25519}
	}
}

// ChooseAlgorithm returns the algorithm for Alg. If wanted, the operator's choice, is set, it must fit the key.
// Otherwise ChooseAlgorithm returns the first of the key's algorithms in supported, the authorization server's
// token_endpoint_auth_signing_alg_values_supported; or the key's first if supported is empty. Its errors repeat
// nothing of the server's text.
func (k *Key) ChooseAlgorithm(wanted string, supported []string) (string, error) {
	fit := k.Algorithms()
	if wanted != "" {
		return wanted, k.fits(wanted)
	}
	if len(supported) == 0 {
		return fit[0], nil
	}
	for _, alg := range fit {
		if slices.Contains(supported, alg) {
			return alg, nil
		}
	}
	var known []string
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.ES384, jose.EdDSA, algEd25519} {
		if slices.Contains(supported, string(alg)) {
			known = append(known, string(alg))
		}
	}
	if len(known) == 0 {
		return "", fmt.Errorf("the authorization server's metadata names no signing algorithm that is supported here; if it accepts %s all the same, set signing_alg", oneOf(fit))
	}
	return "", fmt.Errorf("the private key signs with %s, but the authorization server's metadata names %s: write a private_key or key_type for that", oneOf(fit), oneOf(known))
}

// fits returns an error unless the algorithm fits the key.
func (k *Key) fits(alg string) error {
	fit := k.Algorithms()
	if slices.Contains(fit, alg) {
		return nil
	}
	return fmt.Errorf("signing_alg %.60q does not fit the private key: use %s", alg, oneOf(fit))
}

// oneOf reads "a, b or c".
func oneOf(names []string) string {
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// algEd25519 is the algorithm of RFC 9864, which the library lacks.
const algEd25519 = "Ed25519"

// signingKey returns the key for the library's signer.
func (k *Key) signingKey() jose.SigningKey {
	key := jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.Alg), Key: k.signer}
	if ed, ok := k.signer.(ed25519.PrivateKey); ok && k.Alg == algEd25519 {
		key.Key = ed25519Signer{ed}
	}
	return key
}

// ed25519Signer is a jose.OpaqueSigner for algEd25519.
type ed25519Signer struct{ key ed25519.PrivateKey }

// Public returns nil: the key's id is set as a header.
func (s ed25519Signer) Public() *jose.JSONWebKey { return nil }

// Algs returns algEd25519.
func (s ed25519Signer) Algs() []jose.SignatureAlgorithm { return []jose.SignatureAlgorithm{algEd25519} }

// SignPayload signs as EdDSA does: only the algorithm's name differs.
func (s ed25519Signer) SignPayload(payload []byte, _ jose.SignatureAlgorithm) ([]byte, error) {
	return ed25519.Sign(s.key, payload), nil
}

// belongs reports whether the certificate is for the key.
func belongs(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// PEM returns the private key in PKCS#8 form, to be stored. ParseKey reads it. It holds neither ID nor Alg.
func (k *Key) PEM() (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return "", fmt.Errorf("encoding the private key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// Format prints the id, whatever the verb: fmt would print the private key.
func (k Key) Format(s fmt.State, _ rune) { fmt.Fprint(s, "key "+k.ID) }

// thumbprint returns the JWK thumbprint of RFC 7638 with SHA-256, in base64url.
func thumbprint(public crypto.PublicKey) (string, error) {
	sum, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("identifying the key: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}
