// Package floor is the least that an external secrets engine can do: a read that answers a
// constant. So a read costs only the work of Vault, the plugin boundary and the framework.
//
// It knows the replication state without asking Vault at each request, as the engine it is
// compared with does.
package floor

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// Answer is a token response of made-up values, with an access token of the given size.
func Answer(tokenBytes int, scope string) map[string]any {
	token := strings.Repeat("x", tokenBytes)
	return map[string]any{
		"access_token":        token,
		"token_type":          "Bearer",
		"authorization":       "Bearer " + token,
		"expires_at":          "2026-01-01T01:00:00Z",
		"scope":               scope,
		"ttl":                 int64(2800),
		"rotation_period":     int64(2700),
		"last_vault_rotation": "2026-01-01T00:00:00Z",
		"token_id":            "0123456789abcdef",
	}
}

// Path is the only path of the plugin: as long as the token path of a config named "reads".
const Path = "token/reads"

// Version is reported to Vault, so that audit log entries are as long as those of the measured plugin.
const Version = "v0.1.0"

// Factory makes backends whose only path answers answer.
func Factory(answer map[string]any) logical.Factory {
	return func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
		c := *conf
		c.System = newSystemView(conf.System)
		b := &framework.Backend{
			BackendType:    logical.TypeLogical,
			RunningVersion: Version,
			Paths: []*framework.Path{{
				Pattern: Path + "$",
				Operations: map[logical.Operation]framework.OperationHandler{
					logical.ReadOperation: &framework.PathOperation{
						Callback: func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
							return &logical.Response{Data: answer}, nil
						},
					},
				},
			}},
		}
		return b, b.Setup(ctx, &c)
	}
}

// systemView is Vault's, but remembers the replication state for a few seconds.
type systemView struct {
	logical.SystemView
	known atomic.Pointer[known]
}

type known struct {
	state consts.ReplicationState
	at    time.Time
}

func newSystemView(view logical.SystemView) *systemView {
	v := &systemView{SystemView: view}
	v.known.Store(&known{view.ReplicationState(), time.Now()})
	return v
}

// ReplicationState implements logical.SystemView.
func (v *systemView) ReplicationState() consts.ReplicationState {
	k := v.known.Load()
	if time.Since(k.at) >= 5*time.Second {
		k = &known{v.SystemView.ReplicationState(), time.Now()}
		v.known.Store(k)
	}
	return k.state
}
