package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"syscall"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A count is the plugin's use of resources without readers.
type count struct {
	reign
	pid int
	bed.ProcessUsage
}

func (s *soak) census(ctx context.Context) (count, error) {
	reign, err := s.reign(ctx)
	if err != nil {
		return count{}, err
	}
	if err := s.brokers.pause(ctx); err != nil {
		return count{}, err
	}
	defer s.brokers.resume()
	c := count{reign: reign}
	if c.pid, err = c.node.PluginPID(); err != nil {
		return c, err
	}
	c.ProcessUsage, err = bed.Usage(c.pid)
	s.log("the plugin's process %d holds %d MiB and %d file descriptors", c.pid, c.Memory>>20, c.Descriptors)
	return c, err
}

// goroutines are a process's numbers of goroutines: of refreshes under way, which vary, and of others.
type goroutines struct{ refreshing, others int }

// goroutines counts the goroutines that Go's runtime prints on SIGQUIT, which also ends the plugin.
func (s *soak) goroutines(ctx context.Context) (goroutines, error) {
	var n goroutines
	node, err := s.bed.Active(ctx)
	if err != nil {
		return n, err
	}
	if err := s.brokers.pause(ctx); err != nil {
		return n, err
	}
	defer s.brokers.resume()
	before, err := os.Stat(node.Log)
	if err != nil {
		return n, err
	}
	pid, err := node.PluginPID()
	if err != nil || pid == 0 {
		return n, fmt.Errorf("no plugin to ask: %w", err)
	}
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		return n, err
	}
	s.brokers.setCalm(false)
	s.allow(names * perEnd)
	for bed.Running(pid) {
		if err := bed.Sleep(ctx, 50*time.Millisecond); err != nil {
			return n, err
		}
	}
	// The output may arrive after the process has ended.
	for settled := (goroutines{others: -1}); settled != n; {
		settled = n
		if err := bed.Sleep(ctx, 500*time.Millisecond); err != nil {
			return n, err
		}
		if n, err = countGoroutines(node.Log, before.Size()); err != nil {
			return n, err
		}
	}
	if n.others == 0 {
		return n, errors.New("the plugin's process reported no goroutines")
	}
	s.log("process %d had %d goroutines, and %d of refreshes under way", pid, n.others, n.refreshing)
	return n, nil
}

var (
	goroutine  = regexp.MustCompile(`goroutine \d+ (gp=\S+ m=\S+ (mp=\S+ )?)?\[`)
	refreshing = regexp.MustCompile(`tokens\.\(\*slot\)\.fly|net/http\.\(\*(persistConn|Transport)\)|crypto/tls\.`)
)

// countGoroutines counts the goroutines in a log from an offset.
func countGoroutines(log string, offset int64) (n goroutines, err error) {
	file, err := os.Open(log)
	if err != nil {
		return n, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.NewSectionReader(file, offset, 1<<30))
	if err != nil {
		return n, err
	}
	heads := goroutine.FindAllIndex(content, -1)
	for i, head := range heads {
		end := len(content)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		if refreshing.Match(content[head[0]:end]) {
			n.refreshing++
		} else {
			n.others++
		}
	}
	return n, nil
}
