package grant

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// jwkNames are the kid and the alg of a JWK, by which the authorization server knows the key.
type jwkNames struct{ id, alg string }

// isJWK reports whether text is meant to be JSON, and not PEM.
func isJWK(text string) bool { return strings.HasPrefix(strings.TrimSpace(text), "{") }

// jwk returns the private key of a JWK, or of a JWK Set with a single key.
func (f pemField) jwk(text string) (crypto.Signer, jwkNames, error) {
	fault := func(what string) (crypto.Signer, jwkNames, error) {
		return nil, jwkNames{}, fmt.Errorf("%s: the JWK %s", f.name, what)
	}
	raw := []byte(text)
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(raw, &set) == nil && set.Keys != nil {
		if len(set.Keys) != 1 {
			return fault(fmt.Sprintf("Set holds %d keys: write one of them alone", len(set.Keys)))
		}
		raw = set.Keys[0]
	}
	var kind struct {
		Type    string  `json:"kty"`
		Use     string  `json:"use"`
		Private *string `json:"d"`
	}
	if json.Unmarshal(raw, &kind) != nil {
		return fault("is damaged or cut short: copy the file again")
	}
	switch {
	case kind.Type == "":
		return fault("names no kty: write an RSA, EC or OKP key (RFC 7517)")
	case kind.Type == "oct":
		return fault("is a symmetric key: write an RSA, EC or OKP key")
	case kind.Private == nil:
		return fault("is a public key: write the private key that belongs to it")
	case kind.Use == "enc":
		return fault("is for encryption, by its use: write one for signatures")
	}
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(raw); err != nil { // the library's error may quote the text
		return fault("is not a private key of a known kind: write an RSA, P-256, P-384 or Ed25519 key with all its members")
	}
	switch key.Key.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
		return key.Key.(crypto.Signer), jwkNames{id: key.KeyID, alg: key.Algorithm}, nil
	}
	return fault("is not a private key of a known kind: write an RSA, EC or Ed25519 key")
}
