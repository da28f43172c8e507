package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// tlsConfig loads the listener's certificate. It returns nil if none is configured.
func (l *listener) tlsConfig() (*tls.Config, error) {
	if l.TLSCert == "" {
		return nil, nil //nolint:nilnil // no TLS
	}
	certificate, err := tls.LoadX509KeyPair(l.TLSCert, l.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("tls_cert_file and tls_key_file: %w", err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if l.TLSClientCAs != "" {
		if c.ClientCAs, err = certPool(l.TLSClientCAs); err != nil {
			return nil, fmt.Errorf("tls_client_ca_file: %w", err)
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// certPool loads PEM certificates.
func certPool(file string) (*x509.CertPool, error) {
	content, err := os.ReadFile(file) //nolint:gosec // the operator's own file
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return pool, nil
}

// listen opens the listener. Only its owner can connect to a unix socket.
func (l *listener) listen(ctx context.Context) (net.Listener, error) {
	if l.Type == "tcp" {
		return (&net.ListenConfig{}).Listen(ctx, "tcp", l.Address)
	}
	if err := removeStale(ctx, l.Address); err != nil {
		return nil, err
	}
	// The umask sets the mode when the socket is created. With a later chmod, others could connect before it.
	defer syscall.Umask(syscall.Umask(0o177))
	return (&net.ListenConfig{}).Listen(ctx, "unix", l.Address)
}

// removeStale removes a socket without a listening process: a killed process leaves it behind.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s exists, and is not a socket: remove it, or write another address", path)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	connection, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		connection.Close()
		return fmt.Errorf("another process listens on %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
