package run

import "golang.org/x/sys/unix"

// space is made of the UUID of the boot session, which no two boots of any two machines share. A host
// name would not do: many machines have the same.
func space() Space {
	boot, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil || boot == "" {
		return Space{}
	}
	return spaceOf(boot)
}

// process reports whether a process lives. When it started is not told.
func process(pid int) (ticks uint32, alive bool) { return 0, signalled(pid) }
