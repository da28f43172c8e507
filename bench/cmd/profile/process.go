package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"
)

// clockTick is the unit of CPU times in proc(5): Linux shows them in hundredths of a second.
const clockTick = time.Second / 100

// cpuOf is the CPU time that a process has used, by itself and in system calls, so on Linux only.
func cpuOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// utime and stime are fields 14 and 15; the second, the command's name, is in parentheses.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(user+system) * clockTick, nil
}
