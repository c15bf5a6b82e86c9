//go:build linux || darwin

package run

import (
	"errors"

	"golang.org/x/sys/unix"
)

// signalled reports whether there is a process with this PID, by signal 0, kill(2): it is sent to
// nobody, but only to a PID that is somebody's. That this user may not signal it (EPERM) means that
// it is another user's.
func signalled(pid int) bool {
	if pid <= 0 { // a group of processes
		return false
	}
	return !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}
