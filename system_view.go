package mcpoauth

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// replicationStateLife is how long the replication state is cached. Vault sets up a node's mounts again when the
// state changes, so a cached state is rarely stale.
const replicationStateLife = 5 * time.Second

// systemView caches the replication state of Vault's system view. The framework asks for it at every request. Without
// the cache each request would call back to Vault, which costs a quarter of a warm read's throughput.
type systemView struct {
	logical.SystemView

	known atomic.Pointer[replicationState] // never nil

	mu sync.Mutex // held by the one caller that asks Vault; the others use the cached state
}

type replicationState struct {
	state consts.ReplicationState
	at    time.Time
}

// newSystemView returns a systemView with the current state.
func newSystemView(view logical.SystemView) *systemView {
	v := &systemView{SystemView: view}
	v.known.Store(&replicationState{state: view.ReplicationState(), at: time.Now()})
	return v
}

// ReplicationState returns a state that is at most replicationStateLife old, plus the time of one call.
func (v *systemView) ReplicationState() consts.ReplicationState {
	known := v.known.Load()
	if time.Since(known.at) < replicationStateLife || !v.mu.TryLock() {
		return known.state
	}
	defer v.mu.Unlock()
	state := v.SystemView.ReplicationState()
	if state == consts.ReplicationUnknown {
		state = known.state // the call failed: without replication Vault returns another state
	}
	known = &replicationState{state: state, at: time.Now()}
	v.known.Store(known)
	return known.state
}

// passive reports whether this node may not write its own storage: a performance standby or a DR secondary. A
// performance secondary may, because tokens are local to a cluster. passive never calls Vault: every request
// refreshes the cached state.
func (v *systemView) passive() bool {
	return v.known.Load().state.HasState(consts.ReplicationPerformanceStandby | consts.ReplicationDRSecondary)
}
