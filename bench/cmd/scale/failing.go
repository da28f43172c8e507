package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// failing measures the largest responses: while tokens are valid and their refreshes fail, the list of status/ has an
// error for each token, and the metrics have every gauge of it.
func (m *mount) failing(ctx context.Context, r *mountReport) error {
	fmt.Fprintf(os.Stderr, "scale: requests while the refreshes of %d tokens fail\n", m.configs)
	m.issuer.failing.Store(true)
	defer m.issuer.failing.Store(false)
	if err := m.all(ctx, func(ctx context.Context, i int) error { return m.fail(ctx, server(i)) }); err != nil {
		return err
	}
	answer, err := m.do(ctx, "LIST", bed.Mount+"/status/", nil)
	if err != nil {
		return err
	}
	if n := bytes.Count(answer, []byte(`"error":`)); n != m.configs {
		return fmt.Errorf("status/ lists %d errors, want %d", n, m.configs)
	}
	if err := r.ask(ctx, m, "list of `status/` while all tokens fail", listOf("status/")); err != nil {
		return err
	}
	return r.ask(ctx, m, "`metrics` while all tokens fail", request{http.MethodGet, "metrics"})
}

// fail writes refresh/ for a server until the plugin reports that the token request failed.
func (m *mount) fail(ctx context.Context, server string) error {
	return m.await(ctx, 200*time.Millisecond, func() error {
		_, err := m.do(ctx, http.MethodPost, bed.Mount+"/refresh/"+server, nil)
		if failed, ok := errors.AsType[*errStatus](err); ok && failed.status == http.StatusBadGateway {
			return nil
		}
		if err == nil {
			return errNotReplaced
		}
		return err
	})
}
