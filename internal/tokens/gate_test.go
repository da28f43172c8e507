package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestFetchesAreBoundedPerHost(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.latency = 300 * time.Millisecond // short enough for readers to wait in the queue
		names := w.servers(100, "as.example.com")
		parallel(len(names), func(i int) { mustRead(t, e, names[i]) })
		if w.mostFly != hostFetches {
			t.Errorf("%d fetches at once, want %d", w.mostFly, hostFetches)
		}
		if e.gates.hosts.len() != 0 {
			t.Errorf("%d hosts are kept without use", e.gates.hosts.len())
		}
	})
}

func TestHangingHostsStallNobodyElse(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.latency = 0
		for i, name := range w.servers(200, "") { // twenty names on each of ten hosts that hang
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

// While every refresh at ten hosts hangs or queues, the held token of each name is read at once, and
// tokens of other hosts are refreshed on time.
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
			synctest.Wait() // what is due at this instant has begun
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
		// Three quarters of each host's places are for background work.
		if want := hosts * hostFetches * 3 / 4; underWay != want {
			t.Errorf("at most %d refreshes were under way, want %d", underWay, want)
		}
	})
}

// With many refreshes queued at a slow host, a cold reader is served as if there were none.
func TestAWaitingReaderGoesBeforeBackgroundWork(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		const names = 200
		all := w.servers(names+1, "as.example.com")
		cold := all[names]
		parallel(names, func(i int) { mustRead(t, e, all[i]) })
		w.with(func(w *world) { w.latency = 4 * time.Second })
		time.Sleep(45 * time.Minute) // all are due or queued
		before := time.Now()
		mustRead(t, e, cold)
		if waited := time.Since(before); waited != 4*time.Second {
			t.Errorf("the cold reader waited %s, want one fetch's 4 s", waited)
		}
		if n := w.fetches(); n > 2*names-20 {
			t.Errorf("%d fetches: there was no queue", n)
		}
		before = time.Now()
		if _, err := e.Verify(t.Context(), weather, w.terms(cold, "B")); err != nil || time.Since(before) != 4*time.Second {
			t.Errorf("a verification waited %s, %v, want one fetch's 4 s", time.Since(before), err)
		}
	})
}

// Readers may hold all places, and the next one finds background work in the queue.
func TestReaderGoesBeforeRefreshesThatQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const host = "as.example.com"
		g := newGates()
		waitedFor, promote := context.WithCancel(t.Context())
		promote()
		var leave [hostFetches]func()
		for i := range leave {
			var err error
			if leave[i], _, err = g.enter(t.Context(), waitedFor, host); err != nil {
				t.Fatal(err)
			}
		}
		entered := make(chan string, hostFetches)
		queue := func(who string, background context.Context) {
			go func() {
				leave, _, err := g.enter(t.Context(), background, host)
				if err != nil {
					t.Error(err)
					return
				}
				entered <- who
				leave()
			}()
			synctest.Wait()
		}
		background, promoteLast := context.WithCancel(t.Context())
		queue("refresh 1", t.Context())
		queue("refresh 2", background)
		queue("refresh 3", t.Context())
		queue("reader", waitedFor)
		promoteLast() // a caller waits for refresh 2
		leave[0]()    // one place, which all take in turn
		synctest.Wait()
		close(entered)
		var got []string
		for who := range entered {
			got = append(got, who)
		}
		slices.Sort(got[2:]) // the order of those that passed their place on is chance
		if want := []string{"refresh 2", "reader", "refresh 1", "refresh 3"}; !slices.Equal(got, want) {
			t.Errorf("entered: %q, want %q", got, want)
		}
		for _, leave := range leave[1:] {
			leave()
		}
		if g.hosts.len() != 0 {
			t.Errorf("%d hosts are kept without use", g.hosts.len())
		}
	})
}

// Vault may have gone, and the config with it, while a fetch waited for its turn.
func TestQueuedFetchLooksIntoStorageAgain(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.latency = 3 * time.Second
		var failed <-chan error // of the last one
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

// A write that has failed may take effect while a fetch waits for its turn.
func TestQueuedFetchAsksOnTheTermsOfItsTurn(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.occupyHost(e, time.Second)
		got := mustReadLater(t, e, weather)
		synctest.Wait()
		w.with(func(w *world) { w.shapes[weather] = "B" })
		wantAnswer(t, <-got, "B")
		w.wantCalls("load", hostFetches+1)
	})
}

