package grant

import (
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// PublicJWKS returns the JWK Set (RFC 7517 section 5) of the public keys, in the order given, for an authorization
// server to register or to fetch from a jwks_uri.
func PublicJWKS(keys ...*Key) ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}} // an empty set is an array too
	for _, key := range keys {
		set.Keys = append(set.Keys, key.jwk())
	}
	data, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("encoding the public keys: %w", err)
	}
	return data, nil
}

// jwk returns the public key with its kid, alg and use.
func (k *Key) jwk() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.signer.Public(), KeyID: k.ID, Algorithm: k.Alg, Use: "sig"}
}
