package brokerauth

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"
)

// A Transport is an [http.RoundTripper] that authorizes the requests to one MCP server. Several
// goroutines may use it at once.
//
// It adds the Authorization header (RFC 6750 section 2.1) where a request goes to the server's
// origin: the scheme, host and port of its URL. Requests to any other origin, such as those that a
// redirect leads to, pass as they are: a token is good for one server, and no other should see it.
//
// Where the server answers with a 401, it has the token replaced (see [Source.Replace]) and sends
// the request once more, if its body can be sent again: there is none, or the request has a GetBody.
// Otherwise, and where no new token was to be had, the 401 is the answer; a later request will have
// the new token, if there is one.
//
// The MCP Go SDK (v1.8.0) ends a session for good on a 401 that is the answer. Its clients had better have
// the source as their OAuth handler, see [Source.TokenSource]; in their HTTPClient, a Transport does where
// connecting again is no matter.
type Transport struct {
	// Base makes the requests. Default: http.DefaultTransport. Not to be changed after first use.
	Base http.RoundTripper

	source *Source
	origin string
}

// NewTransport returns a Transport for the MCP server at serverURL, such as
// https://mcp.example.com/mcp. Where that is plain http, the token travels in the clear: whoever is on the
// way can use it. That is for loopback.
func NewTransport(source *Source, serverURL string) (*Transport, error) {
	u, err := url.Parse(serverURL)
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, errors.New("brokerauth: the MCP server's URL must be http or https, with a host")
	}
	return &Transport{source: source, origin: originOf(u)}, nil
}

// RoundTrip implements [http.RoundTripper]. Where no token is held and none is to be had it fails as
// [Source.TokenContext] does, without a request.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if originOf(req.URL) != t.origin {
		return t.base().RoundTrip(req)
	}
	token, err := t.source.TokenContext(req.Context())
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	response, err := t.send(req.Clone(req.Context()), token)
	if err != nil || response.StatusCode != http.StatusUnauthorized {
		return response, err
	}
	if second, token := t.again(req, token.AccessToken); second != nil {
		// Reading it, for the sake of the connection, could take as long as the server likes.
		response.Body.Close()
		return t.send(second, token)
	}
	return response, nil
}

// send sends a request, which is changed, with the token.
func (t *Transport) send(req *http.Request, token *oauth2.Token) (*http.Response, error) {
	token.SetAuthHeader(req)
	response, err := t.base().RoundTrip(req)
	if err == nil {
		t.source.answered(token.AccessToken, response.StatusCode)
	}
	return response, err
}

// again is the request once more and the token to send it with in place of the refused one, nil where
// there is no new one or the body cannot be sent again.
func (t *Transport) again(req *http.Request, refused string) (*http.Request, *oauth2.Token) {
	if t.source.Replace(req.Context(), refused) != nil {
		return nil, nil
	}
	token, err := t.source.TokenContext(req.Context())
	if err != nil {
		return nil, nil
	}
	second := req.Clone(req.Context())
	if req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return nil, nil
		}
		if second.Body, err = req.GetBody(); err != nil {
			return nil, nil
		}
	}
	return second, token
}

func (t *Transport) base() http.RoundTripper {
	if t.Base != nil {
		return t.Base
	}
	return http.DefaultTransport
}

// originOf is the origin of a URL (RFC 6454 section 4).
func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}
