// Package floor is the least work of an external secrets engine: a read that answers a constant. Such a read costs
// only the work of Vault, the plugin boundary and the framework.
//
// Like the engine it is compared with, it knows the replication state without asking Vault at each request.
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

// Answer is a token response of invented values, with an access token of the given size.
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

// Path is the plugin's only path. It is as long as the token path of a config named "reads".
const Path = "token/reads"

// Version is reported to Vault. It makes audit log entries as long as those of the measured plugin.
const Version = "v0.1.0"

// Factory makes backends that return answer at their only path.
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

// systemView is Vault's system view, and remembers the replication state for a few seconds.
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
