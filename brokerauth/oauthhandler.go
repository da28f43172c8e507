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
// Both results are nil: the SDK sets no Authorization header then. The Transport does, so that net/http has
// none to take along to another origin, and a wait for Vault is that of the call, with its deadline.
func (t *Transport) TokenSource(context.Context) (oauth2.TokenSource, error) {
	return nil, nil //nolint:nilnil // what the SDK asks for
}

// Authorize says why a 401 is the answer to a request of the MCP Go SDK. The error fails the one call, and
// the SDK goes on with the session, which it would end without a handler. The response's body is closed.
//
// It is never nil, and the SDK does not send the request again: the Transport has had the token replaced,
// and has sent it again, if that was possible. The error wraps those of [Source.Replace].
//
// Another status, such as the 403 of a token that lacks a scope (RFC 6750 section 3.1), is an error too: the
// next token would be no better.
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

// Refusal returns why a 401 is the answer to a request that a [Transport] sent with a token, and nil for any
// other response. It wraps the errors of [Source.Replace].
func Refusal(response *http.Response) error {
	if response.Request == nil {
		return nil
	}
	refusal, _ := response.Request.Context().Value(refusalKey{}).(error)
	return refusal
}
