package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
)

// tokenLifetime is in seconds. No token falls due while the process is measured.
const tokenLifetime = 24 * 3600

// tokenSize is the length of a token: that of a signed JWT with a usual set of claims.
const tokenSize = 1024

// startIssuer starts an authorization server that answers every token request with a token of its
// own.
func startIssuer() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		random := make([]byte, tokenSize*3/4)
		_, _ = rand.Read(random) // never fails
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(map[string]any{ // the client sees what fails here
			"access_token": base64.RawURLEncoding.EncodeToString(random),
			"token_type":   "Bearer",
			"expires_in":   tokenLifetime,
		})
	}))
}
