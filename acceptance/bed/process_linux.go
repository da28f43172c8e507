package bed

import "syscall"

// dieWithParent makes the kernel end the child when the test process dies, however it dies.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
