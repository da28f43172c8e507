package grant

import (
	"net/url"
	"strings"
)

// Parameters are the parameters of a token request that configs and roles have fields for: they decide which token is
// issued. The JSON form is part of the fingerprint of stored tokens, so it must leave out a new parameter while that
// is empty.
type Parameters struct {
	// Scopes are the scopes asked for. If they are empty, the parameter is left out.
	Scopes []string `json:",omitempty"`
	// Resources are the resource indicators (RFC 8707), sent in this order as a repeated parameter.
	Resources []string `json:",omitempty"`
	// Audience is the audience parameter, for servers that want one; "" is not sent.
	Audience string
	// ExtraParams are sent as they are. A reserved name (IsReserved) fails the request before it is sent.
	ExtraParams map[string]string `json:",omitempty"`
}

// values returns the parameters as they are sent, except for scope, which package oauth2 adds.
func (p *Parameters) values() (url.Values, error) {
	values := url.Values{}
	for name, value := range p.ExtraParams {
		if IsReserved(name) {
			return nil, unsendable("extra_params must not hold %q", name)
		}
		values.Set(name, value)
	}
	if len(p.Resources) > 0 {
		values["resource"] = p.Resources
	}
	if p.Audience != "" {
		values.Set("audience", p.Audience)
	}
	return values, nil
}

// reserved are the parameters refused in extra_params, in lower case.
var reserved = map[string]bool{
	// The grant and the client (RFC 6749 section 4.4.2).
	"grant_type": true, "client_id": true,
	// Client authentication (RFC 6749 section 2.3.1, RFC 7521 section 4.2): these are secrets, and a read shows
	// extra_params.
	"client_secret": true, "client_assertion": true, "client_assertion_type": true,
	// Parameters with their own fields, which are checked.
	"scope": true, "resource": true, "audience": true,
	// Credentials of other grants (RFC 6749, 7522, 7523, 7636, 8628, 8693, OpenID CIBA): useless here, and secret
	// too.
	"assertion": true, "auth_req_id": true, "code": true, "code_verifier": true, "device_code": true,
	"password": true, "redirect_uri": true, "refresh_token": true, "username": true,
	"actor_token": true, "actor_token_type": true, "subject_token": true, "subject_token_type": true,
}

// IsReserved reports whether extra_params may not hold the parameter: it has its own field, authenticates the
// client, or is the credential of another grant. Case is ignored, since some servers ignore it.
func IsReserved(param string) bool {
	return reserved[strings.ToLower(strings.TrimSpace(param))]
}
