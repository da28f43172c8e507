package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// vaultToken is a source of the Vault token for requests.
type vaultToken interface {
	// token returns the token, or an error.
	token(ctx context.Context) (string, error)

	// refused reports that Vault answered 403 to a request with the token.
	refused(token string)

	// run keeps a token available until ctx is done.
	run(ctx context.Context)
}

// tokenFile is a file with a Vault token that another process writes, such as the sink of a Vault Agent. It is read
// for each request to Vault: about once per lifetime of an access token.
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
