package discovery

import (
	"errors"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// cause names what kept an answer from coming, in words of our own. temporary is false if trying
// again unchanged will not help.
func cause(err error) (reason string, temporary bool) {
	if refused, ok := errors.AsType[*AddressError](err); ok {
		return refused.Error(), false
	}
	return reach.Cause(err)
}
