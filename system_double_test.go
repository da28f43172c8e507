package mcpoauth

import (
	"context"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// testSystem counts the calls to Vault's system view. Methods that are not defined here panic.
type testSystem struct {
	logical.SystemView

	state atomic.Uint32 // holds a consts.ReplicationState
	calls atomic.Int64
	// before is called with the name of each called method. It is set before the mount starts.
	before func(call string)
}

func inState(state consts.ReplicationState) *testSystem {
	s := &testSystem{}
	s.becomes(state)
	return s
}

func (s *testSystem) becomes(state consts.ReplicationState) { s.state.Store(uint32(state)) }

func (s *testSystem) call(name string) {
	s.calls.Add(1)
	if s.before != nil {
		s.before(name)
	}
}

func (s *testSystem) ReplicationState() consts.ReplicationState {
	s.call("ReplicationState")
	return consts.ReplicationState(s.state.Load())
}

// Setup calls GetConsumptionBillingManager once.
func (s *testSystem) GetConsumptionBillingManager() logical.ConsumptionBillingManager {
	s.call("GetConsumptionBillingManager")
	return nil
}

// The OpenAPI document needs PluginEnv.
func (s *testSystem) PluginEnv(context.Context) (*logical.PluginEnvironment, error) {
	s.call("PluginEnv")
	return &logical.PluginEnvironment{VaultVersion: "1.21.1"}, nil
}

func (s *testSystem) LocalMount() bool {
	s.call("LocalMount")
	return false
}
