package main

import (
	"testing"
	"time"
)

// Nothing counted is not nothing used.
func TestShareOfCPU(t *testing.T) {
	for _, row := range []struct {
		use  use
		want string
	}{
		{use{Over: seconds(30 * time.Second)}, "< 0.03 %"},
		{use{Over: seconds(time.Minute)}, "< 0.02 %"},
		{use{Over: seconds(time.Minute), CPU: seconds(30 * time.Millisecond)}, "0.05 %"},
	} {
		if got := row.use.String(); got != row.want {
			t.Errorf("%v of CPU in %v is %q, want %q", time.Duration(row.use.CPU), time.Duration(row.use.Over), got, row.want)
		}
	}
}
