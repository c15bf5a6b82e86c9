package run

import (
	"errors"

	"golang.org/x/sys/windows"
)

func space(host string) Space {
	if host == "" {
		return Space{}
	}
	return spaceOf(host)
}

// process reports whether a process lives. When it started is not told: the handle of a process
// that can be opened may still belong to one that ended, so its exit code decides.
func process(pid int) (ticks uint32, alive bool) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return 0, !errors.Is(err, windows.ERROR_INVALID_PARAMETER) // what a PID that nobody has gives
	}
	defer func() { _ = windows.CloseHandle(h) }()
	const stillActive = 259
	var code uint32
	if err := windows.GetExitCodeProcess(h, &code); err != nil {
		return 0, true
	}
	return 0, code == stillActive
}
