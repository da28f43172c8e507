package tokens

import "testing"

// warmEngine returns an engine that holds a token.
func warmEngine(t testing.TB) *Engine {
	t.Helper()
	w := newWorld(t)
	w.latency = 0
	e := w.engine()
	mustRead(t, e, weather)
	return e
}

func TestWarmReadMakesNoGarbage(t *testing.T) {
	e := warmEngine(t)
	made := testing.AllocsPerRun(1000, func() {
		if _, err := e.Read(t.Context(), weather); err != nil {
			t.Fatal(err)
		}
	})
	if made > 0 {
		t.Errorf("a warm read makes %g allocations; want none", made)
	}
}

func BenchmarkWarmRead(b *testing.B) {
	e := warmEngine(b)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Read(ctx, weather); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWarmReadParallel(b *testing.B) {
	e := warmEngine(b)
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := e.Read(ctx, weather); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
