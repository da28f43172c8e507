package mcpoauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// requestError is a fault in the request. Its text says what to do instead.
type requestError struct {
	status int
	text   string
}

func (e *requestError) Error() string { return e.text }

// badRequest returns a requestError with status 400. The text must not contain a secret.
func badRequest(format string, args ...any) error {
	return &requestError{status: http.StatusBadRequest, text: fmt.Sprintf(format, args...)}
}

// notConfigured returns the error for tokens.ErrNotConfigured, with the paths to write.
func notConfigured(name tokens.Name) error {
	text := fmt.Sprintf("no config named %q: write config/%s first", name.Server, name.Server)
	if name.Role != "" {
		text = fmt.Sprintf("no role named %q of a config named %q: write config/%s and role/%s first",
			name.Role, name.Server, name.Server, name)
	}
	return &requestError{status: http.StatusNotFound, text: text}
}

// quote returns a foreign value for an error: quoted, escaped and truncated.
func quote(s string) string {
	const limit = 60
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit]) + "…"
	}
	return strconv.Quote(s)
}

// fail turns an error into a response, as a handler's last step. The coded error must be bare: if it is wrapped,
// Vault answers 500, and if an error response comes with it, 400.
func fail(name tokens.Name, err error) (*logical.Response, error) {
	switch {
	case errors.Is(err, tokens.ErrReadOnly):
		return nil, logical.ErrReadOnly
	case errors.Is(err, tokens.ErrNotConfigured):
		err = notConfigured(name)
	}
	return nil, logical.CodedError(statusOf(err), err.Error())
}

// statusOf maps the plugin's typed errors to HTTP statuses.
func statusOf(err error) int {
	if request, ok := errors.AsType[*requestError](err); ok {
		return request.status
	}
	if _, ok := errors.AsType[*tokens.WaitError](err); ok {
		return http.StatusGatewayTimeout
	}
	if _, ok := errors.AsType[*grant.RefusedError](err); ok {
		return http.StatusBadRequest
	}
	if _, ok := errors.AsType[*grant.UnavailableError](err); ok {
		return http.StatusBadGateway
	}
	if undiscovered, ok := errors.AsType[*discovery.Error](err); ok {
		if undiscovered.Temporary() {
			return http.StatusBadGateway
		}
		return http.StatusBadRequest
	}
	switch {
	case errors.Is(err, tokens.ErrConflict):
		return http.StatusConflict
	case errors.Is(err, tokens.ErrClosed):
		return http.StatusServiceUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}
