package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A program is an authorization server of this project that uses another maker's library. It reads its settings at
// each request, and loses its signing keys when it ends.
type program struct {
	daemon

	mu       sync.Mutex // guards settings and their file
	settings settings
}

type settings struct {
	SigningKeys int      `json:"signingKeys"` // the program makes the missing keys
	Lifetime    int      `json:"lifetime"`    // of tokens, in seconds
	Clients     []Client `json:"clients"`
}

func newProgram(b *bed.Bed, name string) (*program, error) {
	dir, err := os.MkdirTemp(b.Dir, name+"-")
	if err != nil {
		return nil, err
	}
	p := &program{daemon: daemon{bed: b, name: name, dir: dir}, settings: settings{Lifetime: Lifetime, Clients: []Client{}}}
	return p, p.change(func(s *settings) { s.SigningKeys = 1 })
}

func (p *program) file() string { return filepath.Join(p.dir, "settings.json") }

// change changes the settings. A running request may still use the old ones.
func (p *program) change(f func(*settings)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.settings)
	content, err := json.Marshal(p.settings)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.file()+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(p.file()+".new", p.file())
}

// SetClient creates a client or replaces it.
func (p *program) SetClient(_ context.Context, c Client) error {
	p.bed.Secrecy.AddClientSecret(c.ID, c.Secret)
	return p.change(func(s *settings) {
		s.Clients = append(slices.DeleteFunc(s.Clients, func(other Client) bool { return other.ID == c.ID }), c)
	})
}

// NewSigningKey makes the program add another key.
func (p *program) NewSigningKey(context.Context) error {
	return p.change(func(s *settings) { s.SigningKeys++ })
}

// A daemon is the process of a server.
type daemon struct {
	bed     *bed.Bed
	name    string
	dir     string // with the files of this process
	command func() *exec.Cmd
	ready   []string // URLs that answer once the server has started
	process *bed.Process
}

// Restart stops the process and starts it again.
func (d *daemon) Restart(ctx context.Context) error {
	if err := d.process.Stop(); err != nil {
		return err
	}
	return d.launch(ctx)
}

// launch starts the process and waits until it is ready, which may take minutes on a busy machine.
func (d *daemon) launch(ctx context.Context) error {
	cmd := d.command()
	cmd.Dir = d.dir
	var err error
	if d.process, err = d.bed.NewProcess(d.name, cmd); err != nil {
		return err
	}
	return bed.Poll(ctx, 5*time.Minute, func() (err error) {
		select {
		case <-d.process.Done():
			return bed.StopPolling(fmt.Errorf("%s ended; its log says why", d.name))
		default:
		}
		for _, url := range d.ready {
			err = errors.Join(err, bed.Call(ctx, http.MethodGet, url, nil, nil, nil))
		}
		return err
	})
}
