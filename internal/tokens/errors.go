package tokens

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNotConfigured: the config or the role of the name does not exist.
	ErrNotConfigured = errors.New("not configured")
	// ErrReadOnly: the request needs a fetch, and this node may not write.
	ErrReadOnly = errors.New("this node may not fetch tokens")
	// ErrConflict: the configuration has changed since the caller read it.
	ErrConflict = errors.New("the configuration changed while this write was under way: read it, and write again")
	// ErrClosed: the engine has been closed, or closed while the caller waited.
	ErrClosed = errors.New("the secrets engine is stopping")
)

// WaitError is the error if a caller's wait ended before the fetch. The fetch continues. Unwrap returns the error of
// the caller's context, or context.DeadlineExceeded.
type WaitError struct {
	// Name is the name of the token.
	Name Name
	// Cause is why the wait ended.
	Cause error
}

func (e *WaitError) Error() string {
	return fmt.Sprintf("the token for %q is still being obtained, and the fetch goes on: read again", e.Name)
}

func (e *WaitError) Unwrap() error { return e.Cause }

// FailedError is a failed fetch, remembered until the next attempt. Unwrap returns the *grant.RefusedError or
// *grant.UnavailableError.
type FailedError struct {
	// Name is the name of the token.
	Name Name
	// Host is the host of the authorization server.
	Host string
	// Cause is the error of the attempt.
	Cause error
	// NextAttempt is the earliest time of the next request to the authorization server.
	NextAttempt time.Time
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("no token for %q from the authorization server at %s: %v; next attempt not before %s",
		e.Name, e.Host, e.Cause, e.NextAttempt.UTC().Format(time.RFC3339))
}

func (e *FailedError) Unwrap() error { return e.Cause }
