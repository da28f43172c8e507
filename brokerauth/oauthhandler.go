package brokerauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/oauth2"
)

// TokenSource returns the source itself, bound to ctx. With Authorize it makes a Source an
// OAuthHandler of the MCP Go SDK (github.com/modelcontextprotocol/go-sdk/auth, v1.8.0), for
// StreamableClientTransport.OAuthHandler. The error is always nil.
//
// The SDK passes the context of the connection, which has no deadline: where no valid token is held, a
// call, and Connect too, may wait for Vault up to 30 seconds past its own. Calling
// [Source.TokenContext] before Connect tells in time whether there is a token.
//
// The SDK sets the header itself, so that net/http takes it along where the server redirects to another
// port or scheme of its host, or to a subdomain. The CheckRedirect of the SDK's HTTPClient should refuse
// that; the README shows one. And the SDK does not ask the handler about a refused GET, with which it
// opens the stream of messages from the server: the session goes on without them.
func (s *Source) TokenSource(ctx context.Context) (oauth2.TokenSource, error) {
	return boundSource{ctx: ctx, source: s}, nil
}

// Authorize has the token of a request replaced that the MCP server answered with a 401. When it
// returns nil, sending the request again, with the new token, is worth while. The response's body
// is closed.
//
// An error fails the one call. The SDK goes on with the session then, unless ctx, which is the call's, is
// done. A second 401, to the request sent again, ends the session: connect again.
//
// Another status, such as the 403 of a token that lacks a scope (RFC 6750 section 3.1), is an error:
// the next token would be no better. Otherwise the errors are those of [Source.Replace].
func (s *Source) Authorize(ctx context.Context, req *http.Request, response *http.Response) error {
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("brokerauth: the MCP server answered %d: another token of %s would have the same scopes",
			response.StatusCode, s.tokenPath)
	}
	accessToken, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return errors.New("brokerauth: the MCP server answered 401 to a request without a token")
	}
	if err := s.Replace(ctx, accessToken); err != nil {
		return fmt.Errorf("the MCP server refused token %s: %w", tokenID(accessToken), err)
	}
	return nil
}

// boundSource is a Source whose waits end with a context.
type boundSource struct {
	ctx    context.Context // as oauth2.TokenSource takes none
	source *Source
}

func (b boundSource) Token() (*oauth2.Token, error) { return b.source.TokenContext(b.ctx) }
