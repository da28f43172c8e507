package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A program is an authorization server that this project writes on another maker's library. It reads the file of its
// settings at each request, and loses its signing keys when it ends.
type program struct {
	bed     *bed.Bed
	name    string
	dir     string // of what this one keeps
	command func() *exec.Cmd
	ready   string // a URL that it answers when it has started
	process *bed.Process

	mu       sync.Mutex // guards settings and its file
	settings settings
}

type settings struct {
	SigningKeys int      `json:"signingKeys"` // how many there are; the program makes those that are missing
	Lifetime    int      `json:"lifetime"`    // of tokens, in seconds
	Clients     []Client `json:"clients"`
}

// newProgram prepares a program, which launch starts.
func newProgram(b *bed.Bed, name string) (*program, error) {
	dir, err := os.MkdirTemp(b.Dir, name+"-")
	if err != nil {
		return nil, err
	}
	p := &program{bed: b, name: name, dir: dir, settings: settings{Lifetime: Lifetime, Clients: []Client{}}}
	return p, p.change(func(s *settings) { s.SigningKeys = 1 })
}

func (p *program) file() string { return filepath.Join(p.dir, "settings.json") }

// change changes the settings. The program reads the old ones or the new ones.
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

// NewSigningKey has the program make another key.
func (p *program) NewSigningKey(context.Context) error {
	return p.change(func(s *settings) { s.SigningKeys++ })
}

// Restart stops the program and starts it again.
func (p *program) Restart(ctx context.Context) error {
	if err := p.process.Stop(); err != nil {
		return err
	}
	return p.launch(ctx)
}

func (p *program) launch(ctx context.Context) error {
	cmd := p.command()
	cmd.Dir = p.dir
	var err error
	if p.process, err = p.bed.NewProcess(p.name, cmd); err != nil {
		return err
	}
	return bed.Poll(ctx, 5*time.Minute, func() error {
		select {
		case <-p.process.Done():
			return bed.StopPolling(fmt.Errorf("%s: %w", p.name, errEnded))
		default:
		}
		return get(ctx, p.ready)
	})
}

var errEnded = errors.New("the process ended; its log says why")
