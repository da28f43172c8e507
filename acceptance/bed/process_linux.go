package bed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent makes the kernel kill the child when the test process ends.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// asProcess1 makes cmd process 1 of a new process namespace.
func asProcess1(cmd *exec.Cmd) error {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	}
	cmd.SysProcAttr = attr
	return nil
}

// Running reports whether a process runs. A process that has ended does not run, even if its parent has not waited
// for it.
func Running(pid int) bool {
	state, _ := processState(fmt.Sprintf("/proc/%d/stat", pid))
	return state != "" && state != "Z"
}

// Usage returns the memory and descriptors of a process.
func Usage(pid int) (u ProcessUsage, err error) {
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return u, err
	}
	u.Descriptors = len(descriptors)
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return u, err
	}
	var size, resident int64 // in pages (proc(5))
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		return u, err
	}
	u.Memory = resident * int64(os.Getpagesize())
	return u, nil
}

// processState returns the state and parent of a process from its stat file (proc(5)), or "" if it has ended.
func processState(file string) (state string, parent int) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", 0
	}
	// The fields follow the command's name, which is in parentheses.
	_, rest, _ := strings.Cut(string(content), ") ")
	_, _ = fmt.Sscan(rest, &state, &parent)
	return state, parent
}

// children returns the ids of a process's running children with this executable.
func children(pid int, name string) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, stat := range stats {
		dir := filepath.Dir(stat)
		if state, parent := processState(stat); parent != pid || state == "Z" {
			continue
		}
		if exe, err := os.Readlink(filepath.Join(dir, "exe")); err != nil || filepath.Base(exe) != name {
			continue
		}
		child, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		pids = append(pids, child)
	}
	return pids, nil
}
