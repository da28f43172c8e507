package mcpoauth

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
)

func TestReplicationStateIsAskedOncePerWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := &testSystem{}
		view := newSystemView(vault)
		for range 100 {
			view.ReplicationState()
			view.passive()
		}
		if n := vault.calls.Load(); n != 1 {
			t.Errorf("Vault was asked %d times within the window; want once", n)
		}

		vault.becomes(consts.ReplicationPerformanceStandby)
		time.Sleep(replicationStateLife)
		if got := view.ReplicationState(); got != consts.ReplicationPerformanceStandby {
			t.Errorf("after the window the state is %v; want the new one", got)
		}
		view.ReplicationState()
		if n := vault.calls.Load(); n != 2 {
			t.Errorf("Vault was asked %d times in two windows; want twice", n)
		}
	})
}

// If Vault gives no answer, what it said before holds: a standby must not take itself for active.
func TestReplicationStateHoldsWhereVaultGivesNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := inState(consts.ReplicationPerformanceStandby)
		view := newSystemView(vault)
		vault.becomes(consts.ReplicationUnknown)
		time.Sleep(replicationStateLife)
		view.ReplicationState()
		if n := vault.calls.Load(); n != 2 || !view.passive() {
			t.Errorf("Vault was asked %d times; passive: %t", n, view.passive())
		}
		vault.becomes(consts.ReplicationPerformancePrimary)
		time.Sleep(replicationStateLife)
		view.ReplicationState()
		if view.passive() {
			t.Error("passive, though Vault says that it is the primary")
		}
	})
}

// slowSystem is a system view whose Vault is slow to answer from the second call on.
type slowSystem struct {
	testSystem
	answer chan consts.ReplicationState
}

func (s *slowSystem) ReplicationState() consts.ReplicationState {
	if s.testSystem.ReplicationState(); s.calls.Load() == 1 {
		return 0
	}
	return <-s.answer
}

// One request waits for Vault; the others use what is known.
func TestOnlyOneRequestWaitsForTheReplicationState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := &slowSystem{answer: make(chan consts.ReplicationState)}
		view := newSystemView(vault)
		time.Sleep(replicationStateLife)
		var asking sync.WaitGroup
		asking.Go(func() { view.ReplicationState() })
		synctest.Wait()
		for range 10 {
			if got := view.ReplicationState(); got != 0 {
				t.Errorf("the state is %v; want the one known", got)
			}
		}
		vault.answer <- consts.ReplicationDRSecondary
		asking.Wait()
		if n := vault.calls.Load(); n != 2 || !view.passive() {
			t.Errorf("Vault was asked %d times; passive: %t", n, view.passive())
		}
	})
}

func TestWhichNodesArePassive(t *testing.T) {
	for state, want := range map[consts.ReplicationState]bool{
		0:                                      false,
		consts.ReplicationPerformancePrimary:   false,
		consts.ReplicationPerformanceSecondary: false,
		consts.ReplicationDRPrimary:            false,
		consts.ReplicationPerformanceStandby:   true,
		consts.ReplicationDRSecondary:          true,
		consts.ReplicationPerformanceSecondary | consts.ReplicationPerformanceStandby: true,
	} {
		if got := newSystemView(inState(state)).passive(); got != want {
			t.Errorf("%s: passive %t; want %t", state.GetPerformanceString(), got, want)
		}
	}
}
