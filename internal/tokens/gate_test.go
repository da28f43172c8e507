package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFetchesAreBoundedPerHost(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.latency = 300 * time.Millisecond // so short that readers wait in the queue
		names := w.servers(100, "as.example.com")
		parallel(len(names), func(i int) { wantRead(t, e, names[i]) })
		if w.mostFly != hostFetches {
			t.Errorf("%d fetches at once, want %d", w.mostFly, hostFetches)
		}
		if e.gates.hosts.len() != 0 {
			t.Errorf("%d unused hosts are in memory", e.gates.hosts.len())
		}
	})
}

func TestHangingHostsStallNoOtherHost(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.latency = 0
		for i, name := range w.servers(200, "") { // twenty names on each of ten hanging hosts
			host := fmt.Sprint("hang", i%10)
			w.with(func(w *world) { w.hosts[name], w.hanging[host] = host, true })
			_ = reading(t, e, name)
		}
		synctest.Wait()
		before := time.Now()
		mustRead(t, e, weather)
		if waited := time.Since(before); waited != 0 {
			t.Errorf("a reader of another host waited %s", waited)
		}
	})
}

// While refreshes at ten hosts hang or queue, readers get each held token at once, and tokens of other hosts are
// refreshed on time.
func TestRefreshesAtTenHangingHostsMakeNoReaderWait(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		const hosts, perHost, others = 10, 20, 50
		w.latency = 0
		names := w.servers(hosts*perHost+others, "as.example.com")
		ill, well := names[:hosts*perHost], names[hosts*perHost:]
		for i, name := range ill {
			w.hosts[name] = fmt.Sprint("hang", i%hosts)
		}
		held := map[Name]Answer{}
		for _, name := range names {
			held[name] = mustRead(t, e, name)
		}
		w.with(func(w *world) {
			for i := range hosts {
				w.hanging[fmt.Sprint("hang", i)] = true
			}
		})

		underWay := 0
		for end := held[well[0]].Expires; time.Until(end) > time.Second; time.Sleep(5 * time.Second) {
			synctest.Wait() // all refreshes due now have begun
			begun := time.Now()
			for _, name := range ill {
				wantToken(t, e, name, held[name].ID())
			}
			for _, name := range well {
				was, got := held[name], mustRead(t, e, name)
				if refreshed, due := got.ID() != was.ID(), !was.RefreshAt.After(begun); refreshed != due {
					t.Fatalf("%s: refreshed %t, due %t", name, refreshed, due)
				}
				held[name] = got
			}
			if waited := time.Since(begun); waited != 0 {
				t.Fatalf("readers waited %s", waited)
			}
			w.with(func(w *world) { underWay = max(underWay, w.flying) })
		}
		// Background work may use three quarters of each host's places.
		if want := hosts * hostFetches * 3 / 4; underWay != want {
			t.Errorf("at most %d refreshes were under way, want %d", underWay, want)
		}
	})
}

// Many refreshes queued at a slow host do not delay a cold reader.
func TestAWaitingReaderGoesBeforeBackgroundWork(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		const names = 200
		all := w.servers(names+1, "as.example.com")
		cold := all[names]
		parallel(names, func(i int) { wantRead(t, e, all[i]) })
		w.with(func(w *world) { w.latency = 4 * time.Second })
		time.Sleep(45 * time.Minute) // all refreshes are due or queued
		before := time.Now()
		mustRead(t, e, cold)
		if waited := time.Since(before); waited != 4*time.Second {
			t.Errorf("the cold reader waited %s, want one fetch's 4 s", waited)
		}
		if n := w.fetches(); n > 2*names-20 {
			t.Errorf("%d fetches, too few for a queue", n)
		}
		before = time.Now()
		if _, err := e.Verify(t.Context(), weather, w.terms(cold, "B")); err != nil || time.Since(before) != 4*time.Second {
			t.Errorf("a verification waited %s, %v, want one fetch's 4 s", time.Since(before), err)
		}
	})
}

// If readers hold all places, the next reader goes before queued background work.
func TestReaderGoesBeforeRefreshesThatQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const host = "as.example.com"
		g := newGates()
		var leave [hostFetches]func()
		for i := range leave {
			var err error
			if leave[i], _, err = g.enter(t.Context(), host, awaited(true)); err != nil {
				t.Fatal(err)
			}
		}
		entered := make(chan string, hostFetches)
		queue := func(who string, awaited *atomic.Bool) {
			go func() {
				leave, _, err := g.enter(t.Context(), host, awaited)
				if err != nil {
					t.Error(err)
					return
				}
				entered <- who
				leave()
			}()
			synctest.Wait()
		}
		second := awaited(false)
		queue("refresh 1", awaited(false))
		queue("refresh 2", second)
		queue("refresh 3", awaited(false))
		queue("reader", awaited(true))
		second.Store(true) // a caller now waits for refresh 2
		leave[0]()         // all pass through this one place
		synctest.Wait()
		close(entered)
		var got []string
		for who := range entered {
			got = append(got, who)
		}
		slices.Sort(got[2:]) // the order after the first two is random
		if want := []string{"refresh 2", "reader", "refresh 1", "refresh 3"}; !slices.Equal(got, want) {
			t.Errorf("entered: %q, want %q", got, want)
		}
		for _, leave := range leave[1:] {
			leave()
		}
		if g.hosts.len() != 0 {
			t.Errorf("%d unused hosts are in memory", g.hosts.len())
		}
	})
}

