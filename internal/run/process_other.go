//go:build !linux && !windows

package run

import (
	"errors"
	"os"
	"syscall"
)

func space(host string) Space {
	if host == "" {
		return Space{}
	}
	return spaceOf(host)
}

// process reports whether a process lives. When it started is not known here.
func process(pid int) (ticks uint32, alive bool) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return 0, false
	}
	err = p.Signal(syscall.Signal(0))
	return 0, err == nil || errors.Is(err, os.ErrPermission)
}
