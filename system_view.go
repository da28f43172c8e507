package mcpoauth

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// replicationStateLife is how long the replication state is remembered. A node that
// changes it sets its mounts up again, so the figure only bounds surprises.
const replicationStateLife = 5 * time.Second

// systemView is Vault's, but remembers the replication state: the framework asks for
// it at every request, and each time is a call from the plugin back to Vault, which
// costs a quarter of a warm read's throughput.
type systemView struct {
	logical.SystemView

	known atomic.Pointer[replicationState] // never nil

	mu sync.Mutex // makes one caller ask while the others use what is known
}

type replicationState struct {
	state consts.ReplicationState
	at    time.Time
}

// newSystemView asks Vault for the state once.
func newSystemView(view logical.SystemView) *systemView {
	v := &systemView{SystemView: view}
	v.known.Store(&replicationState{state: view.ReplicationState(), at: time.Now()})
	return v
}

// ReplicationState is at most replicationStateLife old, plus the time of one call.
func (v *systemView) ReplicationState() consts.ReplicationState {
	known := v.known.Load()
	if time.Since(known.at) < replicationStateLife || !v.mu.TryLock() {
		return known.state
	}
	defer v.mu.Unlock()
	state := v.SystemView.ReplicationState()
	if state == consts.ReplicationUnknown {
		state = known.state // the call failed: Vault has a word for no replication, too
	}
	known = &replicationState{state: state, at: time.Now()}
	v.known.Store(known)
	return known.state
}

// passive reports whether this node may not write its own storage: a performance
// standby or a DR secondary. Tokens are local to a cluster, so a performance
// secondary may. It never calls Vault: every request brings the state up to date.
func (v *systemView) passive() bool {
	return v.known.Load().state.HasState(consts.ReplicationPerformanceStandby | consts.ReplicationDRSecondary)
}
