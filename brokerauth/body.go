package brokerauth

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// defaultKeptBody is as much of a request's body as is kept, in bytes.
const defaultKeptBody = 4 << 20

var errBodyNotKept = errors.New("it is longer than what is kept")

// A keptBody is the body of a request that has no GetBody, such as a proxy's, with what was read of it kept
// for a second sending. The body is read through one reader at a time: that opened last.
type keptBody struct {
	body  io.ReadCloser
	limit int

	reading chan struct{} // holds a value while body is read, which may take long; before mu

	mu       sync.Mutex // guards what follows
	kept     []byte     // all that was read of body, unless lost
	lost     bool       // kept is empty, and the latest reader goes on with body
	err      error      // that reading body ended with
	latest   *bodyReader
	finished bool // no other reader will be opened
	closed   bool // body is
}

// keepBody keeps up to limit bytes of a body.
func keepBody(body io.ReadCloser, limit int) *keptBody {
	return &keptBody{body: body, limit: limit, reading: make(chan struct{}, 1)}
}

// open returns a reader of the whole body, and ends any that was opened before. It is a GetBody.
func (k *keptBody) open() (io.ReadCloser, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lost || k.finished {
		return nil, errBodyNotKept
	}
	k.latest = &bodyReader{keptBody: k}
	return k.latest, nil
}

// finish lets go of what is kept once the latest reader has had it. The body is closed with that reader.
func (k *keptBody) finish() {
	k.mu.Lock()
	k.finished = true
	k.drop()
	closing := k.closes()
	k.mu.Unlock()
	if closing {
		k.body.Close()
	}
}

// drop lets go of what is kept, once the latest reader has had it, if it is too long or of no further use. k.mu
// is held.
func (k *keptBody) drop() {
	if k.latest.read >= len(k.kept) && (k.finished || len(k.kept) > k.limit) {
		k.kept, k.lost = nil, true
	}
}

// closes reports whether the caller is to close body now, after it has let go of k.mu: that may wait for a read.
func (k *keptBody) closes() bool {
	if !k.finished || !k.latest.ended || k.closed {
		return false
	}
	k.closed = true
	return true
}

// A bodyReader reads a keptBody from its start.
type bodyReader struct {
	*keptBody
	read  int  // bytes of kept; guarded by mu
	ended bool // Close was called; guarded by mu
}

// Read implements [io.Reader]. It fails once another reader was opened. What it reads of the body at that
// moment is kept for the other one.
func (r *bodyReader) Read(p []byte) (int, error) {
	r.reading <- struct{}{}
	defer func() { <-r.reading }()
	if n, done, err := r.readKept(p); done {
		return n, err
	}
	n, err := r.body.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	if !r.lost {
		r.kept = append(r.kept, p[:n]...)
	}
	if r.latest != r {
		return 0, http.ErrBodyReadAfterClose
	}
	r.read += n
	r.drop()
	return n, err
}

// readKept reads from what is kept. done is false if there is no more of it, and the body has not ended.
func (r *bodyReader) readKept(p []byte) (n int, done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.latest != r || r.ended:
		return 0, true, http.ErrBodyReadAfterClose
	case !r.lost && r.read < len(r.kept):
		n = copy(p, r.kept[r.read:])
		r.read += n
		r.drop()
		return n, true, nil
	}
	return 0, r.err != nil, r.err
}

// Close implements [io.Closer]. The body itself is closed with its latest reader, after finish.
func (r *bodyReader) Close() error {
	r.mu.Lock()
	r.ended = true
	closing := r.closes()
	r.mu.Unlock()
	if closing {
		return r.body.Close()
	}
	return nil
}
