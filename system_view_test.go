package mcpoauth

import (
	"fmt"
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
		equal(t, "calls to Vault within the window", vault.calls.Load(), int64(1))

		vault.becomes(consts.ReplicationPerformanceStandby)
		time.Sleep(replicationStateLife)
		equal(t, "after the window the state", view.ReplicationState(), consts.ReplicationPerformanceStandby)
		view.ReplicationState()
		equal(t, "calls to Vault in two windows", vault.calls.Load(), int64(2))
	})
}

// If Vault does not answer, the last state stays: a standby must not act as active.
func TestReplicationStateHoldsIfVaultGivesNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := inState(consts.ReplicationPerformanceStandby)
		view := newSystemView(vault)
		vault.becomes(consts.ReplicationUnknown)
		time.Sleep(replicationStateLife)
		view.ReplicationState()
		equal(t, "calls to Vault", vault.calls.Load(), int64(2))
		equal(t, "passive", view.passive(), true)
		vault.becomes(consts.ReplicationPerformancePrimary)
		time.Sleep(replicationStateLife)
		view.ReplicationState()
		equal(t, "passive on the primary", view.passive(), false)
	})
}

// slowSystem is the system view of a Vault that is slow after its first answer.
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

// One request waits for Vault; the others use the last state.
func TestOnlyOneRequestWaitsForTheReplicationState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := &slowSystem{answer: make(chan consts.ReplicationState)}
		view := newSystemView(vault)
		time.Sleep(replicationStateLife)
		wait := inBackground(func() { view.ReplicationState() })
		synctest.Wait()
		for range 10 {
			equal(t, "the state", view.ReplicationState(), consts.ReplicationState(0))
		}
		vault.answer <- consts.ReplicationDRSecondary
		wait()
		equal(t, "calls to Vault", vault.calls.Load(), int64(2))
		equal(t, "passive", view.passive(), true)
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
		equal(t, fmt.Sprint("passive in state ", state.GetPerformanceString()), newSystemView(inState(state)).passive(), want)
	}
}
