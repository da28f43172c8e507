package discovery

import (
	"errors"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// cause returns why a request failed, without the text of err. temporary is false if the same request would
// fail again.
func cause(err error) (reason string, temporary bool) {
	if refused, ok := errors.AsType[*AddressError](err); ok {
		return refused.Error(), false
	}
	return reach.Cause(err)
}
