package tokens

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// retries repeats storage work until it succeeds: tokens to save or load, terms to read after a failed write, key sets.
// One task runs at a time, so that hanging storage holds one goroutine and one server's write lock.
type retries struct {
	ctx   context.Context   // ends the tasks
	log   hclog.Logger      // gets the failures
	spawn func(func()) bool // starts the worker; false after Close

	mu      sync.Mutex // guards the fields below; never held across a task
	tasks   map[any]*retryTask
	running bool
	// changed wakes the worker: a new task may be due earlier.
	changed chan struct{}
}

// retryTask is one piece of storage work.
type retryTask struct {
	complaint string // the log message if it fails
	do        func(context.Context) error
	at        time.Time // when it is due
	failures  int       // in a row
}

func newRetries(ctx context.Context, log hclog.Logger, spawn func(func()) bool) *retries {
	return &retries{ctx: ctx, log: log, spawn: spawn, tasks: map[any]*retryTask{}, changed: make(chan struct{}, 1)}
}

// add does a task at the given time, and again until it succeeds. It replaces a task with the same key.
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

// LateCommit is how long a failed write may still take effect: after a timeout storage may still wait for other
// nodes, as Vault's raft does. A leader that cannot reach them steps down within a few seconds, and then another node
// serves the mount.
const LateCommit = 15 * time.Second

// run works until all tasks are done or ctx ends.
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

// due returns the keys of the tasks due now. Without a due task it returns how long to wait; or, if all tasks are
// done and the worker must end, done.
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
