package measure

import (
	"errors"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

func TestStatistics(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for _, row := range []struct {
		name      string
		got, want float64
	}{
		{"odd median", Median(values), 3},
		{"even median", Median(values[:4]), 3},
		{"lowest", Quantile(values, 0), 1},
		{"middle", Quantile(values, 0.5), 3},
		{"p99 of five", Quantile(values, 0.99), 5},
		{"milliseconds", Milliseconds([]time.Duration{time.Second, 1500 * time.Microsecond}, 0.5), 1.5},
	} {
		if row.got != row.want {
			t.Errorf("%s is %v, want %v", row.name, row.got, row.want)
		}
	}
	if !math.IsNaN(Median(nil)) || !math.IsNaN(Quantile(nil, 0.5)) {
		t.Error("an empty list has a median")
	}
}

func TestIntervalHoldsTheMedian(t *testing.T) {
	var values []float64
	for i := range 101 {
		values = append(values, float64(i))
	}
	low, high := Interval(values)
	if low >= 50 || high <= 50 || low < 30 || high > 70 {
		t.Errorf("the median of 0 to 100 lies between %v and %v", low, high)
	}
	if low, high := Interval([]float64{7, 7, 7}); low != 7 || high != 7 {
		t.Errorf("the median of sevens lies between %v and %v", low, high)
	}
}

// The CPU time of this process and its child is counted.
func TestCPU(t *testing.T) {
	burn := exec.Command("sh", "-c", "while :; do :; done")
	bed.OK(t, burn.Start())
	t.Cleanup(func() { _, _ = burn.Process.Kill(), burn.Wait() })
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		own, err := CPU(os.Getpid())
		child, childErr := CPU(burn.Process.Pid)
		tree, treeErr := TreeCPU(os.Getpid())
		bed.OK(t, errors.Join(err, childErr, treeErr))
		if own > 0 && child > 50*time.Millisecond && tree >= own+child {
			return
		}
	}
	t.Error("CPU time of a process and its child did not add up")
}

// Readers keep their connections, send the token, read the paths in turn, and count each read.
func TestReadersReadAndCount(t *testing.T) {
	var served, connections atomic.Int64
	var paths [2]atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		switch {
		case r.Header.Get("X-Vault-Token") != "vault-token":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/v1/a":
			paths[0].Add(1)
		case r.URL.Path == "/v1/b":
			paths[1].Add(1)
		}
		_, _ = w.Write(make([]byte, 5000))
	}))
	server.Config.ConnState = countNew(&connections)
	server.Start()
	defer server.Close()
	var group []*Reader
	for range 3 {
		r := bed.Must(NewReader(t.Context(), server.URL, "vault-token", "v1/a", "v1/b"))(t)
		t.Cleanup(func() { r.Close() })
		group = append(group, r)
	}
	series := bed.Must(Read(t.Context(), 50*time.Millisecond, group[:1], group[1:]))(t)
	counted := 0
	for i, s := range series {
		counted += len(s.Latencies)
		if readers := i + 1; len(s.Latencies) < readers || s.Throughput() <= 0 {
			t.Errorf("%d reads by %d readers in %s", len(s.Latencies), readers, s.Took)
		}
	}
	if int64(counted) != served.Load() || connections.Load() != 3 {
		t.Errorf("%d reads counted and %d served over %d connections", counted, served.Load(), connections.Load())
	}
	if a, b := paths[0].Load(), paths[1].Load(); a < b || a > b+3 {
		t.Errorf("%d reads of one path and %d of the other", a, b)
	}
}

func TestRefusedReadIsAnError(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	r := bed.Must(NewReader(t.Context(), server.URL, "vault-token", "v1/a"))(t)
	defer r.Close()
	if _, err := Read(t.Context(), time.Minute, []*Reader{r}); err == nil {
		t.Error("a 404 counted as a read")
	}
}

func countNew(n *atomic.Int64) func(conn net.Conn, state http.ConnState) {
	return func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			n.Add(1)
		}
	}
}
