package bed

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const stopGrace = 10 * time.Second

// A Process is a child process of the bed. It has its own process group, so Ctrl-C in a terminal reaches only the
// bed, which stops its parts in order.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when Wait has returned
	err  error         // of Wait; read only after done is closed
}

// ProcessUsage is a process's use of resources.
type ProcessUsage struct {
	Memory      int64 // resident, in bytes
	Descriptors int   // file descriptors
}

// startProcess starts cmd and appends its standard error to the file log. If cmd has no standard output, it appends
// that too.
func startProcess(name string, cmd *exec.Cmd, log string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own copy
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	cmd.Stderr = out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	dieWithParent(cmd.SysProcAttr)

	if err := onStarterThread(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// NewProcess starts cmd with a log of the bed, until the bed stops.
func (b *Bed) NewProcess(name string, cmd *exec.Cmd) (*Process, error) {
	name = b.unique(name)
	p, err := startProcess(name, cmd, filepath.Join(b.LogDir(), name+".log"))
	if err != nil {
		return nil, err
	}
	b.onClose(p.Stop)
	return p, nil
}

// startReady starts a server that prints a line of JSON when it is ready, and decodes the line into ready. The server
// ends when its standard input closes.
func startReady(ctx context.Context, name string, cmd *exec.Cmd, log string, ready any) (*Process, error) {
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(name, cmd, log)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, p.Kill)()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, ready)
	}
	if err != nil {
		err = fmt.Errorf("%s did not start, see %s: %w", name, log, err)
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// newReady is startReady with a log of the bed, until the bed stops.
func (b *Bed) newReady(ctx context.Context, name string, cmd *exec.Cmd, ready any) (log string, err error) {
	name = b.unique(name)
	log = filepath.Join(b.LogDir(), name+".log")
	p, err := startReady(ctx, name, cmd, log, ready)
	if err == nil {
		b.onClose(p.Stop)
	}
	return log, err
}

// PID is the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Stop asks the process to end, and kills it after the grace period.
func (p *Process) Stop() error {
	if p.ended() {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopGrace):
		p.Kill()
		return fmt.Errorf("%s (pid %d) did not end within %s of SIGTERM and was killed", p.name, p.PID(), stopGrace)
	}
}

// Kill ends the process with SIGKILL, and leaves its children running.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// killGroup kills the remaining processes, such as the plugin of a killed Vault.
func (p *Process) killGroup() { _ = syscall.Kill(-p.PID(), syscall.SIGKILL) }

// Linux sends the parent death signal when the *thread* that started the child ends, and Go may end threads. So one
// permanent thread starts all children.
var starter struct {
	once sync.Once
	work chan func()
}

func onStarterThread(f func() error) error {
	starter.once.Do(func() {
		starter.work = make(chan func())
		go func() {
			runtime.LockOSThread()
			for w := range starter.work {
				w()
			}
		}()
	})
	result := make(chan error)
	starter.work <- func() { result <- f() }
	return <-result
}

// Run runs a command until it ends. The error contains the command's output.
func Run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// ReadFiles returns the concatenated contents of files in a directory.
func ReadFiles(dir string, names ...string) (all []byte, err error) {
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		all = append(all, content...)
	}
	return all, nil
}
