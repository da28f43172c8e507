package mcpoauth

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// fingerprint returns a hash of a value's JSON form, in which struct fields and map keys have a fixed order.
func fingerprint(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // only a type without a JSON form can fail
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}
