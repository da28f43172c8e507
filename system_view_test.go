package mcpoauth

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
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

		vault.state = consts.ReplicationPerformanceStandby
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
		if got := newSystemView(&testSystem{state: state}).passive(); got != want {
			t.Errorf("%s: passive %t; want %t", state.GetPerformanceString(), got, want)
		}
	}
}

// A node that may not write asks no authorization server: Vault forwards the request.
func TestPassiveNodesServeWhatIsStoredAndFetchNothing(t *testing.T) {
	for name, state := range map[string]consts.ReplicationState{
		"performance standby": consts.ReplicationPerformanceStandby,
		"DR secondary":        consts.ReplicationDRSecondary,
	} {
		t.Run(name, func(t *testing.T) {
			storage := &testStorage{}
			as, active := newAuthServer(t), newNode(t, storage, 0)
			active.configure(as, nil)
			active.write("role/weather/reader", fields{"verify": false})
			active.stash(reader, "t0ken-stored", time.Minute, time.Hour)
			was := storage.entries(t)

			passive := newNode(t, storage, state)
			passive.readOnly(logical.ReadOperation, "token/weather", nil)
			passive.readOnly(logical.UpdateOperation, "refresh/weather", nil)
			passive.readOnly(logical.UpdateOperation, "refresh/weather/reader", nil)
			if got := passive.token("weather/reader"); got != "t0ken-stored" {
				t.Errorf("the stored token is served as %q", got)
			}
			if got := passive.read("status/weather")["state"]; got != "empty" {
				t.Errorf("the state is %q", got)
			}
			storage.unchanged(t, was)
			as.asked(t, 0, "after all")
		})
	}
}

// Configs and roles are the primary's to write; the framework has them forwarded.
func TestWhereConfigsAndRolesAreWritten(t *testing.T) {
	for name, state := range map[string]consts.ReplicationState{
		"performance standby":   consts.ReplicationPerformanceStandby,
		"performance secondary": consts.ReplicationPerformanceSecondary,
	} {
		t.Run(name, func(t *testing.T) {
			storage := &testStorage{}
			as, primary := newAuthServer(t), newNode(t, storage, 0)
			primary.configure(as, nil)
			primary.write("role/weather/reader", fields{"verify": false})
			was := storage.entries(t)

			node := newNode(t, storage, state)
			for _, path := range []string{"config/weather", "config/new", "role/weather/reader", "role/weather/new"} {
				node.readOnly(logical.UpdateOperation, path, as.client())
				node.readOnly(logical.DeleteOperation, path, nil)
			}
			storage.unchanged(t, was)
			as.asked(t, 0, "after refused writes")
		})
	}
}

// A performance secondary's active node fetches and keeps tokens of its own.
func TestPerformanceSecondaryFetches(t *testing.T) {
	storage := &testStorage{}
	as, primary := newAuthServer(t), newNode(t, storage, 0)
	primary.configure(as, nil)
	primary.write("role/weather/reader", fields{"verify": false})
	primary.stash(reader, "t0ken-rejected", time.Minute, time.Hour)

	secondary := newNode(t, storage, consts.ReplicationPerformanceSecondary)
	if got := secondary.token("weather"); got != "t0ken-1" {
		t.Errorf("the token is %q", got)
	}
	if got := secondary.refresh("weather/reader", nil); got["refreshed"] != true {
		t.Errorf("the refresh gives %v", got)
	}
}