// While a fetch waits for its turn, Vault or the config may disappear.
func TestQueuedFetchLooksIntoStorageAgain(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.latency = 3 * time.Second
		var failed <-chan error // of the last name
		for _, name := range w.servers(hostFetches+1, "as.example.com") {
			failed = reading(t, e, name)
			synctest.Wait()
		}
		w.with(func(w *world) { w.broken["terms"] = errStorage })
		if err := <-failed; !errors.Is(err, errStorage) {
			t.Errorf("got %v, want storage's error", err)
		}
		w.wantFetches(hostFetches)
	})
}

// A failed write may take effect while a fetch waits for its turn.
func TestQueuedFetchAsksOnTheTermsOfItsTurn(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.occupyHost(e, time.Second)
		got := wantReadLater(t, e, weather)
		synctest.Wait()
		w.with(func(w *world) { w.shapes[weather] = "B" })
		wantAnswer(t, <-got, "B")
		w.wantCalls("load", hostFetches+1)
	})
}

// If a token ends and a reader waits for its queued background refresh, the refresh is promoted.
func TestAReaderPromotesAQueuedRefresh(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime, w.latency = time.Minute, 0
		names := w.servers(400, "as.example.com")
		parallel(len(names), func(i int) { wantRead(t, e, names[i]) })
		w.with(func(w *world) { w.latency = 9 * time.Second })
		time.Sleep(time.Minute) // 400 refreshes, 6 per 9 s: all tokens have ended, and most refreshes still queue
		name := names[slices.IndexFunc(names, func(n Name) bool { return !e.peek(n).held.Load().ValidAt(time.Now()) })]
		before := time.Now()
		for {
			_, err := e.Read(t.Context(), name)
			if _, isWait := errors.AsType[*WaitError](err); !isWait {
				break // the error asks the caller to read again
			}
		}
		mustRead(t, e, name)
		if waited := time.Since(before); waited > 10*time.Second {
			t.Errorf("a reader of a queued name waited %s", waited)
		}
	})
}

// A caller that gives up returns its places, both at the host and in total.
func TestQueuesThatAreGivenUpLeaveTheirPlacesFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 4
		g := &gates{all: newGate(places), hosts: newShared(func() *gate { return newGate(places) }, nil)}
		live := t.Context()
		enter := func(awaited *atomic.Bool, host string) func() {
			t.Helper()
			leave, waited, err := g.enter(live, host, awaited)
			if err != nil || waited {
				t.Fatalf("entering %s: %v, waited %t", host, err, waited)
			}
			return leave
		}
		giveUp := func(awaited *atomic.Bool, host string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(live, time.Second)
			defer cancel()
			if _, _, err := g.enter(ctx, host, awaited); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("entering %s: %v, want the error of the deadline", host, err)
			}
		}
		reader, background := awaited(true), awaited(false)
		var leaves []func()
		for range places - 1 {
			leaves = append(leaves, enter(background, "a"))
		}
		leaves = append(leaves, enter(reader, "b"))
		for range places {
			giveUp(background, "a")
			giveUp(reader, "b")
			giveUp(background, "c")
			giveUp(reader, "c")
		}
		for host, by := range map[string]*atomic.Bool{"b": reader, "c": background} {
			time.AfterFunc(time.Second, leaves[0])
			leaves = leaves[1:]
			ctx, cancel := context.WithTimeout(live, time.Minute)
			leave, waited, err := g.enter(ctx, host, by)
			cancel()
			if err != nil || !waited {
				t.Fatalf("entering %s after a queue: %v, waited %t", host, err, waited)
			}
			leaves = append(leaves, leave)
		}
		for _, leave := range leaves {
			leave()
		}
		if n := g.hosts.len(); n != 0 {
			t.Errorf("%d hosts are left", n)
		}
		for range places {
			enter(background, "a")
		}
	})
}

func awaited(by bool) *atomic.Bool {
	a := new(atomic.Bool)
	a.Store(by)
	return a
}

func TestGateLetsReadersPassBackgroundWorkThatQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 4
		g := newGate(places)
		live := t.Context()
		var entered []string
		enter := func(ctx context.Context, name string, awaited *atomic.Bool) {
			go func() {
				waited, err := g.enter(ctx, awaited)
				if err == nil && !waited {
					t.Errorf("%s did not wait", name)
				}
				if err == nil {
					entered = append(entered, name)
				}
			}()
			synctest.Wait()
		}
		for range places {
			if _, err := g.enter(live, awaited(true)); err != nil {
				t.Fatal(err)
			}
		}
		shortly, cancel := context.WithTimeout(live, time.Second)
		defer cancel()
		for range places {
			enter(shortly, "given up", awaited(false))
		}
		enter(live, "background", awaited(false))
		enter(live, "reader", awaited(true))
		time.Sleep(time.Minute)
		if len(entered) != 0 {
			t.Errorf("%q entered a gate that was full", entered)
		}
		promoted := awaited(false)
		for range 3 {
			enter(live, "promoted", promoted)
		}
		promoted.Store(true)
		for range places + 1 {
			g.permits.Release(1)
			synctest.Wait()
		}
		if want := []string{"reader", "promoted", "promoted", "promoted", "background"}; !slices.Equal(entered, want) {
			t.Errorf("%q entered, want %q", entered, want)
		}
	})
}
