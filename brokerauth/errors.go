package brokerauth

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"
)

// An Error is why Vault gave no token. It holds no token.
type Error struct {
	// Op is what was tried: "read" the token path, or "refresh".
	Op string

	// Path is the path in Vault, relative to the client's namespace.
	Path string

	// StatusCode is the HTTP status of Vault's answer: 404 if there is no such config or role, 403
	// if the Vault token is not valid or has no policy for it, 400 if the authorization server
	// refused the plugin, 502 if that could not be reached, 504 if
	// it has not answered yet, 503 where Vault is sealed. It is 0 where
	// no answer came, or one that cannot be understood.
	StatusCode int

	// Err is the cause: an [*api.ResponseError] where Vault answered with one.
	Err error
}

// Error says in one line what was tried, what came of it and, where Vault told, why.
func (e *Error) Error() string {
	return fmt.Sprintf("brokerauth: %s %s: %s", e.Op, e.Path, e.reason())
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) reason() string {
	switch e.StatusCode {
	case 0:
		return e.Err.Error()
	case http.StatusNotFound:
		return "Vault answered 404: no such config or role, or the plugin is not mounted there, or does not run on the node that answered"
	case http.StatusForbidden:
		return "Vault answered 403: the Vault token is not valid, or its policies do not allow this"
	}
	reason := fmt.Sprintf("Vault answered %d", e.StatusCode)
	// What is not Vault's JSON comes from something in between, and may be a page of HTML.
	if answer, ok := errors.AsType[*api.ResponseError](e.Err); ok && !answer.RawError && len(answer.Errors) > 0 {
		reason += ": " + strings.Join(answer.Errors, "; ")
	}
	return reason
}

// isGatewayTimeout reports whether Vault answered 504: the plugin is still waiting for the authorization server,
// and goes on with that.
func isGatewayTimeout(err error) bool {
	failure, ok := errors.AsType[*Error](err)
	return ok && failure.StatusCode == http.StatusGatewayTimeout
}

// errNotFound is a 404 without a text of Vault's client.
var errNotFound = errors.New("not found")

// failed is what err of Vault's client says about the path. A 404 may be none there.
func failed(op, path string, err error) *Error {
	if err == nil {
		return &Error{Op: op, Path: path, StatusCode: http.StatusNotFound, Err: errNotFound}
	}
	e := &Error{Op: op, Path: path, Err: err}
	if answer, ok := errors.AsType[*api.ResponseError](err); ok {
		e.StatusCode = answer.StatusCode
	}
	return e
}

// ErrNotReplaced says that the token that the MCP server refused is still the one to be had: it is
// younger than the plugin's cooldown of 10 seconds, or the authorization server hands it out again, or it
// came in place of another refused one not long ago.
var ErrNotReplaced = errors.New("brokerauth: the refused token has not been replaced")
