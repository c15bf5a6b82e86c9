package run

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// space is made of the identity that Windows was given when it was installed. A host name would not do:
// many machines have the same.
func space() Space {
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, `SOFTWARE\Microsoft\Cryptography`,
		registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return Space{}
	}
	defer func() { _ = key.Close() }()
	machine, _, err := key.GetStringValue("MachineGuid")
	if err != nil || machine == "" {
		return Space{}
	}
	host, err := os.Hostname() // machines that were cloned from one image share the first
	if err != nil {
		return Space{}
	}
	return spaceOf(machine, host)
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
