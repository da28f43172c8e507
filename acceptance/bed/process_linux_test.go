package bed

import (
	"bufio"
	"errors"
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

// A test process that is killed leaves nothing running.
func TestProcessDiesWithItsParent(t *testing.T) {
	if log := os.Getenv("BED_TEST_START_CHILD"); log != "" {
		startChildAndWait(t, log)
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestProcessDiesWithItsParent$")
	parent.Env = append(os.Environ(), "BED_TEST_START_CHILD="+filepath.Join(t.TempDir(), "child.log"))
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(child, 0); err != nil {
		t.Fatalf("the child is not running: %v", err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	Eventually(t, 5*time.Second, func() error {
		if Running(child) {
			return errors.New("the child outlives its parent")
		}
		return nil
	})
}

// startChildAndWait is the parent's part. It prints the child's process id.
func startChildAndWait(t *testing.T, log string) {
	p, err := startProcess("child", exec.Command("sleep", "60"), log)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(p.PID())
	<-p.Done()
}
