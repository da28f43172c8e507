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

// dieWithParent does nothing here: only Linux can tie a child to its parent. A test process that
// is killed leaves its children running on other systems.
func dieWithParent(*syscall.SysProcAttr) {}

// asProcess1 is Linux's alone.
func asProcess1(*exec.Cmd) error {
	return fmt.Errorf("process namespaces: %w", errors.ErrUnsupported)
}

// Running reports whether a process runs.
func Running(pid int) bool { return syscall.Kill(pid, 0) == nil }

// Usage is Linux's alone.
func Usage(int) (ProcessUsage, error) {
	return ProcessUsage{}, fmt.Errorf("what a process holds: %w", errors.ErrUnsupported)
}

// children are the ids of the processes that a process has started from the executable of the
// given name and that run.
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
