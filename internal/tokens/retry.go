package tokens

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// retries repeats what storage still owes until it is done: tokens to be saved or loaded, terms
// to be read after a write that failed, key sets. One task runs at a time, so that storage that
// hangs holds one goroutine and one server's write lock.
type retries struct {
	ctx   context.Context   // no task runs after its end
	log   hclog.Logger      // gets the failures
	spawn func(func()) bool // starts the worker; false if it is too late

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

func newRetries(ctx context.Context, log hclog.Logger, spawn func(func()) bool) *retries {
	return &retries{ctx: ctx, log: log, spawn: spawn, tasks: map[any]*retryTask{}, changed: make(chan struct{}, 1)}
}

// add does a task at the given time, and again until it succeeds. One of the same key is replaced.
func (r *retries) add(key any, at time.Time, complaint string, do func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tasks[key] = &retryTask{complaint: complaint, do: do, at: at}
	if !r.running {
		r.running = r.spawn(r.run)
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

// run works until no task is left or ctx ends.
func (r *retries) run() {
	for r.ctx.Err() == nil {
		due, wait, done := r.due(time.Now())
		if done {
			return
		}
		for _, key := range due {
			r.runTask(key)
		}
		if len(due) == 0 {
			select {
			case <-time.After(wait):
			case <-r.changed:
			case <-r.ctx.Done():
			}
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

// runTask does the task of a key once.
func (r *retries) runTask(key any) {
	r.mu.Lock()
	task := r.tasks[key]
	r.mu.Unlock()
	err := task.do(r.ctx)
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
	if r.ctx.Err() == nil {
		r.log.Warn(task.complaint, "error", err, "next_attempt_in", wait.Round(time.Millisecond).String())
	}
}
