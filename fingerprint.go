package mcpoauth

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// fingerprint hashes a value by its JSON form, in which fields and maps have an
// order.
func fingerprint(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // only types without a JSON form fail
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}
