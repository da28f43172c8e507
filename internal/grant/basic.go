package grant

import (
	"encoding/base64"
	"net/url"
	"strings"
)

// basic returns the Authorization header of client_secret_basic.
func (r *Request) basic() string {
	id, secret := r.ClientID, r.ClientSecret
	if !r.RawBasicAuth {
		id, secret = formEncode(id), formEncode(secret)
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

// encodingMatters reports whether the credentials differ from their encoded form.
func (r *Request) encodingMatters() bool {
	return formEncode(r.ClientID) != r.ClientID || formEncode(r.ClientSecret) != r.ClientSecret
}

// formEncode encodes as RFC 6749 appendix B does, except that a blank becomes %20: servers that decode forms accept
// it too, and servers that only percent-decode misread "+".
func formEncode(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}
