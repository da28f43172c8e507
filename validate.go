package mcpoauth

import (
	"errors"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// Bounds on the durations of a config.
const (
	maxTimeout = 25 * time.Second // below writeBudget, so that it is what ends a request
	maxTTL     = 365 * 24 * time.Hour
)

// methods are the client authentication methods that work.
var methods = []grant.AuthMethod{grant.ClientSecretBasic, grant.ClientSecretPost, grant.PrivateKeyJWT, grant.TLSClientAuth}

// validName checks the names of a path. The paths' pattern has seen to the
// characters; Vault's storage refuses "..".
func validName(name tokens.Name) error {
	for _, part := range []string{name.Server, name.Role} {
		if strings.Contains(part, "..") {
			return badRequest("the name %q must not hold two dots in a row", part)
		}
		if len(part) > maxName {
			return badRequest("a name must not be longer than %d characters", maxName)
		}
	}
	return nil
}

// validate checks a config as a whole, and says of the first fault what to write
// instead.
func (c *config) validate() error {
	if c.ServerURL == "" && c.Issuer == "" && c.TokenURL == "" {
		return badRequest("server_url is missing: write the MCP server's URL, from which its authorization server is discovered, or the authorization server's issuer or token_url")
	}
	for _, endpoint := range []struct{ field, url string }{
		{"server_url", c.ServerURL}, {"issuer", c.Issuer}, {"token_url", c.TokenURL},
	} {
		if endpoint.url == "" {
			continue
		}
		if err := c.validEndpoint(endpoint.field, endpoint.url); err != nil {
			return err
		}
	}
	if strings.Contains(c.Issuer, "?") {
		return badRequest("issuer must not hold a query (RFC 8414 section 2)")
	}
	if err := c.validCredentials(); err != nil {
		return err
	}
	if err := validRequest(c.Scopes, c.Resource, c.Audience); err != nil {
		return err
	}
	if err := validResourceChoice(c.OmitResource, c.Resource); err != nil {
		return err
	}
	if err := validExtraParams(c.ExtraParams); err != nil {
		return err
	}
	if err := c.validTimes(); err != nil {
		return err
	}
	if c.CACert != "" {
		if _, err := grant.ParseCACert(c.CACert); err != nil {
			return badRequest("%v", err)
		}
	}
	return nil
}

func (c *config) validTimes() error {
	switch {
	case c.DefaultTTL < time.Second || c.DefaultTTL > maxTTL:
		return badRequest("default_ttl must be between 1s and %s", maxTTL)
	case c.MaxTTL < 0 || c.MaxTTL > maxTTL:
		return badRequest("max_ttl must be between 1s and %s, or 0 for no cap", maxTTL)
	case c.IdleTimeout < 0 || c.IdleTimeout > maxTTL:
		return badRequest("idle_timeout must be at most %s, or 0 to refresh for ever", maxTTL)
	case c.RequestTimeout < time.Second || c.RequestTimeout > maxTimeout:
		return badRequest("request_timeout must be between 1s and %s", maxTimeout)
	}
	return nil
}

// validEndpoint checks a URL that is called, or whose tokens are sent there.
func (c *config) validEndpoint(field, raw string) error {
	u, err := absoluteURL(raw)
	switch {
	case err != nil:
		return badRequest("%s: %v", field, err)
	case !isVisible(raw):
		return badRequest("%s must be of ASCII characters (RFC 3986): write a host name in other letters as xn--..., and percent-encode the rest", field)
	case u.Scheme != "https" && u.Scheme != "http":
		return badRequest("%s must start with https://", field)
	case !validPort(u.Port()):
		return badRequest("%s names a port that does not exist: it must be between 1 and 65535", field)
	case u.Hostname() == "":
		return badRequest("%s must be absolute, as in https://mcp.example.com/mcp: it names no host", field)
	case u.User != nil:
		return badRequest("%s must not hold user information: credentials have fields of their own", field)
	case u.Scheme == "http" && !c.AllowInsecureHTTP && !isLoopback(u.Hostname()):
		return badRequest("%s uses http to a host other than loopback: write https, or allow_insecure_http=true if the network between is trusted", field)
	}
	return nil
}

// validate checks a role.
func (r *role) validate() error {
	if err := validRequest(r.Scopes, r.Resource, r.Audience); err != nil {
		return err
	}
	if err := validResourceChoice(r.OmitResource, r.Resource); err != nil {
		return err
	}
	if err := validExtraParams(r.ExtraParams); err != nil {
		return err
	}
	return fits(r)
}

func validResourceChoice(omit bool, resource []string) error {
	if omit && len(resource) > 0 {
		return badRequest("resource and omit_resource contradict each other: write one of them")
	}
	return nil
}

// validRequest checks what a config and a role have in common.
func validRequest(scopes, resources []string, audience string) error {
	for _, scope := range scopes {
		if !isScope(scope) {
			return badRequest("scope %s is malformed: a scope is printable ASCII without spaces, quotes or backslashes (RFC 6749 section 3.3)", quote(scope))
		}
	}
	for _, resource := range resources {
		if _, err := absoluteURL(resource); err != nil {
			return badRequest("resource %s: %v (RFC 8707 section 2)", quote(resource), err)
		}
	}
	if !isPrintable(audience) {
		return badRequest("audience must be printable characters")
	}
	return nil
}

func validExtraParams(params map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(params)) {
		switch {
		case name == "" || !isVisible(name) || strings.Contains(name, " "):
			return badRequest("extra_params: the name %s is malformed: a parameter's name is printable ASCII without spaces", quote(name))
		case grant.IsReserved(name):
			return badRequest("extra_params must not hold %s: it has a field of its own, or is the plugin's to send", name)
		case !isPrintable(params[name]):
			return badRequest("extra_params: the value of %s must be printable characters", quote(name))
		}
	}
	return nil
}

// absoluteURL parses a URI that has a scheme and a host and no fragment.
func absoluteURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || strings.ContainsFunc(raw, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return nil, errors.New("is not a URL") // the parser's own text quotes it
	case u.Scheme == "" || u.Host == "" && u.Opaque == "":
		return nil, errors.New("must be absolute, as in https://mcp.example.com/mcp")
	case u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return nil, errors.New("must not hold a fragment (#...)")
	}
	return u, nil
}

// canonicalResource is an MCP server's URL as a resource indicator: scheme and host
// in lower case, and no slash alone for a path. It has been validated.
func canonicalResource(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if u.Path == "/" && u.RawQuery == "" {
		u.Path = ""
	}
	return u.String()
}

// validPort tells whether a URL's port, which may be empty, exists.
func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// isLoopback tells whether a URL's host is this machine by name or address.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// isScope tells whether s is a scope-token (RFC 6749 section 3.3).
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '"' || r == '\\'
	})
}

// isVisible tells whether s is printable ASCII (VSCHAR of RFC 6749 appendix A).
func isVisible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// isPrintable tells whether s is printable, in any script.
func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// quote puts a foreign value into an error: quoted, escaped and cut short.
func quote(s string) string {
	const limit = 60
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit]) + "…"
	}
	return strconv.Quote(s)
}
