package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// vaultToken is where the Vault token for a request comes from.
type vaultToken interface {
	// token returns the token, or why there is none.
	token(ctx context.Context) (string, error)

	// refused is told that Vault answered 403 to a request with the token.
	refused(token string)

	// run does what it takes to have a token, until ctx is done.
	run(ctx context.Context)
}

// tokenFile is a file that something else keeps a Vault token in, such as the sink of a Vault Agent. It is read
// for each request, of which there is about one per lifetime of an access token.
type tokenFile string

func (f tokenFile) token(context.Context) (string, error) {
	content, err := os.ReadFile(string(f))
	if err != nil {
		return "", fmt.Errorf("the Vault token: %w", err)
	}
	token := strings.TrimSpace(string(content))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("the Vault token: " + string(f) + " does not hold one")
	}
	return token, nil
}

func (f tokenFile) refused(string)      {}
func (f tokenFile) run(context.Context) {}
