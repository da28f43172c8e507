package brokerauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// A Transport is an [http.RoundTripper] that authorizes the requests to one MCP server. Several
// goroutines may use it at once.
//
// It adds the Authorization header (RFC 6750 section 2.1) if a request goes to the server's
// origin: the scheme, host and port of its URL, the host in IDNA ASCII. Requests to any other origin, such as
// those that a redirect leads to, pass as they are: a token is good for one server, and no other should see it.
//
// If the server answers with a 401, it has the token replaced (see [Source.Replace]) and sends
// the request once more, whatever its method: a server that refuses a token has done nothing. For that, the body
// of a request without GetBody is kept, as far as KeptBody goes. If it is longer, and if no new token was
// to be had, the 401 is the answer, and [Refusal] says why; a later request will have the new token, if there
// is one. After any other failure no request is sent again.
//
// So an [net/http/httputil.ReverseProxy] may have it as its Transport. To pass a request's trailer on, its
// Rewrite sets Out.Trailer to In.Trailer.
//
// The MCP Go SDK (v1.8.0) ends a session on a 401 that is the answer, unless its body is a
// JSON-RPC error. In the SDK's clients a Transport should be the OAuth handler as well, which makes it
// the failure of one call, see [Transport.Authorize].
type Transport struct {
	// Base makes the requests. Default: http.DefaultTransport. Not to be changed after first use.
	Base http.RoundTripper

	// KeptBody is how much of the body of a request without GetBody is kept in memory, in bytes, to send the
	// request again. Default: 4 MiB. None if it is negative. Not to be changed after first use.
	KeptBody int64

	source *Source
	origin origin
}

// NewTransport returns a Transport for the MCP server at serverURL, such as
// https://mcp.example.com/mcp. If that is plain http, the token travels in the clear: anybody on
// the way can use it. That is for loopback.
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

// RoundTrip implements [http.RoundTripper]. If no token is held and none is to be had it fails as
// [Source.TokenContext] does, without a request. It fails too if the request's context is done before a
// refused token has been replaced.
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
		// Reading it, for the sake of the connection, could take as long as the server likes.
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

// first returns the request to be sent first, which has a GetBody if its body can be sent again, and a function
// to call when no other will be sent.
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
	first.Body, _ = kept.open() // nothing of it has been read
	return first, kept.finish
}

// cloned returns a request that may be changed. Its trailer is that of the original, whose values come at the
// end of the body.
func cloned(req *http.Request) *http.Request {
	clone := req.Clone(req.Context())
	clone.Trailer = req.Trailer
	return clone
}

// send sends a request, which is changed, with the token.
func (t *Transport) send(req *http.Request, with *token) (*http.Response, error) {
	req.Header["Authorization"] = []string{with.header}
	response, err := t.base().RoundTrip(req)
	if err == nil {
		t.source.answered(with, response.StatusCode)
	}
	return response, err
}

var (
	errSuccessorRefused = fmt.Errorf("%w: it came in place of one that was refused just before", ErrNotReplaced)
	errBodyGone         = errors.New("brokerauth: the request's body cannot be sent again")
)

// again is the request once more and the token to send it with in place of the refused one, or why there
// is no new one or the body cannot be sent again.
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

// refusalKey is of the context of a refused request: why its 401 is the answer, an error.
type refusalKey struct{}

// explain has the 401 to a request tell Authorize why it is the answer.
func explain(response *http.Response, req *http.Request, refusal error) {
	response.Request = req.WithContext(context.WithValue(req.Context(), refusalKey{}, refusal))
}
