package brokerauth

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// defaultKeptBody is the default of Transport.KeptBody, in bytes.
const defaultKeptBody = 4 << 20

var errBodyNotKept = errors.New("the request's body is longer than KeptBody")

// A keptBody is the body of a request without GetBody, such as a proxy's. It keeps the bytes read so far, so that the
// request can be sent a second time. Only the reader opened last may read the body.
type keptBody struct {
	body  io.ReadCloser
	limit int

	reading chan struct{} // holds a value while body is read, which may take long; taken before mu

	mu       sync.Mutex // guards the fields below
	kept     []byte     // all bytes read from body, unless lost
	lost     bool       // kept was dropped; the latest reader continues with body
	err      error      // the error that ended reading body
	latest   *bodyReader
	finished bool // readers can't be opened any more
	closed   bool // body was closed
}

// keepBody keeps up to limit bytes of a body.
func keepBody(body io.ReadCloser, limit int) *keptBody {
	return &keptBody{body: body, limit: limit, reading: make(chan struct{}, 1)}
}

// open returns a reader of the whole body, and ends the reader before. It is a GetBody.
func (k *keptBody) open() (io.ReadCloser, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lost || k.finished {
		return nil, errBodyNotKept
	}
	k.latest = &bodyReader{keptBody: k}
	return k.latest, nil
}

// finish records that the request will not be sent again: the kept bytes are dropped once the latest reader has read
// them, and closing that reader closes the body.
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

// drop drops the kept bytes that the latest reader has read, if they are too many or finish was called. k.mu is
// held.
func (k *keptBody) drop() {
	if k.latest.read >= len(k.kept) && (k.finished || len(k.kept) > k.limit) {
		k.kept, k.lost = nil, true
	}
}

// closes reports whether the caller must close body now, after it has unlocked k.mu: closing may wait for a read.
// k.mu is held.
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

// Read implements [io.Reader]. It fails once another reader was opened. Bytes read at that moment are kept for the
// other reader.
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

// readKept reads from the kept bytes. done is false if the next bytes must be read from the body.
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

// Close implements [io.Closer]. It closes the body itself if this is the latest reader and finish was called.
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
