package tokens

import (
	"context"
	"sync"
	"time"
)

// retries repeats what storage still owes until it is done: tokens to be saved or loaded, terms
// to be read after a write that failed, key sets. One task runs at a time, so that storage that
// hangs holds one goroutine and one server's write lock.
type retries struct {
	mu      sync.Mutex // guards the fields below; never held across a task
	tasks   map[any]*retryTask
	running bool
	// changed wakes the worker: a task may be due earlier than it knows.
	changed chan struct{}
}

// retryTask is one thing that storage owes.
type retryTask struct {
	complaint string // the log's line when it fails
	do        func(context.Context) error
	at        time.Time // when it is to be done
	failures  int       // in a row
}

func newRetries() *retries {
	return &retries{tasks: map[any]*retryTask{}, changed: make(chan struct{}, 1)}
}

// Retry does a task in the background at the given time, and again until it succeeds or the
// engine is closed. A task of the same key, which must be comparable, is replaced.
func (e *Engine) Retry(key any, at time.Time, complaint string, do func(context.Context) error) {
	r := e.retries
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tasks[key] = &retryTask{complaint: complaint, do: do, at: at}
	if !r.running {
		r.running = e.spawn(e.runRetries)
		return
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// LateCommit is for how long a write that failed may still take effect: storage that ran out
// of time may be waiting for other nodes yet. Vault's raft does; but a leader that does not
// reach them steps down within a few seconds, and then another node's mount is at work.
const LateCommit = 15 * time.Second

// RetryAfterFailedWrite is Retry for a look at what a write that failed has left: as soon as
// storage answers, and once more when the write can no longer take effect.
func (e *Engine) RetryAfterFailedWrite(key any, complaint string, look func(context.Context) error) {
	final := time.Now().Add(LateCommit)
	e.Retry(key, time.Now(), complaint, func(ctx context.Context) error {
		began := time.Now()
		if err := look(ctx); err != nil || !began.Before(final) {
			return err
		}
		e.Retry(key, final, complaint, look)
		return nil
	})
}

// runRetries works until no task is left or the engine is closed.
func (e *Engine) runRetries() {
	r := e.retries
	for e.ctx.Err() == nil {
		due, wait, done := r.due(time.Now())
		if done {
			return
		}
		for _, key := range due {
			e.runRetry(key)
		}
		if len(due) == 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-r.changed:
			case <-e.ctx.Done():
			}
			timer.Stop()
		}
	}
}

// due returns the keys of the tasks to be done now; if there are none, how long to wait; and
// whether no task is left, when the worker must end.
func (r *retries) due(now time.Time) (keys []any, wait time.Duration, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.tasks) == 0 {
		r.running = false
		return nil, 0, true
	}
	wait = time.Hour
	for key, task := range r.tasks {
		if d := task.at.Sub(now); d <= 0 {
			keys = append(keys, key)
		} else {
			wait = min(wait, d)
		}
	}
	return keys, wait, false
}

// runRetry does the task of a key once.
func (e *Engine) runRetry(key any) {
	r := e.retries
	r.mu.Lock()
	task := r.tasks[key]
	r.mu.Unlock()
	err := task.do(e.ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tasks[key] != task {
		return // replaced while it ran
	}
	if err == nil {
		delete(r.tasks, key)
		return
	}
	task.failures++
	wait := storageRetry(task.failures)
	task.at = time.Now().Add(wait)
	if e.ctx.Err() == nil {
		e.log.Warn(task.complaint, "error", err, "next_attempt_in", wait.Round(time.Millisecond).String())
	}
}
