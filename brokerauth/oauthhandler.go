package brokerauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/oauth2"
)

// TokenSource and Authorize make a Transport an OAuthHandler of the MCP Go SDK
// (github.com/modelcontextprotocol/go-sdk/auth, v1.8.0), for StreamableClientTransport.OAuthHandler. The
// same Transport has to be in the HTTPClient beside it.
//
// Both results are nil, so the SDK doesn't set the Authorization header. The Transport sets it: net/http then can't
// carry it to another origin, and a wait for Vault counts against the call's own deadline.
func (t *Transport) TokenSource(context.Context) (oauth2.TokenSource, error) {
	return nil, nil //nolint:nilnil // the SDK expects this
}

// Authorize returns the reason for the 401 to a request of the MCP Go SDK. The error fails this one call, and the
// session continues; without a handler, the SDK would end the session. The response's body is closed.
//
// The error is never nil, so the SDK does not send the request again: the Transport has already replaced the token
// and sent the request again, if it could. The error wraps those of [Source.Replace].
//
// Another status is an error too, such as 403 for a token without a required scope (RFC 6750 section 3.1): a new
// token would have the same scopes.
func (t *Transport) Authorize(_ context.Context, _ *http.Request, response *http.Response) error {
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("brokerauth: the MCP server answered %d: another token of %s would have the same scopes",
			response.StatusCode, t.source.tokenPath)
	}
	if refusal := Refusal(response); refusal != nil {
		return refusal
	}
	return errors.New("brokerauth: a 401 to a request without a token: it went to another origin, " +
		"or the HTTPClient does not have this Transport")
}

// Refusal returns the reason for a 401 to a request that a [Transport] sent with a token, and nil for any other
// response. It wraps the errors of [Source.Replace].
func Refusal(response *http.Response) error {
	if response.StatusCode != http.StatusUnauthorized || response.Request == nil {
		return nil
	}
	refusal, _ := response.Request.Context().Value(refusalKey{}).(error)
	return refusal
}
