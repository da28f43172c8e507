package main

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A stack is the stack of one sample. The innermost call comes first.
type stack struct {
	calls string
	value int64
}

// made returns a profile of stacks.
func made(stacks ...stack) *profile.Profile {
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"},
		Period:     1,
	}
	for _, stack := range stacks {
		sample := &profile.Sample{Value: []int64{1, stack.value}}
		for call := range strings.SplitSeq(stack.calls, " < ") {
			f := &profile.Function{ID: uint64(len(p.Function) + 1), Name: call}
			l := &profile.Location{ID: uint64(len(p.Location) + 1), Line: []profile.Line{{Function: f}}}
			p.Function, p.Location = append(p.Function, f), append(p.Location, l)
			sample.Location = append(sample.Location, l)
		}
		p.Sample = append(p.Sample, sample)
	}
	return p
}

// encoded returns a profile of stacks as a process serves it.
func encoded(t *testing.T, stacks ...stack) []byte {
	t.Helper()
	var out bytes.Buffer
	bed.OK(t, made(stacks...).Write(&out))
	return out.Bytes()
}

func TestSamplesGoToTheInnermostLayer(t *testing.T) {
	const served = " < github.com/hashicorp/vault/vault.(*Core).HandleRequest < github.com/hashicorp/vault/http.request < net/http.(*conn).serve"
	vault := []stack{
		{"syscall.write < internal/poll.(*FD).Write < net/http.(*conn).serve", 1},
		{"encoding/json.(*Encoder).Encode < github.com/hashicorp/vault/http.respondOk < net/http.(*conn).serve", 2},
		{"runtime.mallocgc < github.com/hashicorp/hcl.Parse < github.com/hashicorp/vault/vault.parseACLPolicyWithTemplating" + served, 4},
		{"runtime.mapaccess2 < github.com/hashicorp/vault/vault.(*ACL).AllowOperation" + served, 8},
		{"encoding/json.Marshal < github.com/hashicorp/vault/audit.(*entryFormatter).Process" + served, 16},
		{"crypto/tls.(*Conn).Write < google.golang.org/grpc.(*ClientConn).Invoke" + served, 32},
		{"runtime.mapassign" + served, 64},
		{"runtime.scanobject < runtime.gcDrain < runtime.gcBgMarkWorker", 128},
		{"runtime.gcAssistAlloc < runtime.mallocgc < github.com/hashicorp/vault/vault.(*ACL).AllowOperation" + served, 256},
		{"runtime.futex < runtime.futexsleep", 512},
		{"time.Now < github.com/hashicorp/raft.(*Raft).run", 1024},
	}
	plugin := []stack{
		{"time.Time.Format < " + ourModule + ".rfc3339 < " + ourModule + ".(*backend).readToken < github.com/hashicorp/vault/sdk/framework.(*Backend).HandleRequest", 1},
		{"regexp.(*Regexp).doExecute < github.com/hashicorp/vault/sdk/framework.(*Backend).route < " + ourModule + ".(*backend).HandleRequest", 2},
		{"encoding/json.Marshal < github.com/hashicorp/vault/sdk/plugin/pb.LogicalResponseToProtoResponse < google.golang.org/grpc.(*Server).handleStream", 4},
		{"runtime.newobject < github.com/hashicorp/vault/sdk/plugin/pb.LogicalResponseToProtoResponse < google.golang.org/grpc.(*Server).handleStream", 8},
		{"syscall.read < internal/poll.(*FD).Read < crypto/tls.(*Conn).Read < google.golang.org/grpc/internal/transport.(*http2Server).HandleStreams", 16},
		{"runtime.chansend < google.golang.org/grpc/internal/transport.(*http2Server).write", 32},
	}
	for _, row := range []struct {
		name   string
		stacks []stack
		layers []layer
		want   []float64 // in the order of the layers; samples of no layer come last
	}{
		{"Vault", vault, vaultLayers, []float64{128 + 256 + 512, 2, 1, 4, 8, 16, 32, 64, 1024}},
		{"plugin", plugin, pluginLayers, []float64{0, 1, 2, 4, 8, 16, 32, 0}},
	} {
		var sum float64
		for _, value := range row.want {
			sum += value
		}
		shares := bed.Must(attribute(made(row.stacks...), "cpu", row.layers, sum))(t)
		var got []float64
		var percent float64
		var samples int64
		for _, s := range shares {
			got = append(got, math.Round(s.PerRead))
			percent += s.Percent
			samples += s.Samples
		}
		if !slices.Equal(got, row.want) || math.Abs(percent-100) > 0.001 || samples != int64(len(row.stacks)) {
			t.Errorf("%s: %v, in all %.3f %% of %d samples; want %v", row.name, got, percent, samples, row.want)
		}
	}
}

func TestProfileWithoutValuesIsAnError(t *testing.T) {
	if _, err := attribute(made(stack{"main.main", 1}), "alloc_space", pluginLayers, 1); err == nil {
		t.Error("a CPU profile has no allocations")
	}
	if _, err := attribute(made(), "cpu", pluginLayers, 1); err == nil {
		t.Error("a profile without samples was attributed")
	}
	if _, err := parse([]byte("no profile"), nil); err == nil {
		t.Error("data that is not a profile was parsed")
	}
}

// Allocations before the reads are subtracted.
func TestEarlierProfileIsTakenOff(t *testing.T) {
	const ours, framework = ourModule + ".(*backend).readToken", "github.com/hashicorp/vault/sdk/framework.(*Backend).route"
	p := bed.Must(parse(encoded(t, stack{ours, 5}, stack{framework, 4}), encoded(t, stack{ours, 2})))(t)
	shares := bed.Must(attribute(p, "cpu", pluginLayers, 7))(t)
	for _, s := range shares {
		want := map[string]float64{"ours": 3, "SDK framework": 4}[s.Layer]
		if math.Abs(s.PerRead-want) > 0.001 {
			t.Errorf("%s: %v; want %v", s.Layer, s.PerRead, want)
		}
	}
}

// Windows of different length are weighted by their reads.
func TestWindowsTogether(t *testing.T) {
	got := together([]window{
		{Reads: 100, Throughput: 10, Vault: 4, Plugin: 2, Readers: 1}, {Reads: 300, Throughput: 30, Vault: 8, Plugin: 6, Readers: 5},
	})
	if want := (window{Reads: 400, Throughput: 20, Vault: 7, Plugin: 5, Readers: 4}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	raw := encoded(t, stack{ourModule + ".(*backend).readToken", 5})
	p := bed.Must(merge([][]byte{raw, raw}))(t)
	shares := bed.Must(attribute(p, "cpu", pluginLayers, 10))(t)
	if ours := shares[1]; ours.Layer != "ours" || ours.Samples != 2 || ours.PerRead != 10 {
		t.Errorf("of two profiles together: %+v", ours)
	}
}

func TestLargestShareComesFirst(t *testing.T) {
	places := ranked([]share{{"a", 2, 20, 2}, {"b", 0, 0, 0}, {"c", 7, 70, 7}, {"d", 1, 10, 1}})
	if want := []int{2, 0, 3}; !slices.Equal(places, want) {
		t.Errorf("in the order %v, want %v", places, want)
	}
}
