package grant

import (
	"net/url"
	"strings"
)

// Parameters are the parameters of a token request that decide which token it gets: those that a config and its
// roles have fields for. The JSON form is part of the fingerprint of stored tokens, so a new parameter must be left
// out of it while it is empty.
type Parameters struct {
	// Scopes are the scopes asked for; none leaves the parameter out.
	Scopes []string `json:",omitempty"`
	// Resources are the resource indicators (RFC 8707), sent in this order as a repeated parameter.
	Resources []string `json:",omitempty"`
	// Audience is the audience parameter that some servers want; "" is not sent.
	Audience string
	// ExtraParams are sent as they are. A name that IsReserved refuses fails the request before anything is sent.
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

// reserved are the parameters that extra_params may not hold, in lower case.
var reserved = map[string]bool{
	// The grant and the client (RFC 6749 section 4.4.2).
	"grant_type": true, "client_id": true,
	// Client authentication (RFC 6749 section 2.3.1, RFC 7521 section 4.2): secrets, and extra_params
	// are shown on read.
	"client_secret": true, "client_assertion": true, "client_assertion_type": true,
	// Parameters with their own fields, which are checked.
	"scope": true, "resource": true, "audience": true,
	// Other grants' credentials (RFC 6749, 7522, 7523, 7636, 8628, 8693, OpenID CIBA): useless here, and
	// secret too.
	"assertion": true, "auth_req_id": true, "code": true, "code_verifier": true, "device_code": true,
	"password": true, "redirect_uri": true, "refresh_token": true, "username": true,
	"actor_token": true, "actor_token_type": true, "subject_token": true, "subject_token_type": true,
}

// IsReserved reports whether extra_params may not hold the parameter: it has its own field, authenticates the
// client, or is the credential of another grant. Case is ignored, since some servers ignore it.
func IsReserved(param string) bool {
	return reserved[strings.ToLower(strings.TrimSpace(param))]
}
