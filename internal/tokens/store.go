package tokens

import (
	"context"
)

// Store is what the engine needs of storage. Its methods may be called from many
// goroutines, and each must end within a bounded time. Each call costs a round trip to
// Vault.
type Store interface {
	// Terms reads the terms of a name; ErrNotConfigured when it has none.
	Terms(context.Context, Name) (*Terms, error)
	// Load reads the stored token of a name; nil when there is none. Of the
	// token's times only the wall clock counts.
	Load(context.Context, Name) (*Token, error)
	// Save stores a token.
	Save(context.Context, Name, *Token) error
	// Delete removes the stored token of a name, if any.
	Delete(context.Context, Name) error
	// Names lists the names that have a stored token.
	Names(context.Context) ([]Name, error)
}
