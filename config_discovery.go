package mcpoauth

import (
	"context"
	"errors"
	"fmt"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// discoverySource returns the URL at which discovery starts; empty if the operator named the token endpoint.
func (c *config) discoverySource() string {
	switch {
	case c.TokenURL != "":
		return ""
	case c.Issuer != "":
		return c.Issuer
	default:
		return c.ServerURL
	}
}

// resolve discovers the authorization server if it has not been discovered, if the URL at which discovery starts or
// the grant has changed, or if the operator asks for it. If the operator named the authorization server, the MCP
// server is asked only for the scopes and resource. trusted reports whether the write supplies the credentials. It
// returns warnings about new findings.
func (c *config) resolve(ctx context.Context, old *config, rediscover, verify, trusted bool) (warnings []string, err error) {
	source := c.discoverySource()
	named := c.TokenURL != "" || c.Issuer != ""
	if source == "" && c.ServerURL == "" && rediscover {
		return nil, badRequest("rediscover=true has nothing to look for: token_url names the token endpoint, and server_url is empty; leave rediscover out, or write server_url")
	}
	// The same URL in issuer and in server_url starts different searches.
	same := old != nil && old.Issuer == c.Issuer && old.discoverySource() == source
	// Discovery's warnings depend on the grant. They stay as they are if the write may not contact a server.
	regranted := old != nil && old.grantType() != c.grantType() && verify
	discover := source != "" && (c.Discovered == nil || !same || rediscover || regranted)
	if !verify && discover {
		return nil, badRequest("verify=false contacts no server, and the authorization server has yet to be discovered: write token_url, or leave out verify=false")
	}
	if !verify && rediscover {
		return nil, badRequest("verify=false contacts no server, and rediscover asks the MCP server: leave out one of them")
	}
	switch {
	case source == "":
		c.Discovered = nil
	case discover:
		if err := c.discover(ctx, trusted); err != nil {
			return nil, err
		}
		warnings = c.Discovered.Warnings
	}
	if c.Published != nil && (!named || c.Published.ServerURL != c.ServerURL) {
		c.Published = nil
	}
	if named && c.ServerURL != "" && verify && c.wantsPublished() && (c.Published == nil || rediscover) {
		c.pinPublished(ctx)
		warnings = append(warnings[:len(warnings):len(warnings)], c.Published.Warning)
	}
	return warnings, nil
}

// wantsPublished reports whether scopes or resource take their default from the MCP server's metadata.
func (c *config) wantsPublished() bool {
	return len(c.Scopes) == 0 || len(c.Resource) == 0 && !c.OmitResource
}

// discoveryRequest returns the request of discovery.
func (c *config) discoveryRequest() *discovery.Request {
	return &discovery.Request{
		ServerURL:         c.ServerURL,
		Issuer:            c.Issuer,
		GrantType:         c.grantType().Parameter(),
		CACert:            c.CACert,
		AllowPrivate:      c.AllowPrivateAddresses,
		AllowInsecureHTTP: c.AllowInsecureHTTP,
		Timeout:           c.RequestTimeout,
	}
}

// discover finds the authorization server and pins it. If the write did not supply the credentials (trusted is
// false), it refuses an issuer other than the pinned one: credentials belong to one issuer.
func (c *config) discover(ctx context.Context, trusted bool) error {
	found, err := c.discoveryRequest().Do(ctx)
	if _, sought := errors.AsType[*discovery.Error](err); err != nil && !sought {
		return badRequest("%v", err)
	}
	if err != nil {
		return fmt.Errorf("nothing was stored: the authorization server could not be discovered: %w%s", err, c.discoveryAdvice(err))
	}
	if c.Discovered != nil && !discovery.SameIssuer(c.Discovered.Issuer, found.Issuer) && !trusted {
		change := "write the credentials too"
		if c.KeyType != "" {
			change += ": the new issuer to issuer, and key_type, which makes a new key"
		}
		return badRequest("discovery now finds the issuer %s instead of %s: if the credentials are meant for it, %s",
			quote(found.Issuer), quote(c.Discovered.Issuer), change)
	}
	c.Discovered = newDiscovered(found)
	return nil
}

// pinPublished pins the scopes and resource published by the MCP server. They are defaults only, so an error becomes a
// warning.
func (c *config) pinPublished(ctx context.Context) {
	found, err := c.discoveryRequest().Look(ctx)
	c.Published = newPublished(c.ServerURL, found)
	if err == nil {
		return
	}
	reason := err.Error()
	if sought, ok := errors.AsType[*discovery.Error](err); ok {
		reason = sought.Sentence()
	}
	c.Published.Warning = "scopes and resource could not be read from server_url; write them, or rediscover=true to try again: " + reason
}

// discoveryAdvice returns the end of the error after a permanent failure of discovery: the fields to write.
func (c *config) discoveryAdvice(err error) string {
	sought, ok := errors.AsType[*discovery.Error](err)
	switch {
	case !ok || sought.Temporary() || sought.Issuer != "":
		return ""
	case c.Issuer != "":
		return "\nwrite token_url if you know it"
	default:
		return "\nwrite issuer or token_url if you know it"
	}
}

// findings returns the warnings of discovery.
func (c *config) findings() []string {
	var all []string
	if c.Discovered != nil && c.TokenURL == "" {
		all = append(all, c.Discovered.Warnings...)
	}
	if c.Published != nil && c.Published.Warning != "" && c.wantsPublished() {
		all = append(all, c.Published.Warning)
	}
	return all
}

// withFindings adds the possible causes found by discovery to a token request's error: its warnings, and the other
// authorization servers named by the MCP server.
func (c *config) withFindings(err error) error {
	_, refused := errors.AsType[*grant.RefusedError](err)
	_, unavailable := errors.AsType[*grant.UnavailableError](err)
	if !refused && !unavailable {
		return err
	}
	for _, warning := range c.findings() {
		err = fmt.Errorf("%w\ndiscovery warns: %s", err, warning)
	}
	if c.Issuer == "" && c.TokenURL == "" && c.Discovered != nil {
		for _, other := range c.Discovered.Others {
			err = fmt.Errorf("%w\nthe MCP server names another authorization server too: write issuer=%s if the credentials are for it", err, other)
		}
	}
	return err
}
