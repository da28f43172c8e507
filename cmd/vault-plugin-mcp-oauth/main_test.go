package main

import (
	"runtime/debug"
	"testing"
	"time"
)

func TestOperatorSetsGarbageCollection(t *testing.T) {
	before := debug.SetGCPercent(75)
	defer debug.SetGCPercent(before)
	t.Setenv("GOGC", "75")
	reserve := collectSooner()
	if got := debug.SetGCPercent(75); got != 75 || reserve != nil {
		t.Errorf("with GOGC=75, GOGC is %d, with a reserve of %d bytes", got, len(reserve))
	}
	t.Setenv("GOGC", "")
	reserve = collectSooner()
	if got := debug.SetGCPercent(75); got != gcPercent || len(reserve) == 0 {
		t.Errorf("without GOGC it is %d, want %d, with a reserve of %d bytes", got, gcPercent, len(reserve))
	}
}

// A plugin ends when its parent changes. If process 1 is its Vault, the plugin lives.
func TestPluginEndsWithItsVault(t *testing.T) {
	const looks, vaultLives = 100, 60
	for name, row := range map[string]struct {
		parent, adopter int
		want            int // number of looks at the parent until the plugin ends; all of them if it lives
	}{
		"adopted by process 1":   {parent: 4711, adopter: 1, want: vaultLives + 1},
		"adopted by a subreaper": {parent: 4711, adopter: 42, want: vaultLives + 1},
		"born under process 1":   {parent: 1, adopter: 1, want: looks},
	} {
		t.Run(name, func(t *testing.T) {
			ticks := make(chan time.Time, looks)
			for range looks {
				ticks <- time.Time{}
			}
			close(ticks)
			looked := 0
			waitForOrphanage(row.parent, func() int {
				if looked++; looked > vaultLives {
					return row.adopter
				}
				return row.parent
			}, ticks)
			if looked != row.want {
				t.Errorf("the plugin looked for its parent %d times, want %d", looked, row.want)
			}
		})
	}
}
