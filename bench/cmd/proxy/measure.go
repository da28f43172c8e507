package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// connections are the numbers of connections to measure.
var connections = []int{1, 64}

// results are all measured figures.
type results struct {
	Options options      `json:"options"`
	Cases   []throughput `json:"throughput"`
	Idle    float64      `json:"idle_mib"`    // resident memory of mcp-token-proxy before the streams
	Streams float64      `json:"streams_mib"` // with the streams open
	Peak    float64      `json:"peak_mib"`    // peak until the streams are open
	Bare    float64      `json:"bare_streams_mib"`
}

// throughput has the figures for one number of connections.
type throughput struct {
	Connections int       `json:"connections"`
	Bare        []float64 `json:"bare"` // calls per second in each round
	Token       []float64 `json:"token"`
	Ratios      []float64 `json:"ratios"` // by round
	Ratio       float64   `json:"ratio"`  // their median
	Low         float64   `json:"low"`    // 95 % confidence interval of the median
	High        float64   `json:"high"`
	BareCPU     float64   `json:"bare_cpu_us"` // CPU time of the proxy per call, in microseconds
	TokenCPU    float64   `json:"token_cpu_us"`
}

func (s *stage) measure(ctx context.Context, o options) (*results, error) {
	r := &results{Options: o}
	idle, err := measure.MemoryOf(s.token.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	r.Idle = mebibytes(idle.Resident)
	for _, p := range []*process{s.bare, s.token} {
		mib, peak, err := s.withStreams(ctx, p, o.Streams)
		if err != nil {
			return nil, err
		}
		if p == s.bare {
			r.Bare = mib
		} else {
			r.Streams, r.Peak = mib, peak
		}
	}
	for _, n := range connections {
		t := throughput{Connections: n}
		var bareCPU, tokenCPU []float64
		for range o.Rounds {
			// The order A B B A makes a drift of the machine's speed affect both alike.
			var turns [4]turn
			for i, p := range []*process{s.bare, s.token, s.token, s.bare} {
				if turns[i], err = p.turn(ctx, n, o.Duration); err != nil {
					return nil, err
				}
			}
			bare, token := (turns[0].rate+turns[3].rate)/2, (turns[1].rate+turns[2].rate)/2
			t.Bare, t.Token, t.Ratios = append(t.Bare, bare), append(t.Token, token), append(t.Ratios, token/bare)
			bareCPU, tokenCPU = append(bareCPU, turns[0].cpu, turns[3].cpu), append(tokenCPU, turns[1].cpu, turns[2].cpu)
		}
		t.BareCPU, t.TokenCPU = measure.Median(bareCPU), measure.Median(tokenCPU)
		t.Ratio = measure.Median(t.Ratios)
		t.Low, t.High = measure.Interval(t.Ratios)
		r.Cases = append(r.Cases, t)
	}
	return r, nil
}

// A turn is one measurement of one proxy.
type turn struct {
	rate float64 // calls per second
	cpu  float64 // CPU time of the proxy per call, in microseconds
}

func (p *process) turn(ctx context.Context, n int, duration time.Duration) (turn, error) {
	before, err := measure.CPU(p.cmd.Process.Pid)
	if err != nil {
		return turn{}, err
	}
	count, elapsed, err := calls(ctx, p.url, n, duration)
	if err != nil {
		return turn{}, err
	}
	after, err := measure.CPU(p.cmd.Process.Pid)
	return turn{count / elapsed.Seconds(), float64((after - before).Microseconds()) / count}, err
}

// calls makes calls on n connections for a duration, and returns their number and the time they took.
func calls(ctx context.Context, url string, n int, duration time.Duration) (float64, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, duration+10*time.Second)
	defer cancel()
	var count atomic.Int64
	var failed atomic.Value
	var all sync.WaitGroup
	transport := &http.Transport{MaxIdleConnsPerHost: n, DisableCompression: true}
	defer transport.CloseIdleConnections()
	begun := time.Now()
	for range n {
		all.Go(func() {
			for time.Since(begun) < duration {
				if err := callOnce(ctx, transport, url); err != nil {
					failed.Store(err)
					return
				}
				count.Add(1)
			}
		})
	}
	all.Wait()
	if err, ok := failed.Load().(error); ok {
		return 0, 0, err
	}
	return float64(count.Load()), time.Since(begun), nil
}

func callOnce(ctx context.Context, transport http.RoundTripper, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(call))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json, text/event-stream")
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if n, err := io.Copy(io.Discard, response.Body); err != nil || int(n) != len(answer) || response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d, %d bytes, %w", response.StatusCode, n, errors.Join(err, errors.New("want the whole answer")))
	}
	return nil
}

// withStreams opens n streams through a proxy, and returns its resident memory with the streams and its peak, in MiB.
func (s *stage) withStreams(ctx context.Context, p *process, n int) (mib, peak float64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true, ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10}}
	var streams []io.Closer
	defer func() {
		for _, stream := range streams {
			stream.Close()
		}
	}()
	for range n {
		stream, err := openStream(ctx, client, p.url)
		if err != nil {
			return 0, 0, err
		}
		streams = append(streams, stream)
	}
	m, err := measure.MemoryOf(p.cmd.Process.Pid)
	return mebibytes(m.Resident), mebibytes(m.Peak), err
}

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }
