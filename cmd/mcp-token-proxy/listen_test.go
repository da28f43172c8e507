package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// running is a proxy in service.
type running struct {
	address string
	drain   context.CancelFunc // the first signal
	now     context.CancelFunc // the second signal
	ended   chan error
}

// serve serves a configuration as the process does. A TCP listener gets a free port.
func (w *world) serve(c *config) *running {
	w.t.Helper()
	if c.Listeners[0].Type == "tcp" {
		c.Listeners[0].Address = freeAddress(w.t)
	}
	p, err := newProxy(c, w.logger())
	if err != nil {
		w.t.Fatal(err)
	}
	r := &running{address: c.Listeners[0].Address, ended: make(chan error, 1)}
	drain, stop := context.WithCancel(context.Background())
	now, end := context.WithCancel(context.Background())
	r.drain, r.now = stop, end
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.ended <- p.serve(drain, now)
	}()
	w.t.Cleanup(func() {
		stop()
		end()
		<-ended
	})
	waitFor(w.t, func() bool {
		connection, err := net.Dial(map[string]string{"tcp": "tcp", "unix": "unix"}[c.Listeners[0].Type], r.address)
		if err == nil {
			connection.Close()
		}
		return err == nil
	})
	return r
}

// freeAddress returns a loopback address that was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// waitFor waits until done returns true.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the condition was not met in time")
		}
	}
}

// A unix socket is for its owner only, and is removed when the process ends. A socket left by a killed process is
// replaced.
func TestUnixSocket(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "s")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	c := w.config()
	c.Listeners[0] = listener{Type: "unix", Address: path}
	r := w.serve(c)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v; want 600", info.Mode(), err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request(t, http.MethodPost, "http://mcp/files", strings.NewReader(message)))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got := text(t, response); got != message {
		t.Errorf("answer %d %q", response.StatusCode, got)
	}
	if _, err := c.Listeners[0].listen(t.Context()); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second process could take over the socket: %v", err)
	}
	client.CloseIdleConnections()
	r.drain()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "")
	c.Listeners[0].Address = file
	if _, err := c.Listeners[0].listen(t.Context()); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("listening at the path of a regular file: %v, want an error", err)
	}
}

// With TLS, the proxy may listen on any address. With client CAs, it serves only clients that have a certificate.
func TestTLS(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	certificate, key := selfSigned(t, dir, "proxy.example.com")
	clientCertificate, clientKey := selfSigned(t, dir, "broker")
	c := w.config()
	c.Listeners[0].TLSCert, c.Listeners[0].TLSKey, c.Listeners[0].TLSClientCAs = certificate, key, clientCertificate
	r := w.serve(c)
	roots, err := certPool(certificate)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(clientCertificate, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, own := range map[string][]tls.Certificate{"with a certificate": {pair}, "without": nil} {
		transport := &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: own},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, r.address)
			},
		}
		response, err := (&http.Client{Transport: transport}).Do(request(t, http.MethodPost, "https://proxy.example.com/files", strings.NewReader(message)))
		if (err == nil) != (own != nil) {
			t.Fatalf("%s: %v", name, err)
		}
		if err == nil {
			if got := text(t, response); got != message {
				t.Errorf("%s: answer %d %q", name, response.StatusCode, got)
			}
			response.Body.Close()
		}
		transport.CloseIdleConnections()
	}
}

// selfSigned writes a certificate and its key to files, and returns their names.
func selfSigned(t *testing.T, dir, name string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{
		".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		writeFile(t, filepath.Join(dir, name+suffix), string(pem.EncodeToMemory(block)))
	}
	return filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
}
