package bed

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A killed test process leaves no child running.
func TestProcessDiesWithItsParent(t *testing.T) {
	if log := os.Getenv("BED_TEST_START_CHILD"); log != "" {
		startChildAndWait(t, log)
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestProcessDiesWithItsParent$")
	parent.Env = append(os.Environ(), "BED_TEST_START_CHILD="+filepath.Join(t.TempDir(), "child.log"))
	out := Must(parent.StdoutPipe())(t)
	OK(t, parent.Start())
	line := Must(bufio.NewReader(out).ReadString('\n'))(t)
	child := Must(strconv.Atoi(strings.TrimSpace(line)))(t)
	if err := syscall.Kill(child, 0); err != nil {
		t.Fatalf("the child is not running: %v", err)
	}
	OK(t, parent.Process.Kill())
	_ = parent.Wait()
	Until(t, 5*time.Second, "the child ends", func() bool { return !Running(child) })
}

// startChildAndWait runs in the parent. It prints the child's process id.
func startChildAndWait(t *testing.T, log string) {
	p := Must(startProcess("child", exec.Command("sleep", "60"), log))(t)
	fmt.Println(p.PID())
	<-p.Done()
}
