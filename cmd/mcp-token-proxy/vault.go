package main

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/hashicorp/vault/api"
)

// client returns a client of the configured Vault. If tokens is not nil, it supplies the Vault token of each request.
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

// vaultClient returns the client to read access tokens with, and the source of its Vault token. The source is nil
// without auto_auth: then the client uses VAULT_TOKEN, if it is set.
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

// vaultTransport adds the current Vault token to requests.
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
