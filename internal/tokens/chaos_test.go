package tokens

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// Everything happens concurrently to a few names, while storage and the authorization server sometimes fail. Readers
// never get an expired token, every name keeps a timer, and all names recover.
func TestChaos(t *testing.T) {
	for seed := range uint64(10) {
		story(t, func(t *testing.T, w *world, e *Engine) {
			w.lifetime, w.latency, w.idle = 20*time.Second, 300*time.Millisecond, 30*time.Second
			names := []Name{weather, {"weather", "a"}, {"weather", "b"}, {Server: "other"}}
			for _, n := range names {
				w.shapes[n] = "0"
			}
			var wg sync.WaitGroup
			stop := time.Now().Add(10 * time.Minute)
			for g := range 12 {
				r := rand.New(rand.NewPCG(seed, uint64(g)))
				wg.Go(func() {
					for k := 0; time.Now().Before(stop); k++ {
						n := names[r.IntN(len(names))]
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(3000))*time.Millisecond)
						switch r.IntN(24) {
						case 0:
							_ = e.Change(ctx, n, Change{Terms: w.Terms, Refresh: r.IntN(2) == 0, Write: func(context.Context) error {
								w.with(func(w *world) { w.shapes[n] = fmt.Sprint(k % 3) })
								return nil
							}})
						case 1:
							_ = e.Change(ctx, n, w.remove(n))
						case 2:
							w.with(func(w *world) { w.shapes[n] = fmt.Sprint(k % 3) })
							e.Invalidate(n)
						case 3:
							w.with(func(w *world) { w.refuse = nil })
						case 4:
							if r.IntN(3) == 0 {
								w.with(func(w *world) { w.refuse = &grant.UnavailableError{Status: 503} })
							}
						case 5:
							w.with(func(w *world) { delete(w.broken, "terms"); delete(w.broken, "save"); delete(w.broken, "load") })
						case 6:
							if r.IntN(3) == 0 {
								w.with(func(w *world) { w.broken[[]string{"terms", "save", "load"}[r.IntN(3)]] = errors.New("away") })
							}
						case 7:
							_, _, _ = e.Refresh(ctx, n, "")
						case 8:
							_, _ = e.Status(ctx, n)
						case 9:
							w.mu.Lock()
							terms := w.terms(n, w.shapes[n])
							w.mu.Unlock()
							token, err := e.Verify(ctx, weather, terms)
							if err == nil {
								_ = e.Change(ctx, n, Change{Token: token, Terms: w.written(n, terms), Refresh: true, Write: func(context.Context) error {
									w.with(func(w *world) { w.shapes[n] = terms.Shape })
									return nil
								}})
							}
						case 10:
							w.with(func(w *world) { w.sameID = !w.sameID })
						default:
							a, err := e.Read(ctx, n)
							if err == nil && !a.ValidAt(time.Now()) {
								t.Errorf("seed %d: an expired token was handed out", seed)
							}
						}
						cancel()
						time.Sleep(time.Duration(r.IntN(800)) * time.Millisecond)
					}
				})
			}
			// These invariants always hold.
			wg.Go(func() {
				for time.Now().Before(stop) {
					time.Sleep(97 * time.Millisecond)
					e.slots.Range(func(k, v any) bool {
						s := v.(*slot)
						unlock, err := e.lock(t.Context(), s.name.Server) // a write publishes its token before it sets the timer
						if err != nil {
							t.Error(err)
							return false
						}
						defer unlock()
						s.mu.Lock()
						now := time.Now()
						h := s.held.Load()
						if s.gone && e.peek(s.name) == s {
							t.Errorf("seed %d: %v was deleted and is still in memory", seed, s.name)
						}
						if h.ValidAt(now) && s.flight.Load() == nil && s.timer == nil && !s.view(now, h, false).leftToExpire() {
							t.Errorf("seed %d: %v valid token, no timer, no flight, not idle; failed=%v", seed, s.name, s.failed.Load())
						}
						s.mu.Unlock()
						return true
					})
				}
			})
			wg.Wait()
			w.with(func(w *world) {
				w.refuse = nil
				clear(w.broken)
				w.sameID = false
				for _, n := range names {
					w.shapes[n] = "9"
				}
			})
			for _, n := range names {
				mustChange(t, e, n, w.reshape(n, "9"))
			}
			for range 100 {
				for _, n := range names {
					wantShape(t, e, n, "9")
				}
				time.Sleep(time.Second)
			}
			if hosts, clients, locks := e.gates.hosts.len(), e.clients.len(), e.locks.len(); hosts > 1 || clients > len(names) || locks > len(names) {
				t.Errorf("seed %d: %d hosts, %d clients and %d locks are kept", seed, hosts, clients, locks)
			}
			e.Close()
			atRest(t, e, fmt.Sprintf("seed %d: after the end", seed))
			slots := 0
			e.slots.Range(func(_, _ any) bool { slots++; return true })
			if slots != len(names) {
				t.Errorf("seed %d: %d slots for %d names", seed, slots, len(names))
			}
		})
	}
}
