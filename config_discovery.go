package mcpoauth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"
)

// discoverySource is what discovery starts from; empty where there is nothing to
// discover because the operator named the token endpoint.
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

// resolve discovers the authorization server where that is needed: it never was, or what
// discovery starts from has changed, or the operator asks for it.
func (c *config) resolve(ctx context.Context, old *config, rediscover, verify, trusted bool) (warnings []string, err error) {
	source := c.discoverySource()
	if source == "" {
		c.Discovered = nil
		if rediscover {
			return nil, badRequest("rediscover has nothing to look for: token_url names the token endpoint")
		}
		return nil, nil
	}
	// An issuer and a server_url may be the same text, and mean another search.
	same := old != nil && old.Issuer == c.Issuer && old.discoverySource() == source
	if c.Discovered != nil && same && !rediscover {
		return nil, nil
	}
	if !verify {
		return nil, badRequest("verify=false contacts nobody, and the authorization server has yet to be discovered: write token_url, or leave out verify=false")
	}
	return c.discover(ctx, trusted)
}

// discover looks for the config's authorization server and pins what it finds. The
// credentials were not brought by the write when trusted is false: then an issuer
// other than the one that was pinned is refused, because credentials belong to an
// issuer and are never given to another. It returns what the operator should know.
func (c *config) discover(ctx context.Context, trusted bool) (warnings []string, err error) {
	request := &discovery.Request{
		ServerURL:         c.ServerURL,
		Issuer:            c.Issuer,
		CACert:            c.CACert,
		AllowPrivate:      c.AllowPrivateAddresses,
		AllowInsecureHTTP: c.AllowInsecureHTTP,
		Timeout:           c.RequestTimeout,
	}
	found, err := request.Do(ctx)
	if _, sought := errors.AsType[*discovery.Error](err); err != nil && !sought {
		return nil, badRequest("%v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("nothing was stored: the authorization server could not be discovered: %w%s", err, c.discoveryAdvice(err))
	}
	if c.Discovered != nil && c.Discovered.Issuer != found.Issuer && !trusted {
		if c.KeyType != "" {
			return nil, badRequest("discovery now finds the issuer %s in place of %s: write the credentials too, if they are meant for it: here that issuer in issuer, and key_type, which makes a new key",
				quote(found.Issuer), quote(c.Discovered.Issuer))
		}
		return nil, badRequest("discovery now finds the issuer %s in place of %s: write the credentials too, if they are meant for it",
			quote(found.Issuer), quote(c.Discovered.Issuer))
	}
	c.Discovered = &discovered{
		Issuer:       found.Issuer,
		TokenURL:     found.TokenURL,
		MTLSTokenURL: found.MTLSTokenURL,
		AuthMethods:  found.AuthMethods,
		SigningAlgs:  found.SigningAlgs,
		Scopes:       found.Scopes,
		Resource:     found.Resource,
		Policy:       found.Policy,
		At:           time.Now().UTC().Truncate(time.Second),
	}
	return found.Warnings, nil
}

// discoveryAdvice says what to write where discovery found nothing for a reason that lasts.
func (c *config) discoveryAdvice(err error) string {
	sought, ok := errors.AsType[*discovery.Error](err)
	switch {
	case !ok || sought.Temporary():
		return ""
	case c.Issuer != "":
		return "\nwrite token_url where you know it"
	default:
		return "\nwrite issuer or token_url where you know it"
	}
}
