package tokens

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestStatesHasEveryState(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "status.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []State
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "State" {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			declared = append(declared, State(value))
		}
		return false
	})
	got := States()
	slices.Sort(got)
	slices.Sort(declared)
	if len(declared) == 0 || !slices.Equal(got, declared) {
		t.Errorf("States returns %q; the declared states are %q", got, declared)
	}
}

func TestStatusFromStorageShowsOnlyATokenInUse(t *testing.T) {
	story(t, func(t *testing.T, w *world, _ *Engine) {
		first := w.engine()
		mustRead(t, first, weather)
		first.Close()
		e := w.engine()
		want := func(state State) {
			t.Helper()
			status, err := e.Status(t.Context(), weather)
			if err != nil || status.State != state || (status.Token != nil) != (state == StateOK) {
				t.Errorf("got %+v, %v, want %s", status, err, state)
			}
		}
		want(StateOK)
		w.broken["load"] = errStorage
		if _, err := e.Status(t.Context(), weather); !errors.Is(err, errStorage) {
			t.Errorf("got %v, want storage's error", err)
		}
		clear(w.broken)
		w.shapes[weather] = "B"
		want(StateEmpty)
		w.shapes[weather] = "A"
		time.Sleep(2 * time.Hour)
		want(StateEmpty)
		if _, err := e.Status(t.Context(), Name{Server: "nobody"}); !errors.Is(err, ErrNotConfigured) {
			t.Errorf("got %v, want ErrNotConfigured", err)
		}
		w.wantFetches(1)
	})
}

func TestOnlyRefusalsAreReportedAsRefusals(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		for cause, want := range map[string]int{"503": 0, "invalid_client": 1} {
			name := Name{Server: cause}
			w.shapes[name] = "A"
			w.refuse = clientFailures[cause]
			_ = mustFail(t, e, name)
			if status, _ := e.Status(t.Context(), name); status.Failure.Refusals != want || !e.Failing(name) {
				t.Errorf("after %s: %d refusals, want %d", cause, status.Failure.Refusals, want)
			}
		}
		w.refuse = nil
		if mustRead(t, e, weather); e.Failing(weather) {
			t.Error("a name that works is failing")
		}
	})
}

func TestStatusCausesNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world, refreshing *Engine) {
		first := mustRead(t, refreshing, weather)
		time.Sleep(50 * time.Minute)
		n := w.fetches()
		e := w.engine()
		for range 100 {
			if status := wantState(t, e, weather, StateOK); status.Token.ID() == first.ID() {
				t.Fatalf("status %+v; want the stored token's", status)
			}
			time.Sleep(time.Second / 10)
		}
		w.wantFetches(n)
		if e.peek(weather) != nil {
			t.Error("a read of the status loaded the name")
		}
	})
}

func TestEachReportsEveryNameThatIsLoaded(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.roles(e, 5)
		_ = e.slot(Name{Server: "being loaded"})
		seen := map[Name]State{}
		e.Each(func(name Name, status Status) { seen[name] = status.State })
		for _, name := range names {
			if seen[name] != StateOK {
				t.Errorf("%s is reported as %q, want ok", name, seen[name])
			}
		}
		if len(seen) != len(names) {
			t.Errorf("%d names were reported, want %d: %v", len(seen), len(names), seen)
		}
	})
}
