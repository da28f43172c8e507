package measure

import (
	"fmt"
	"os"
	"time"

	"github.com/prometheus/procfs"
)

// CPU returns the CPU time used by a process, in nanoseconds. It reads /proc, so it works on Linux only.
func CPU(pid int) (total time.Duration, err error) {
	threads, err := procfs.AllThreads(pid)
	if err != nil {
		return 0, err
	}
	for _, thread := range threads {
		// A thread that has just ended is left out. Go's threads hardly ever end.
		if used, err := thread.Schedstat(); err == nil {
			total += time.Duration(used.RunningNanoseconds)
		}
	}
	return total, nil
}

// TreeCPU returns the CPU time used by a process and its children.
func TreeCPU(pid int) (time.Duration, error) {
	total, err := CPU(pid)
	if err != nil {
		return 0, err
	}
	all, err := procfs.AllProcs()
	if err != nil {
		return 0, err
	}
	for _, process := range all {
		// A process that has just ended is not counted as a child.
		if stat, err := process.Stat(); err != nil || stat.PPID != pid {
			continue
		}
		used, err := CPU(process.PID)
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}

// Memory is the memory of a process, in bytes.
type Memory struct {
	Resident  int64 `json:"resident"`
	Anonymous int64 `json:"anonymous"` // Go's heap and stacks, including unused pages; the rest is the binary's pages
	Peak      int64 `json:"peak"`      // the highest Resident since ForgetPeak
}

// MemoryOf returns the memory of a process. It reads /proc, so it works on Linux only.
func MemoryOf(pid int) (Memory, error) {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return Memory{}, err
	}
	status, err := process.NewStatus()
	return Memory{int64(status.VmRSS), int64(status.RssAnon), int64(status.VmHWM)}, err
}

// ForgetPeak restarts the count of a process's peak memory (proc(5), clear_refs).
func ForgetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}
