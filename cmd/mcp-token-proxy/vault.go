package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"github.com/hashicorp/vault/api"
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

// client returns a client of the Vault. Its requests have a token of tokens, unless that is nil.
func (v *vaultConfig) client(tokens vaultToken) (*api.Client, error) {
	c := api.DefaultConfig()
	if c.Error != nil {
		return nil, fmt.Errorf("vault: %w", c.Error)
	}
	if v.Address != "" {
		c.Address, c.AgentAddress = v.Address, ""
	}
	if v.CACert != "" {
		if err := c.ConfigureTLS(&api.TLSConfig{CACert: v.CACert}); err != nil {
			return nil, fmt.Errorf("vault: ca_cert: %w", err)
		}
	}
	client, err := api.NewClient(c)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	if v.Namespace != "" {
		client.SetNamespace(v.Namespace)
	}
	if tokens != nil {
		client.ClearToken()
		c.HttpClient.Transport = &vaultTransport{base: c.HttpClient.Transport, tokens: tokens}
	}
	return client, nil
}

// vaultClient returns the client to read tokens with, and what logs it in, nil if it uses VAULT_TOKEN or none.
func (c *config) vaultClient(log *slog.Logger) (*api.Client, vaultToken, error) {
	if c.AutoAuth == nil {
		client, err := c.Vault.client(nil)
		return client, nil, err
	}
	loggingIn, err := c.Vault.client(nil)
	if err != nil {
		return nil, nil, err
	}
	loggingIn.ClearToken()
	tokens := c.AutoAuth.Methods[0].vaultToken(loggingIn, log)
	client, err := c.Vault.client(tokens)
	return client, tokens, err
}

// vaultTransport adds the Vault token of the moment to requests.
type vaultTransport struct {
	base   http.RoundTripper
	tokens vaultToken
}

// RoundTrip implements [http.RoundTripper].
func (t *vaultTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	token, err := t.tokens.token(req.Context())
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set(api.AuthHeaderName, token)
	response, err := t.base.RoundTrip(req)
	if err == nil && response.StatusCode == http.StatusForbidden {
		t.tokens.refused(token)
	}
	return response, err
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
