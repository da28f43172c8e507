package grant

import (
	"encoding/base64"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

const (
	maxCode        = 64  // characters of an OAuth error code; the longest registered one has 35
	maxDescription = 600 // characters of a server's own words
	redacted       = "[redacted]"
)

// errorCode is the character set of an OAuth error code (RFC 6749 section 5.2).
var errorCode = regexp.MustCompile(`^[\x20-\x21\x23-\x5B\x5D-\x7E]+$`)

// tokenLike finds JSON Web Tokens, which start with an encoded `{"`, and long runs of token characters.
var tokenLike = regexp.MustCompile(`\beyJ[\w+/=-]{10,}(?:\.[\w+/=-]*)*|[\w~+=-]{32,}`)

// uuid is the form of trace and correlation ids, which support teams ask for.
var uuid = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

// cleaner makes a server's text safe for an error: servers send line breaks and whole requests.
type cleaner struct {
	clientID string // may look like a token
	secrets  *strings.Replacer
}

// newCleaner returns a cleaner that redacts the client's secrets in every form in which a server may
// repeat them. It ignores empty secrets.
func newCleaner(clientID string, secrets ...string) cleaner {
	var forms []string
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		form, path := url.QueryEscape(secret), url.PathEscape(secret)
		quoted := strconv.Quote(secret)
		forms = append(
			forms,
			secret, form, strings.ToLower(form), path, strings.ToLower(path),
			html.EscapeString(secret), quoted[1:len(quoted)-1],
			base64.StdEncoding.EncodeToString([]byte(secret)),
			base64.StdEncoding.EncodeToString([]byte(clientID+":"+secret)),
			base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(clientID)+":"+form)),
		)
	}
	// Longest first: the replacer prefers earlier pairs.
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, f := range forms {
		if f = fold(f); f != "" {
			pairs = append(pairs, f, redacted)
		}
	}
	return cleaner{clientID: clientID, secrets: strings.NewReplacer(pairs...)}
}

// text returns s printable, on one line, without secrets, and cut to maxDescription characters. It cuts last: part of
// a secret would not be recognised.
func (c cleaner) text(s string) string {
	runes := []rune(c.hide(fold(s)))
	if len(runes) > maxDescription {
		runes = append(runes[:maxDescription-1], '…')
	}
	return string(runes)
}

// registered are the error codes of token endpoints in the IANA registry of OAuth errors. They are public, so they
// are shown even if a secret occurs in one.
var registered = map[string]bool{
	"access_denied": true, "authorization_pending": true, "consent_required": true, "expired_token": true,
	"insufficient_scope": true, "insufficient_user_authentication": true, "interaction_required": true,
	"invalid_authorization_details": true, "invalid_client": true, "invalid_client_metadata": true,
	"invalid_dpop_proof": true, "invalid_grant": true, "invalid_request": true, "invalid_request_object": true,
	"invalid_request_uri": true, "invalid_scope": true, "invalid_target": true, "invalid_token": true,
	"login_required": true, "request_not_supported": true, "request_uri_not_supported": true,
	"server_error": true, "slow_down": true, "temporarily_unavailable": true, "unauthorized_client": true,
	"unsupported_grant_type": true, "unsupported_response_type": true, "unsupported_token_type": true,
	"unmet_authentication_requirements": true, "use_dpop_nonce": true,
}

// code returns s if it can be an OAuth error code, else "".
func (c cleaner) code(s string) string {
	if registered[s] {
		return s
	}
	if len(s) > maxCode || !errorCode.MatchString(s) || c.hide(fold(s)) != s {
		return ""
	}
	return s
}

// hide redacts the client's secrets and everything that looks like a token.
func (c cleaner) hide(s string) string {
	return tokenLike.ReplaceAllStringFunc(c.secrets.Replace(s), func(m string) string {
		words := !strings.ContainsAny(m, "0123456789") && !strings.HasPrefix(m, "eyJ")
		if words || m == c.clientID || uuid.MatchString(m) {
			return m
		}
		return redacted
	})
}

// fold turns every run of white space and unprintable characters into one space.
func fold(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
}
