package measure

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// CPU is the CPU time that a process and its children have used so far, in steps of a nanosecond;
// false if the system does not tell, as only Linux does.
func CPU(pid int) (time.Duration, bool) {
	dirs := []string{fmt.Sprintf("/proc/%d", pid)}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, false
	}
	for _, stat := range stats {
		if parentOf(stat) == pid {
			dirs = append(dirs, filepath.Dir(stat))
		}
	}
	var total time.Duration
	for _, dir := range dirs {
		threads, err := filepath.Glob(dir + "/task/*/schedstat")
		if err != nil || len(threads) == 0 {
			return 0, false
		}
		for _, thread := range threads {
			content, err := os.ReadFile(thread)
			if err != nil {
				continue // it has just ended: Go's threads hardly ever do
			}
			var nanoseconds int64
			if _, err := fmt.Sscan(string(content), &nanoseconds); err != nil {
				return 0, false
			}
			total += time.Duration(nanoseconds)
		}
	}
	return total, true
}

// parentOf reads the parent's id from a process's /proc/PID/stat; 0 if the process is gone.
func parentOf(stat string) int {
	content, err := os.ReadFile(stat)
	if err != nil {
		return 0
	}
	// The second field, the command's name, is in parentheses and may hold anything.
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	var parent int
	if len(fields) < 2 {
		return 0
	}
	if _, err := fmt.Sscan(fields[1], &parent); err != nil {
		return 0
	}
	return parent
}
