package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"
)

// memory is what a process holds of the machine's, in bytes.
type memory struct {
	Resident  int64 `json:"resident"`
	Anonymous int64 `json:"anonymous"` // of that: Go's heap and stacks, what its collector keeps included; the rest is the binary's pages
	Peak      int64 `json:"peak"`      // the most that was resident since forgetPeak
}

// forgetPeak has a process's peak count from now on (proc(5), clear_refs).
func forgetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// memoryOf reads a process's memory from its status file (proc(5)), so on Linux only.
func memoryOf(pid int) (m memory, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	fields := map[string]*int64{"VmRSS": &m.Resident, "RssAnon": &m.Anonymous, "VmHWM": &m.Peak}
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if field := fields[name]; field != nil {
			if _, err := fmt.Sscanf(value, "%d kB", field); err != nil {
				return m, fmt.Errorf("%s of the process: %w", name, err)
			}
			*field <<= 10
		}
	}
	return m, nil
}

// clockTick is the unit of CPU times in proc(5): Linux shows them in hundredths of a second.
const clockTick = time.Second / 100

// cpuOf is the CPU time that a process has used.
func cpuOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// utime and stime are fields 14 and 15; the second, the command's name, is in parentheses.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, fmt.Errorf("CPU time of the process: %w", err)
	}
	return time.Duration(user+system) * clockTick, nil
}
