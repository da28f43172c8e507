package tokens

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The worker sleeps until a task is due. A task added meanwhile may be due earlier.
func TestTasksAreDoneWhenTheyAreDue(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		begun := time.Now()
		done := map[string]time.Duration{}
		add := func(key string, after time.Duration) {
			e.Retry(key, begun.Add(after), "task failed", func(context.Context) error {
				done[key] = time.Since(begun)
				return nil
			})
		}
		want := map[string]time.Duration{"a": 30 * time.Minute, "b": 10 * time.Minute, "c": 20 * time.Minute, "d": 0, "e": 3 * time.Hour}
		for _, key := range []string{"a", "b", "c", "d", "e"} {
			add(key, want[key])
			synctest.Wait()
		}
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		synctest.Wait() // orders the worker's writes before the reads below
		for key, at := range want {
			if got, ok := done[key]; !ok || got != at {
				t.Errorf("task %s: done %t after %s, want %s", key, ok, got, at)
			}
		}
		if n := e.retries.len(); n != 0 {
			t.Errorf("%d tasks are left", n)
		}
	})
}

// A task added during its run runs once more, at its own time.
func TestTaskThatIsReplacedWhileItRunsIsDoneAgain(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		var runs atomic.Int64
		var task func(context.Context) error
		task = func(context.Context) error {
			if runs.Add(1) == 1 {
				e.Retry("key", time.Now().Add(time.Hour), "task failed", task)
				return errors.New("the replaced task's failure")
			}
			return nil
		}
		e.Retry("key", time.Now(), "task failed", task)
		time.Sleep(59 * time.Minute)
		if n := runs.Load(); n != 1 {
			t.Errorf("%d runs before the second one is due", n)
		}
		time.Sleep(2 * time.Minute)
		if n := runs.Load(); n != 2 {
			t.Errorf("%d runs, want 2", n)
		}
	})
}

// len is the number of remaining tasks.
func (r *retries) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.tasks)
}
