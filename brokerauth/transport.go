package brokerauth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
)

// A Transport is an [http.RoundTripper] that adds access tokens to the requests to one MCP server. It is safe for
// concurrent use.
//
// It adds the Authorization header (RFC 6750 section 2.1) only to requests to the server's own origin: the scheme,
// host and port of its URL, the host in IDNA ASCII. It does not change requests to other origins, such as those after
// a redirect: these must not get the token.
//
// If the server answers 401, the Transport replaces the token (see [Source.Replace]) and sends the request once
// more, whatever its method: a server that refuses a token has not processed the request. For this it keeps up to
// KeptBody bytes of the body of a request without GetBody. If the body is longer, or if the token was not replaced,
// the caller gets the 401, and [Refusal] returns the reason. After other failures a request is not sent again.
//
// It can be the Transport of an [net/http/httputil.ReverseProxy]. To forward a request's trailer, the proxy's
// Rewrite sets Out.Trailer to In.Trailer.
//
// The MCP Go SDK (v1.8.0) ends a session on a 401, unless its body is a JSON-RPC error. Set the Transport as the
// OAuth handler of the SDK's client too: then a 401 fails only one call, see [Transport.Authorize].
type Transport struct {
	// Base makes the requests. Default: http.DefaultTransport. Don't change it after first use.
	Base http.RoundTripper

	// KeptBody is how many bytes of a body are kept in memory, to send a request without GetBody again. Default: 4
	// MiB. If it is negative, nothing is kept. Don't change it after first use.
	KeptBody int64

	source *Source
	origin origin
}

// NewTransport returns a Transport for the MCP server at serverURL, such as https://mcp.example.com/mcp. Use plain
// http only on loopback: it sends the token unencrypted.
func NewTransport(source *Source, serverURL string) (*Transport, error) {
	u, err := url.Parse(serverURL)
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, errors.New("brokerauth: the MCP server's URL must be http or https, with a host")
	}
	o, ok := newOrigin(u)
	if !ok {
		return nil, errors.New("brokerauth: the host of the MCP server's URL is not a name in IDNA: write its ASCII form, as in xn--bcher-kva.example")
	}
	return &Transport{source: source, origin: o}, nil
}

// RoundTrip implements [http.RoundTripper]. If it can't get a token, it fails as [Source.TokenContext] does, and
// sends nothing. It also fails if the request's context is done before a refused token has been replaced.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !t.origin.contains(req.URL) {
		return t.base().RoundTrip(req)
	}
	held, err := t.source.valid(req.Context())
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	sent, finish := t.first(req)
	defer finish()
	response, err := t.send(sent, held)
	if err != nil || response.StatusCode != http.StatusUnauthorized {
		return response, err
	}
	second, successor, why := t.again(sent, held.value.AccessToken)
	if why == nil {
		// Don't read the body to its end to keep the connection: the server could make that last.
		response.Body.Close()
		response, err = t.send(second, successor)
		if err != nil || response.StatusCode != http.StatusUnauthorized {
			return response, err
		}
		sent, held, why = second, successor, errSuccessorRefused
	}
	if ctx := req.Context(); ctx.Err() != nil {
		response.Body.Close()
		return nil, fmt.Errorf("brokerauth: the MCP server refused token %s: %w",
			held.id, context.Cause(ctx))
	}
	explain(response, sent, fmt.Errorf("the MCP server refused token %s: %w", held.id, why))
	return response, nil
}

// first returns the request to send first, with a GetBody if its body can be sent again, and a function to call
// when the request will not be sent again.
func (t *Transport) first(req *http.Request) (first *http.Request, finish func()) {
	first = cloned(req)
	limit := t.KeptBody
	if limit == 0 {
		limit = defaultKeptBody
	}
	if req.Body == nil || req.Body == http.NoBody || req.GetBody != nil || limit < max(req.ContentLength, 0) {
		return first, func() {}
	}
	kept := keepBody(req.Body, int(limit))
	first.GetBody = kept.open
	first.Body, _ = kept.open() // it can't fail before the first read
	return first, kept.finish
}

// cloned returns a copy whose fields and header may be changed. It shares the rest with the original: the trailer's
// values are set at the end of the body.
func cloned(req *http.Request) *http.Request {
	clone := req.WithContext(req.Context())
	clone.Header = maps.Clone(req.Header)
	return clone
}

// send sends a request with the token. It changes the request's header.
func (t *Transport) send(req *http.Request, with *token) (*http.Response, error) {
	req.Header["Authorization"] = []string{with.header}
	response, err := t.base().RoundTrip(req)
	if err == nil {
		t.source.answered(with, response.StatusCode)
	}
	return response, err
}

var (
	errSuccessorRefused = fmt.Errorf("%w: it had just replaced another refused token", ErrNotReplaced)
	errBodyGone         = errors.New("brokerauth: the request's body cannot be sent again")
)

// again returns a copy of the request and the new token to send it with. It fails if the token was not replaced or
// the body can't be sent again.
func (t *Transport) again(req *http.Request, refused string) (*http.Request, *token, error) {
	if err := t.source.Replace(req.Context(), refused); err != nil {
		return nil, nil, err
	}
	successor, err := t.source.valid(req.Context())
	if err != nil {
		return nil, nil, err
	}
	second := cloned(req)
	if req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return nil, nil, errBodyGone
		}
		if second.Body, err = req.GetBody(); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errBodyGone, err)
		}
	}
	return second, successor, nil
}

func (t *Transport) base() http.RoundTripper {
	if t.Base != nil {
		return t.Base
	}
	return http.DefaultTransport
}

// refusalKey is the context key of the reason for a 401, an error.
type refusalKey struct{}

// explain attaches the reason for a 401 to the response, for Refusal.
func explain(response *http.Response, req *http.Request, refusal error) {
	response.Request = req.WithContext(context.WithValue(req.Context(), refusalKey{}, refusal))
}
