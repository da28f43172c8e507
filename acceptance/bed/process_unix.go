//go:build unix && !linux

package bed

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// dieWithParent does nothing: only Linux can end a child with its parent.
func dieWithParent(*syscall.SysProcAttr) {}

// asProcess1 works on Linux only.
func asProcess1(*exec.Cmd) error {
	return fmt.Errorf("process namespaces: %w", errors.ErrUnsupported)
}

// Running reports whether a process runs.
func Running(pid int) bool { return syscall.Kill(pid, 0) == nil }

// Usage works on Linux only.
func Usage(int) (ProcessUsage, error) {
	return ProcessUsage{}, fmt.Errorf("usage of a process: %w", errors.ErrUnsupported)
}

// children returns the ids of a process's running children with this executable.
func children(pid int, name string) ([]int, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,comm=").Output()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for line := range strings.Lines(string(out)) {
		var child, parent int
		var command string
		if n, _ := fmt.Sscan(line, &child, &parent, &command); n == 3 && parent == pid && filepath.Base(command) == name {
			pids = append(pids, child)
		}
	}
	return pids, nil
}
