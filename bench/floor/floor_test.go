package floor

import (
	"maps"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// countingView counts the calls for the replication state. In a plugin each one is a call to Vault.
type countingView struct {
	logical.StaticSystemView
	asked atomic.Int64
}

func (v *countingView) ReplicationState() consts.ReplicationState {
	v.asked.Add(1)
	return v.StaticSystemView.ReplicationState()
}

func TestReadsAnswerTheConstantAndDoNotAskVault(t *testing.T) {
	const tokenBytes = 700
	view := new(countingView)
	b, err := Factory(Answer(tokenBytes, "tools:list"))(t.Context(), &logical.BackendConfig{
		System: view, StorageView: new(logical.InmemStorage), Logger: hclog.NewNullLogger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	begun := view.asked.Load()
	const reads = 1000
	for range reads {
		response, err := b.HandleRequest(t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: Path})
		if err != nil || response.IsError() {
			t.Fatalf("response %v, error %v", response, err)
		}
		if token, _ := response.Data["access_token"].(string); len(token) != tokenBytes || response.Data["scope"] != "tools:list" {
			t.Fatalf("fields %v with a token of %d bytes", slices.Sorted(maps.Keys(response.Data)), len(token))
		}
	}
	if asked := view.asked.Load() - begun; asked > reads/100 {
		t.Errorf("%d reads asked Vault for its replication state %d times", reads, asked)
	}
}
