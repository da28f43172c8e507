package mcpoauth

import (
	"github.com/hashicorp/vault/sdk/framework"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// backend is one mount of the secrets engine.
type backend struct {
	*framework.Backend

	system  *systemView
	store   store
	engine  *tokens.Engine
	metrics *metrics

	keySets *keySets
}
