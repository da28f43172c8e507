package discovery

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

const (
	maxURL   = 2048 // bytes of a URL in a document
	maxValue = 256  // bytes of another value in a list
	maxItems = 256  // values of a list
)

// resourceMetadata holds the members used from an MCP server's document (RFC 9728 section 2). A member that is
// missing or of a wrong type is zero.
type resourceMetadata struct {
	resource string
	servers  []string // authorization_servers
	scopes   []string // scopes_supported
}

// parseResource reads a protected resource's metadata; reason is why it is invalid.
func parseResource(body []byte) (m resourceMetadata, reason string) {
	o, reason := parseObject(body)
	if reason != "" {
		return m, reason
	}
	return resourceMetadata{
		resource: o.url("resource"),
		servers:  o.list("authorization_servers", maxURL),
		scopes:   scopeTokens(o.list("scopes_supported", maxValue)),
	}, ""
}

// serverMetadata holds the members used from an authorization server's document (RFC 8414 section 2, OpenID
// Connect Discovery section 3). It requires only the members for the client credentials grant: neither an
// authorization endpoint nor PKCE.
type serverMetadata struct {
	issuer      string
	token       string // token_endpoint
	mtlsToken   string // token_endpoint of mtls_endpoint_aliases (RFC 8705 section 5)
	authMethods []string
	signingAlgs []string
	grantTypes  []string
}

// parseServer reads an authorization server's metadata; reason is why it is invalid.
func parseServer(body []byte) (m serverMetadata, reason string) {
	o, reason := parseObject(body)
	if reason != "" {
		return m, reason
	}
	m = serverMetadata{
		issuer:      o.url("issuer"),
		token:       o.url("token_endpoint"),
		authMethods: o.list("token_endpoint_auth_methods_supported", maxValue),
		signingAlgs: o.list("token_endpoint_auth_signing_alg_values_supported", maxValue),
		grantTypes:  o.list("grant_types_supported", maxValue),
	}
	if aliases, reason := parseObject(o["mtls_endpoint_aliases"]); reason == "" {
		m.mtlsToken = aliases.url("token_endpoint")
	}
	return m, ""
}

// object is a JSON object. Its members are read one by one, so that a malformed one does not affect the others.
// Names match exactly, unlike the fields of a struct in encoding/json.
type object map[string]json.RawMessage

// parseObject reads JSON, whatever the content type is; reason is why it is not an object.
func parseObject(body []byte) (o object, reason string) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xEF\xBB\xBF")))
	switch {
	case len(body) == 0:
		return nil, "the answer is empty"
	case body[0] == '<':
		return nil, "the answer is a web page, not JSON"
	case json.Unmarshal(body, &o) != nil || o == nil:
		return nil, "the answer is not a JSON object"
	}
	return o, ""
}

// url returns a URL member: a string of visible ASCII, not too long; else "".
func (o object) url(name string) string {
	var s string
	if json.Unmarshal(o[name], &s) != nil || !isVisible(s, maxURL) {
		return ""
	}
	return s
}

// list returns the strings in an array member, without strings that are too long or not visible ASCII. A string
// counts as a list of its words. nil if the member is missing or of another type.
func (o object) list(name string, limit int) []string {
	var words string
	var items []json.RawMessage
	kept := []string{}
	switch raw := o[name]; {
	case raw == nil || string(raw) == "null":
		return nil
	case json.Unmarshal(raw, &words) == nil:
		kept = strings.Fields(words)
	case json.Unmarshal(raw, &items) == nil:
		for _, item := range items {
			var s string
			if json.Unmarshal(item, &s) == nil {
				kept = append(kept, s)
			}
		}
	default:
		return nil
	}
	kept = slices.DeleteFunc(kept, func(s string) bool { return !isVisible(s, limit) })
	return kept[:min(len(kept), maxItems)]
}

// isVisible reports whether s is 1 to limit characters of visible ASCII.
func isVisible(s string, limit int) bool {
	return s != "" && len(s) <= limit && !strings.ContainsFunc(s, func(r rune) bool { return r < '!' || r > '~' })
}

// scopeTokens returns the valid scopes (RFC 6749 section 3.3), each once; nil instead of an empty list.
func scopeTokens(list []string) []string {
	var kept []string
	for _, s := range list {
		if isVisible(s, maxValue) && !strings.ContainsAny(s, `"\`) && !slices.Contains(kept, s) && len(kept) < maxItems {
			kept = append(kept, s)
		}
	}
	return kept
}

// parseURL parses a URL that can be called: http or https, with a host, without a fragment. It refuses user
// information: these would be another party's credentials. reason is why the URL is invalid.
func parseURL(raw string) (u *url.URL, reason string) {
	if !isVisible(raw, maxURL) {
		return nil, "is not a URL"
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Opaque != "":
		return nil, "is not a URL"
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, "is not an absolute https URL"
	case !isVisible(u.Hostname(), maxURL):
		return nil, "has a host that is not ASCII"
	case isOddAddress(u.Hostname()):
		return nil, "has a host that is neither a name nor an address in its usual form"
	case u.User != nil:
		return nil, "holds user information"
	case strings.Contains(raw, "#"):
		return nil, "holds a fragment"
	}
	return u, ""
}

// SameOrigin reports whether two URLs have the same scheme, host and port.
func SameOrigin(a, b string) bool {
	u, odd := parseURL(a)
	v, odder := parseURL(b)
	return odd == "" && odder == "" && origin(u) == origin(v)
}

// origin returns a URL's scheme, host and port. Equal origins are equal strings.
func origin(u *url.URL) string {
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return u.Scheme + "://" + strings.TrimSuffix(host, ":")
}
