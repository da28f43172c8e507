package trouble

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// These are the events of Vault while readers wait for a hanging server.
const (
	Seal     = "seal"
	StepDown = "step-down"
)

// hangLimit is the time after which the hanging server refuses requests, so that every run ends.
const hangLimit = 40 * time.Second

// A Hang is an event of a cluster while readers wait for a token endpoint that never answers.
type Hang struct {
	Event   string // Seal or StepDown of the active node
	Readers int    // number of concurrent cold reads, each of a different name
	Clients bool   // each name has its own client; otherwise all are roles of one config
	Write   bool   // a config write with the longest request_timeout waits for the server too
}

// A HangReport is the wait of each caller.
type HangReport struct {
	Hang
	Took  time.Duration // from the request to seal or step down until the node was no longer active
	Back  time.Duration // from then until the cluster served KV again, after unsealing
	Reads []Result      // of tokens
	Wrote *Result       // of the config; may be nil
	KV    time.Duration // slowest read of KV at the node, from before the event to its end
}

// Run makes the event happen at the active node's own address, after all readers have reached the node.
func (h Hang) Run(ctx context.Context, b *bed.Bed, s *Stage, prefix string) (*HangReport, error) {
	report := &HangReport{Hang: h}
	paths, err := h.prepare(ctx, s, prefix)
	if err != nil {
		return nil, err
	}
	node, err := b.Active(ctx)
	if err != nil {
		return nil, err
	}
	root, err := node.Client(b.Vault.RootToken)
	if err != nil {
		return nil, err
	}
	root.SetClientTimeout(2 * time.Minute)
	s.AS.Set(bed.Hang)
	release := time.AfterFunc(hangLimit, func() { s.AS.Set(bed.LimitFor(503, 10*time.Minute)) })
	defer release.Stop()

	var callers sync.WaitGroup
	stopKV := h.watchKV(ctx, root, report, &callers)
	if h.Write {
		callers.Go(func() {
			r := s.at(root).Write(ctx, "config/"+prefix+"-written", s.Config(map[string]any{"client_id": prefix + "-written", "request_timeout": 25}))
			report.Wrote = &r
		})
	}
	callers.Go(func() { report.Reads = s.at(root).ReadAll(ctx, paths) })
	want := len(paths)
	if h.Write {
		want++
	}
	err = wait(ctx, fmt.Sprintf("%d requests are under way", want), func() (bool, error) {
		n, err := UnderWay(ctx, root, s.Mount)
		return n == want, err
	})
	if err == nil {
		err = h.do(ctx, b, node, root, report)
	}
	stopKV()
	callers.Wait()
	return report, err
}

func (h Hang) prepare(ctx context.Context, s *Stage, prefix string) (paths []string, err error) {
	if h.Clients {
		return s.Clients(ctx, prefix, h.Readers)
	}
	return s.Roles(ctx, prefix, h.Readers, nil)
}

// watchKV reads a KV entry repeatedly until stop is called.
func (h Hang) watchKV(ctx context.Context, root *api.Client, report *HangReport, callers *sync.WaitGroup) (stop func()) {
	watching, stop := context.WithCancel(ctx)
	callers.Go(func() {
		for {
			r := timed("kv/control", func() (*api.Secret, error) {
				return root.Logical().ReadWithContext(ctx, "kv/control")
			})
			report.KV = max(report.KV, r.Took)
			if bed.Sleep(watching, 20*time.Millisecond) != nil {
				return
			}
		}
	})
	return stop
}

// do makes the event happen, and waits until the cluster serves again.
func (h Hang) do(ctx context.Context, b *bed.Bed, node *bed.Node, root *api.Client, report *HangReport) (err error) {
	begun := time.Now()
	if h.Event == Seal {
		err = root.Sys().SealWithContext(ctx)
	} else {
		err = root.Sys().StepDownWithContext(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s after %s: %w", h.Event, time.Since(begun), err)
	}
	err = wait(ctx, node.ID+" is no longer active", func() (bool, error) {
		health, err := root.Sys().HealthWithContext(ctx)
		return err == nil && (health.Sealed || health.Standby), nil
	})
	report.Took = time.Since(begun)
	if err != nil {
		return err
	}
	if h.Event == Seal {
		if err := node.Unseal(ctx); err != nil {
			return err
		}
	}
	client, err := b.Vault.Root()
	if err != nil {
		return err
	}
	err = errors.Join(b.WaitHealthy(ctx), wait(ctx, "KV is served again", func() (bool, error) {
		secret, err := client.Logical().ReadWithContext(ctx, "kv/control")
		return err == nil && secret != nil, nil
	}))
	report.Back = time.Since(begun) - report.Took
	return err
}

// MountKV mounts a KV engine with an entry to read.
func MountKV(ctx context.Context, root *api.Client) error {
	if err := root.Sys().MountWithContext(ctx, "kv", &api.MountInput{Type: "kv"}); err != nil {
		return err
	}
	_, err := root.Logical().WriteWithContext(ctx, "kv/control", map[string]any{"key": "value"})
	return err
}
