package bed

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
)

// errorLog is a file of all error answers to clients of the bed, which is scanned for secrets.
type errorLog struct {
	mu   sync.Mutex // guards writes
	file *os.File
}

func newErrorLog(path string) (*errorLog, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &errorLog{file: file}, nil
}

func (l *errorLog) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.file, format+"\n", args...)
}

func (l *errorLog) close() error { return l.file.Close() }

// transport returns a RoundTripper that logs error answers.
func (l *errorLog) transport(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err != nil {
			l.add("%s %s: %v", req.Method, req.URL.Path, err)
			return nil, err
		}
		if resp.StatusCode < 400 {
			return resp, nil
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		resp.Body = io.NopCloser(bytes.NewReader(body))
		l.add("%s %s: %s: %s", req.Method, req.URL.Path, resp.Status, bytes.TrimSpace(body))
		return resp, nil
	})
}

// roundTripper turns a function into an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
