package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/google/pprof/profile"
)

// A layer is a group of functions with one purpose. Each sample of a profile belongs to one layer. Its stack is
// searched from the innermost call outwards, and the first function whose name has a prefix of a layer decides. Other
// functions, such as memory allocation or a system call, belong to their caller. If several layers match a function,
// the first in the table wins.
type layer struct {
	name  string
	short string // for the plot
	names []string
}

const (
	vaultModule = "github.com/hashicorp/vault/"
	ourModule   = "github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth"
)

// runtimeLayer is the Go runtime's work outside of calls. Work within a call, such as allocation, belongs to the
// caller.
var runtimeLayer = layer{"garbage collection and scheduling", "GC and\nscheduling", []string{
	"runtime.bgscavenge", "runtime.bgsweep", "runtime.deductSweepCredit", "runtime.findRunnable", "runtime.gcAssistAlloc",
	"runtime.gcBgMarkWorker", "runtime.gcDrain", "runtime.gcStart", "runtime.gopreempt_m", "runtime.mcall",
	"runtime.mstart", "runtime.schedule", "runtime.sysmon", "runtime.wbBufFlush",
}}

// other is the layer of samples that match no layer.
const other = "other"

// vaultLayers are the layers of Vault's process.
var vaultLayers = []layer{
	runtimeLayer,
	{"JSON of the response", "JSON", []string{vaultModule + "http.respond"}},
	{"HTTP", "HTTP", []string{"net/http.", vaultModule + "http."}},
	{"policies with templates, parsed for each read", "templated\npolicies", []string{vaultModule + "vault.parseACLPolicy", vaultModule + "vault.parsePaths"}},
	{"policy: token, identity, ACL", "policy", []string{
		vaultModule + "vault.(*ACL)", vaultModule + "vault.(*Core).CheckToken", vaultModule + "vault.(*Core).LookupToken",
		vaultModule + "vault.(*Core).PopulateTokenEntry", vaultModule + "vault.(*Core).fetch", vaultModule + "vault.(*Core).performPolicyChecks",
		vaultModule + "vault.(*IdentityStore)", vaultModule + "vault.(*PolicyStore)", vaultModule + "vault.(*TokenStore)",
		vaultModule + "vault.NewACL", vaultModule + "vault.(*Core).GetGroupPolicyApplicationMode",
	}},
	{"audit", "audit", []string{vaultModule + "audit.", vaultModule + "internal/observability/event.", "github.com/hashicorp/eventlogger."}},
	{"gRPC to the plugin", "gRPC", []string{
		"google.golang.org/grpc", "google.golang.org/protobuf", "github.com/hashicorp/go-plugin",
		vaultModule + "builtin/plugin", vaultModule + "sdk/helper/pluginutil", vaultModule + "sdk/plugin", vaultModule + "vault/plugincatalog",
	}},
	{"routing, quotas and the rest of Vault's core", "core", []string{vaultModule + "vault.(*Core)", vaultModule + "vault.(*Router)", vaultModule + "vault/quotas"}},
}

// pluginLayers are the layers of the plugin's process.
var pluginLayers = []layer{
	runtimeLayer,
	{"ours", "ours", []string{ourModule}},
	{"SDK framework", "SDK\nframework", []string{vaultModule + "sdk/framework"}},
	{"JSON of request and answer", "JSON", []string{"encoding/json."}},
	{"SDK's plugin server", "gRPC", []string{vaultModule + "sdk/plugin"}},
	{"TLS and socket of the connection", "gRPC", []string{"crypto/tls.", "internal/poll."}},
	{"gRPC and protobuf", "gRPC", []string{"google.golang.org/grpc", "google.golang.org/protobuf", "golang.org/x/net/http2", "github.com/hashicorp/go-plugin"}},
}

// layerOf returns the name of a sample's layer.
func layerOf(sample *profile.Sample, layers []layer) string {
	runtimeAlone := true
	for _, location := range sample.Location { // the innermost call comes first
		for _, line := range location.Line { // including inlined calls
			if line.Function == nil {
				continue
			}
			function := line.Function.Name
			for _, l := range layers {
				for _, begins := range l.names {
					if strings.HasPrefix(function, begins) {
						return l.name
					}
				}
			}
			runtimeAlone = runtimeAlone && (strings.HasPrefix(function, "runtime.") || strings.HasPrefix(function, "internal/runtime/"))
		}
	}
	if runtimeAlone {
		return runtimeLayer.name
	}
	return other
}

// A share is a layer's part of a profile.
type share struct {
	Layer   string  `json:"layer"`
	Samples int64   `json:"samples,omitempty"` // CPU samples from which the other fields are computed
	Percent float64 `json:"percent"`
	PerRead float64 `json:"per_read"`
}

// attribute divides among the layers a profile's values of the given type, such as "cpu", and the total for a read.
func attribute(p *profile.Profile, valueType string, layers []layer, total float64) ([]share, error) {
	index := indexOf(p, valueType)
	count := indexOf(p, "samples") // only CPU profiles have samples
	if index < 0 {
		return nil, fmt.Errorf("the profile has no values of type %s", valueType)
	}
	values := make(map[string]float64)
	samples := make(map[string]int64)
	var sum float64
	for _, sample := range p.Sample {
		value := float64(sample.Value[index])
		name := layerOf(sample, layers)
		values[name] += value
		if count >= 0 {
			samples[name] += sample.Value[count]
		}
		sum += value
	}
	if sum == 0 {
		return nil, fmt.Errorf("the profile has no samples of type %s", valueType)
	}
	of := func(name string) share {
		return share{name, samples[name], 100 * values[name] / sum, total * values[name] / sum}
	}
	var shares []share
	for _, l := range layers {
		shares = append(shares, of(l.name))
	}
	return append(shares, of(other)), nil
}

// indexOf returns the index of a type of values in a profile's samples, or -1.
func indexOf(p *profile.Profile, valueType string) int {
	for i, t := range p.SampleType {
		if t.Type == valueType {
			return i
		}
	}
	return -1
}

// parse reads a profile. If earlier is set, it subtracts that profile.
func parse(raw, earlier []byte) (*profile.Profile, error) {
	p, err := profile.Parse(bytes.NewReader(raw))
	if err != nil || earlier == nil {
		return p, err
	}
	before, err := profile.Parse(bytes.NewReader(earlier))
	if err != nil {
		return nil, err
	}
	before.Scale(-1)
	return profile.Merge([]*profile.Profile{p, before})
}

// merge combines several profiles.
func merge(raws [][]byte) (*profile.Profile, error) {
	var all []*profile.Profile
	for _, raw := range raws {
		p, err := profile.Parse(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return profile.Merge(all)
}
