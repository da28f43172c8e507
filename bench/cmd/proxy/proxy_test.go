package main

import (
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// All figures are present and plausible. A run this short cannot show more.
func TestMeasure(t *testing.T) {
	s := bed.Must(newStage(t.Context()))(t)
	defer s.close()
	r := bed.Must(s.measure(t.Context(), options{Rounds: 2, Duration: 50 * time.Millisecond, Streams: 50}))(t)
	if len(r.Cases) != len(connections) {
		t.Fatalf("%d cases, want %d", len(r.Cases), len(connections))
	}
	for _, c := range r.Cases {
		if len(c.Ratios) != 2 || c.Ratio <= 0 || c.Low > c.Ratio || c.High < c.Ratio || c.BareCPU <= 0 || c.TokenCPU <= 0 {
			t.Errorf("%d connections: %+v", c.Connections, c)
		}
	}
	if r.Idle <= 0 || r.Streams <= r.Idle || r.Peak < r.Streams || r.Bare <= 0 {
		t.Errorf("memory: %+v", r)
	}
}