// A refresh that queues in the background is promoted when its token ends and a reader waits for it.
func TestAReaderPromotesAQueuedRefresh(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime, w.latency = time.Minute, 0
		names := w.servers(400, "as.example.com")
		parallel(len(names), func(i int) { mustRead(t, e, names[i]) })
		w.with(func(w *world) { w.latency = 9 * time.Second })
		time.Sleep(time.Minute) // 400 refreshes at 6 in 9 s: most still queue, all tokens have ended
		for _, name := range names {
			if e.peek(name).held.Load().ValidAt(time.Now()) {
				continue
			}
			before := time.Now()
			for {
				_, err := e.Read(t.Context(), name)
				if _, isWait := errors.AsType[*WaitError](err); !isWait {
					break // as the error says: read again
				}
			}
			mustRead(t, e, name)
			if waited := time.Since(before); waited > 10*time.Second {
				t.Errorf("a reader of a queued name waited %s", waited)
			}
			return
		}
		t.Fatal("no token had ended")
	})
}

// What is given up gives back what it had: at the host, over all and in the background.
func TestQueuesThatAreGivenUpLeaveTheirPlacesFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 4
		g := &gates{all: newGate(places), hosts: newShared(func() *gate { return newGate(places) }, nil)}
		live := t.Context()
		reader, promote := context.WithCancel(live)
		promote()
		enter := func(ctx, background context.Context, host string) func() {
			t.Helper()
			leave, waited, err := g.enter(ctx, background, host)
			if err != nil || waited {
				t.Fatalf("entering %s: %v, waited %t", host, err, waited)
			}
			return leave
		}
		giveUp := func(background context.Context, host string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(live, time.Second)
			defer cancel()
			if _, _, err := g.enter(ctx, background, host); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("entering %s: %v, want that the deadline ended it", host, err)
			}
		}
		var leaves []func()
		for range places - 1 {
			leaves = append(leaves, enter(live, live, "a"))
		}
		giveUp(live, "a") // the places for background work are taken, another one is free
		leaves = append(leaves, enter(live, reader, "b"))
		for range places {
			giveUp(reader, "b")
			giveUp(live, "c")
			giveUp(reader, "c")
		}
		for host, background := range map[string]context.Context{"b": reader, "c": live} {
			time.AfterFunc(time.Second, leaves[0])
			leaves = leaves[1:]
			ctx, cancel := context.WithTimeout(live, time.Minute)
			leave, waited, err := g.enter(ctx, background, host)
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
		for range places - 1 {
			enter(live, live, "a")
		}
		enter(live, reader, "a")
	})
}

func TestGateLetsReadersPassBackgroundWorkThatQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 4
		g := newGate(places)
		live := t.Context()
		reader, promote := context.WithCancel(live)
		promote()
		var entered []string
		enter := func(ctx context.Context, name string, background context.Context) {
			go func() {
				_, waited, err := g.enter(ctx, background)
				if err == nil && !waited {
					t.Errorf("%s did not wait", name)
				}
				if err == nil {
					entered = append(entered, name)
				}
			}()
			synctest.Wait()
		}
		var leaves []func()
		for range places {
			leave, _, err := g.enter(live, reader)
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, leave)
		}
		shortly, cancel := context.WithTimeout(live, time.Second)
		defer cancel()
		for range places {
			enter(shortly, "given up", live)
		}
		promoted, promote := context.WithCancel(live)
		enter(live, "background", live)
		enter(live, "reader", reader)
		time.Sleep(time.Minute)
		if len(entered) != 0 {
			t.Errorf("%q entered a gate that was full", entered)
		}
		for range 3 { // the places in the background are free again, but for one
			enter(live, "promoted", promoted)
		}
		promote()
		for _, leave := range leaves[:2] {
			leave()
			synctest.Wait()
		}
		if len(entered) != 2 || entered[0] != "reader" || entered[1] == "given up" {
			t.Errorf("%q entered, want the reader first", entered)
		}
		for _, leave := range leaves[2:] {
			leave()
			synctest.Wait()
		}
		if len(entered) != places {
			t.Errorf("%q entered, want %d", entered, places)
		}
		g.any.Release(1) // one of them leaves
		synctest.Wait()
		if len(entered) != places+1 {
			t.Errorf("%q entered in the end", entered)
		}
	})
}
