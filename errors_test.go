package mcpoauth

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

func TestErrorsBecomeBareStatuses(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
	}{
		{badRequest("write something else"), 400},
		{&grant.RefusedError{Status: 401, Code: "invalid_client"}, 400},
		{&tokens.FailedError{Cause: &grant.RefusedError{Status: 400, Code: "invalid_scope"}}, 400},
		{&discovery.Error{Attempts: []discovery.Attempt{{URL: "https://mcp.example.com", Reason: "HTTP 404"}}}, 400},
		{&discovery.Error{Attempts: []discovery.Attempt{{URL: "https://mcp.example.com", Reason: "HTTP 503", Temporary: true}}}, 502},
		{tokens.ErrNotConfigured, 404},
		{tokens.ErrConflict, 409},
		{errStorage, 500},
		{context.Canceled, 500},
		{&grant.UnavailableError{Status: 503}, 502},
		{&tokens.FailedError{Cause: &grant.UnavailableError{Reason: "connection refused"}}, 502},
		{tokens.ErrClosed, 503},
		{context.DeadlineExceeded, 504},
	} {
		for _, err := range []error{test.err, fmt.Errorf("while trying: %w", test.err), errors.Join(test.err)} {
			resp, got := fail(weather, err)
			coded, bare := got.(logical.HTTPCodedError)
			if resp != nil || !bare || coded.Code() != test.status {
				t.Errorf("%v: %v, %#v; want a bare %d", err, resp, got, test.status)
			}
			if test.status != 404 && got.Error() != err.Error() {
				t.Errorf("%v: became %q", err, got)
			}
		}
	}
	if resp, err := fail(weather, fmt.Errorf("while trying: %w", tokens.ErrReadOnly)); resp != nil || err != logical.ErrReadOnly {
		t.Errorf("ErrReadOnly became %v, %v", resp, err)
	}
}
