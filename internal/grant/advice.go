package grant

import (
	"net/http"
	"strings"
)

// wrongPlace explains the HTTP statuses of a wrong URL.
var wrongPlace = map[int]string{
	http.StatusNotFound:             "not an answer of a token endpoint",
	http.StatusGone:                 "not an answer of a token endpoint",
	http.StatusMethodNotAllowed:     "no POST is accepted there",
	http.StatusUnsupportedMediaType: "no form is accepted there, which is how a token request is sent (RFC 6749 section 4.4.2); JSON is not supported",
}

// advice returns the values sent and the field to change after a refusal; "" if the cause is unknown.
func (r *Request) advice(e *RefusedError) string {
	words := strings.ReplaceAll(strings.ToLower(e.Code+" "+e.Description), "resource owner", "user")
	plain := plainName(words)
	mentions := func(s ...string) bool {
		for _, s := range s {
			if strings.Contains(words, s) {
				return true
			}
		}
		return false
	}
	switch {
	case mentions("dpop"):
		return "the tokens handed out here are bearer tokens: turn DPoP off for the client at the authorization server"
	case !r.AuthMethod.Certificate() && mentions("mtls", "mutual tls"):
		return "the tokens handed out here are bearer tokens: turn certificate-bound access tokens off for the client at the authorization server"
	// Entra ID refuses a resource together with a scope of another resource.
	case mentions("aadsts9010010"):
		return r.scopesSent() + "; " + r.targetSent()
	case mentions("invalid_scope", "insufficient_scope"):
		return r.scopesSent()
	case mentions("invalid_target", "invalid_resource", "invalid_audience", "aadsts500011"),
		e.Code == "access_denied" && e.Status != http.StatusUnauthorized && mentions("audience", "resource"):
		return r.targetSent()
	case strings.Contains(plain, "subscriptionkey") || strings.Contains(plain, "apikey"):
		if e.Code != "invalid_client" {
			return "a gateway may want a key of its own: extra_headers= sends it"
		}
		return r.credentialsSent()
	case mentions("user-agent", "required header", "missing header"):
		return "a gateway may want a header of its own: extra_headers= sends it"
	case r.Grant == JWTBearer && (e.Code == "invalid_grant" || mentions("assertion", "jwt", "issuer", "subject")):
		return r.grantSent()
	case e.clientRefused(), r.AuthMethod == PrivateKeyJWT && mentions("assertion", "jwt"):
		return r.credentialsSent()
	case e.Code == "unauthorized_client", e.Code == "unsupported_grant_type":
		if r.Grant == JWTBearer {
			return "check that the authorization server has the JWT bearer grant (RFC 7523), and allows it for the client and this issuer"
		}
		return "check client_id, and that the client is allowed the client credentials grant at the authorization server"
	case e.Code == "access_denied":
		return r.scopesSent() + "; " + r.targetSent()
	case wrongPlace[e.Status] != "":
		return wrongPlace[e.Status] + ": check token_url"
	case mentions("audience"), e.Code != "" && mentions("resource"), len(r.Resources) > 1 && mentions("duplicated parameter"):
		return r.targetSent()
	case mentions("scope"):
		return r.scopesSent()
	case mentions("client_id", "client_secret", "client id", "client secret", "client authentication", "client identifier", "invalid client", "unknown client"):
		return r.credentialsSent()
	}
	return ""
}

// clientRefused reports whether the server refused the client's authentication. Keycloak answers a wrong
// secret with unauthorized_client and 401.
func (e *RefusedError) clientRefused() bool {
	switch e.Code {
	case "invalid_client", "invalid_client_credentials", "incorrect_client_credentials", "invalid_credentials":
		return true
	}
	return e.Status == http.StatusUnauthorized
}

// scopesSent returns the scopes asked for, and the field to change.
func (r *Request) scopesSent() string {
	if len(r.Scopes) == 0 {
		return "no scope was asked for: write scopes="
	}
	return "the scopes asked for were " + quoted(strings.Join(r.Scopes, " ")) + ": write others with scopes="
}

// targetSent returns the resource and the audience sent, and the fields to change.
func (r *Request) targetSent() string {
	resource, audience := "no resource", "no audience"
	change := "write resource= or audience= as the authorization server knows the MCP server"
	if len(r.Resources) > 0 {
		resource = "the resource " + quoted(strings.Join(r.Resources, " "))
		change += ", or omit_resource=true"
	}
	if r.Audience != "" {
		audience = "the audience " + quoted(r.Audience)
	}
	return resource + " and " + audience + " were sent: " + change
}

// grantSent describes the assertion of JWTBearer, and lists the possible faults.
func (r *Request) grantSent() string {
	return "the assertion is the grant: " + r.Assertion.sent() +
		": check that the server trusts that issuer, knows the subject, and fetches the keys, and assertion_subject= and assertion_audience="
}

// credentialsSent describes the client authentication, and lists the possible faults.
func (r *Request) credentialsSent() string {
	method := string(r.AuthMethod) + " was used"
	switch r.AuthMethod {
	case ClientSecretBasic:
		advice := method + ": check client_id and client_secret, or write token_endpoint_auth_method=" + string(ClientSecretPost)
		if !r.encodingMatters() {
			return advice
		}
		if r.RawBasicAuth {
			return advice + "; they hold characters that the form encoding of RFC 6749 section 2.3.1 changes, and were sent as they are: raw_basic_auth=false sends them encoded"
		}
		return advice + "; they hold characters that the form encoding of RFC 6749 section 2.3.1 changes, and were sent encoded: raw_basic_auth=true sends them as they are"
	case ClientSecretPost:
		return method + ": check client_id and client_secret, or write token_endpoint_auth_method=" + string(ClientSecretBasic)
	case None:
		return "no client authentication was sent: write client_id and client_secret, if the server wants a client beside the assertion"
	case PrivateKeyJWT:
		if r.Assertion.Issuer != "" {
			return method + ": " + r.Assertion.sent() +
				": check that the server trusts that issuer, subject and audience, and fetches the keys, and client_id="
		}
		return method + ": " + r.Assertion.sent() +
			": check that the server knows the public key, and assertion_audience=, assertion_type=, signing_alg= and key_id="
	case TLSClientAuth:
		if len(r.Certificate.Certificate) == 1 {
			return method + ", with a client_certificate without a chain, which some servers take for self_signed_tls_client_auth: add the certificates of its CA to client_certificate, or write token_endpoint_auth_method=" + string(SelfSignedTLSClientAuth)
		}
		return method + ": check that the server knows the subject of client_certificate and trusts its CA"
	case SelfSignedTLSClientAuth:
		return method + ": check that the server knows this very client_certificate"
	}
	return ""
}
