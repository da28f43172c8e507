package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
	"github.com/hashicorp/vault/api/auth/kubernetes"
)

const (
	// loginTimeout bounds one login, including the retries of Vault's client.
	loginTimeout = 30 * time.Second

	// The delay after a failed login begins at loginFirst and doubles up to loginMost.
	loginFirst = time.Second
	loginMost  = 30 * time.Second

	// refusedAfter is the age from which a token refused by Vault (403) counts as revoked. Vault also answers 403 if
	// a policy does not permit the path, so this bounds how often the proxy logs in.
	refusedAfter = 30 * time.Second
)

// vaultToken returns the method's token; client is for logging in.
func (m *authMethod) vaultToken(client *api.Client, log *slog.Logger) vaultToken {
	mount := strings.Trim(strings.TrimPrefix(m.MountPath, "auth/"), "/")
	if mount == "" {
		mount = m.Type
	}
	c := m.Config
	var method func() (api.AuthMethod, error)
	switch m.Type {
	case "token_file":
		return tokenFile(c.TokenFile)
	case "approle":
		method = func() (api.AuthMethod, error) {
			roleID, err := os.ReadFile(c.RoleIDFile) //nolint:gosec // the operator's own file
			if err != nil {
				return nil, err
			}
			return approle.NewAppRoleAuth(strings.TrimSpace(string(roleID)), &approle.SecretID{FromFile: c.SecretIDFile},
				approle.WithMountPath(mount))
		}
	case "kubernetes":
		method = func() (api.AuthMethod, error) {
			options := []kubernetes.LoginOption{kubernetes.WithMountPath(mount)}
			if c.JWTFile != "" {
				options = append(options, kubernetes.WithServiceAccountTokenPath(c.JWTFile))
			}
			return kubernetes.NewKubernetesAuth(c.Role, options...)
		}
	}
	return newLogin(client, m.Type, method, log)
}

// A login gets a Vault token by logging in, renews it, and logs in again when it ends.
type login struct {
	client *api.Client // logs in and renews
	name   string      // of the method
	method func() (api.AuthMethod, error)
	log    *slog.Logger

	tried   chan struct{} // closed after the first attempt
	revoked chan string   // a token refused by Vault

	mu    sync.Mutex // guards the fields below
	value string     // the latest token, or ""
	err   error      // of the latest attempt
}

// newLogin returns a login by a method. method is called for each attempt, because it may read files.
func newLogin(client *api.Client, name string, method func() (api.AuthMethod, error), log *slog.Logger) *login {
	return &login{
		client: client, name: name, method: method, log: log,
		tried: make(chan struct{}), revoked: make(chan string, 1),
	}
}

// token returns the latest token. It waits for the first attempt to log in.
func (l *login) token(ctx context.Context) (string, error) {
	select {
	case <-l.tried:
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for a login to Vault: %w", context.Cause(ctx))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.value == "" {
		return "", l.err
	}
	return l.value, nil
}

func (l *login) refused(token string) {
	select {
	case l.revoked <- token:
	default:
	}
}

func (l *login) run(ctx context.Context) {
	first := sync.OnceFunc(func() { close(l.tried) })
	for failures := 0; ctx.Err() == nil; {
		begun := time.Now()
		secret, err := l.attempt(ctx)
		first()
		if err != nil {
			l.log.Warn("login to Vault failed", "method", l.name, "error", err)
			window := min(loginFirst<<min(failures, 16), loginMost)
			failures++
			sleep(ctx, window-rand.N(window/4)) //nolint:gosec // spreads load, guards nothing
			continue
		}
		failures = 0
		l.log.Info("logged in to Vault", "method", l.name)
		l.keep(ctx, secret)
		sleep(ctx, time.Until(begun.Add(loginFirst))) // a token's lifetime may be a second
	}
}

// attempt logs in once.
func (l *login) attempt(ctx context.Context) (*api.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	method, err := l.method()
	var secret *api.Secret
	if err == nil {
		secret, err = l.client.Auth().Login(ctx, method)
	}
	if err == nil && (secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "") {
		err = errors.New("the answer holds no token")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err = err; err != nil {
		l.err = fmt.Errorf("log in to Vault by %s: %w", l.name, err)
		return nil, l.err
	}
	l.value = secret.Auth.ClientToken
	return secret, nil
}

// keep renews a token until it can't be renewed any more or is revoked.
func (l *login) keep(ctx context.Context, secret *api.Secret) {
	obtained := time.Now()
	var ended <-chan error // nil for a token that does not expire
	if secret.Auth.LeaseDuration > 0 {
		watcher, err := l.client.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: secret})
		if err != nil {
			l.log.Warn("the Vault token will not be renewed", "error", err)
			return
		}
		go watcher.Start()
		defer watcher.Stop()
		ended = watcher.DoneCh()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-ended:
			if err != nil {
				l.log.Warn("the Vault token is not renewed any more", "method", l.name, "error", err)
			}
			return
		case token := <-l.revoked:
			if token == secret.Auth.ClientToken && time.Since(obtained) >= refusedAfter {
				l.log.Warn("Vault refuses the token: logging in again", "method", l.name)
				return
			}
		}
	}
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
