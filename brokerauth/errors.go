package brokerauth

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"
)

// An Error is a failed read or refresh of a token in Vault. It never contains a token.
type Error struct {
	// Op is the failed operation: "read" or "refresh".
	Op string

	// Path is the path in Vault, relative to the client's namespace.
	Path string

	// StatusCode is the HTTP status of Vault's answer: 404 if the config or role does not exist, 403 if
	// the Vault token is not valid or its policies do not permit the path, 400 if the authorization
	// server refused the plugin's request, 502 if the plugin can't reach the authorization server, 504
	// if the authorization server has not answered yet, 503 if Vault is sealed, 307 for a read
	// while its nodes are electing an active node. It is 0 if Vault did not answer, or if the answer is
	// not a token's.
	StatusCode int

	// Err is the cause: an [*api.ResponseError] if Vault answered with an error.
	Err error
}

// Error returns the operation, the path, the status and Vault's reason in one line.
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
	case http.StatusTemporaryRedirect:
		return "Vault answered 307: its nodes are electing an active node, or the Vault client does not follow redirects"
	case http.StatusForbidden:
		return "Vault answered 403: the Vault token is not valid, or its policies do not allow this"
	}
	reason := fmt.Sprintf("Vault answered %d", e.StatusCode)
	// A body that is not Vault's JSON comes from a proxy before Vault, and may be a page of HTML.
	if answer, ok := errors.AsType[*api.ResponseError](e.Err); ok && !answer.RawError && len(answer.Errors) > 0 {
		reason += ": " + strings.Join(answer.Errors, "; ")
	}
	return reason
}

// isGatewayTimeout reports whether Vault answered 504: the plugin's request to the authorization server is still
// in flight, and continues.
func isGatewayTimeout(err error) bool {
	failure, ok := errors.AsType[*Error](err)
	return ok && failure.StatusCode == http.StatusGatewayTimeout
}

// errRedirected is a redirect that Vault's client did not follow, and for which it returns neither an error nor a
// secret. It follows one. During an election a node redirects to the last active node, which may redirect too.
var errRedirected = errors.New("a redirect was not followed")

// errNotFound is a 404 without an error of Vault's client.
var errNotFound = errors.New("not found")

// failed returns the Error for a path, from the error of Vault's client; a nil error means a 404.
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

// ErrNotReplaced says that the refused token was not replaced. It is younger than the plugin's cooldown of 10
// seconds, or the authorization server returned the same token again, or the token had itself replaced a refused one
// too recently.
var ErrNotReplaced = errors.New("brokerauth: the refused token has not been replaced")
