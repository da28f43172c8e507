//go:build unix && !linux

package bed

import "syscall"

// dieWithParent does nothing here: only Linux can tie a child to its parent. A test process that
// is killed leaves its children running on other systems.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
