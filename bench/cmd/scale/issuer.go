package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"
)

const (
	// restLifetime is such that no token falls due while the process is measured.
	restLifetime = 24 * time.Hour
	// busyLifetime is that of tokens of which some fall due all the time.
	busyLifetime = time.Hour
	// leastLifetime is of those that fall due first: a quarter ahead of their end.
	leastLifetime = 2 * time.Minute
)

// tokenSize is the length of a token: that of a signed JWT with a usual set of claims.
const tokenSize = 1024

// An issuer is an authorization server that answers every token request with a token of its own.
type issuer struct {
	*httptest.Server
	lifetimes atomic.Pointer[[2]time.Duration] // least and most
	issued    atomic.Int64
}

func startIssuer() *issuer {
	i := new(issuer)
	i.setLifetimes(restLifetime, restLifetime)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		random := make([]byte, tokenSize*3/4)
		_, _ = rand.Read(random) // never fails
		i.issued.Add(1)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(map[string]any{ // the client sees what fails here
			"access_token": base64.RawURLEncoding.EncodeToString(random),
			"token_type":   "Bearer",
			"expires_in":   int64(i.lifetime() / time.Second),
		})
	}))
	return i
}

// setLifetimes has each token live for a time drawn from least to most.
func (i *issuer) setLifetimes(least, most time.Duration) {
	i.lifetimes.Store(&[2]time.Duration{least, most})
}

func (i *issuer) lifetime() time.Duration {
	l := i.lifetimes.Load()
	return l[0] + mathrand.N(l[1]-l[0]+1)
}
