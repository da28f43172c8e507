// Package measure runs readers of a Vault and computes figures of their reads.
package measure

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// A Reader makes reads over one kept connection, one after another. It uses little CPU: requests are made in advance,
// and answers are only parsed as HTTP.
type Reader struct {
	conn     net.Conn
	in       *bufio.Reader
	requests [][]byte
	next     int
}

// NewReader connects to a Vault at address, a base URL without TLS. The reader reads the paths in turn, such as
// "v1/secret/data/x", with the Vault token.
func NewReader(ctx context.Context, address, token string, paths ...string) (*Reader, error) {
	base, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	r := new(Reader)
	for _, path := range paths {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath(path).String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("X-Vault-Token", token)
		var raw bytes.Buffer
		if err := req.Write(&raw); err != nil {
			return nil, err
		}
		r.requests = append(r.requests, raw.Bytes())
	}
	r.conn, err = new(net.Dialer).DialContext(ctx, "tcp", base.Host)
	if err != nil {
		return nil, err
	}
	r.in = bufio.NewReader(r.conn)
	return r, nil
}

// Close closes the connection.
func (r *Reader) Close() error { return r.conn.Close() }

// Read makes one read. A status other than 200 is an error.
func (r *Reader) Read() error {
	raw := r.requests[r.next]
	r.next = (r.next + 1) % len(r.requests)
	if _, err := r.conn.Write(raw); err != nil {
		return err
	}
	resp, err := http.ReadResponse(r.in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("a read was answered with %s", resp.Status)
	}
	return nil
}

// A Series holds the reads of one group of readers in one round.
type Series struct {
	Latencies []time.Duration // of all reads, unordered
	Took      time.Duration
}

// Throughput returns the reads per second.
func (s Series) Throughput() float64 { return float64(len(s.Latencies)) / s.Took.Seconds() }

// Read lets groups of readers read concurrently for a time, or until ctx ends, and returns a series for each group.
// Each reader makes at least one read.
func Read(ctx context.Context, duration time.Duration, groups ...[]*Reader) ([]Series, error) {
	begun := time.Now() // before the timer starts, so that no series takes less than duration
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	var (
		work   sync.WaitGroup
		mu     sync.Mutex // guards the fields below
		failed error
	)
	series := make([]Series, len(groups))
	for i, group := range groups {
		for _, r := range group {
			work.Go(func() {
				latencies, err := r.until(ctx)
				if err != nil {
					cancel()
				}
				mu.Lock()
				defer mu.Unlock()
				failed = errors.Join(failed, err)
				series[i].Latencies = append(series[i].Latencies, latencies...)
				series[i].Took = max(series[i].Took, time.Since(begun))
			})
		}
	}
	work.Wait()
	return series, failed
}

// until reads until ctx ends. It finishes and counts the last read, so that the figures include slow reads.
func (r *Reader) until(ctx context.Context) ([]time.Duration, error) {
	var latencies []time.Duration
	for over := false; !over; over = ctx.Err() != nil {
		begun := time.Now()
		if err := r.Read(); err != nil {
			return nil, err
		}
		latencies = append(latencies, time.Since(begun))
	}
	return latencies, nil
}
