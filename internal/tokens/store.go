package tokens

import (
	"context"
)

// Store is the engine's storage. Its methods may be called from many goroutines, and must end within a bounded time.
// Each call costs a round trip to Vault.
type Store interface {
	// Terms reads the terms of a name; ErrNotConfigured if it is not configured.
	Terms(context.Context, Name) (*Terms, error)
	// Load reads the stored token of a name; nil without one. Its times are of the wall clock.
	Load(context.Context, Name) (*Token, error)
	// Save stores a token.
	Save(context.Context, Name, *Token) error
	// Delete removes the stored token of a name, if any.
	Delete(context.Context, Name) error
	// Names lists the names with a stored token.
	Names(context.Context) ([]Name, error)
}
