package run

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// space is made of the boot ID and the PID namespace, proc_pid_ns(5): containers on one host often
// share a host name, and see other processes by the same numbers.
func space() Space {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Space{}
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return Space{}
	}
	return spaceOf(strings.TrimSpace(string(boot)), namespace)
}

// process reports whether a process lives and when it started, in clock ticks since the boot, modulo
// 2^32: field 22 of proc_pid_stat(5). Zero ticks: unknown.
func process(pid int) (ticks uint32, alive bool) {
	return processIn("/proc", pid)
}

// processIn looks into a proc file system. One that is mounted with hidepid=2, proc(5), holds nothing
// of other users' processes, so that a process that isn't there is looked for by a signal too.
func processIn(proc string, pid int) (ticks uint32, alive bool) {
	stat, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, signalled(pid)
	}
	// The second field, the command in parentheses, may hold anything: count from behind its end.
	end := bytes.LastIndexByte(stat, ')')
	if err != nil || end < 0 {
		return 0, true
	}
	fields := strings.Fields(string(stat[end+1:]))
	const startTime = 22 - 3 // the first field behind the command is number 3
	if len(fields) <= startTime {
		return 0, true
	}
	if state := fields[0]; state == "Z" || state == "X" { // dead, only not yet waited for
		return 0, false
	}
	n, err := strconv.ParseUint(fields[startTime], 10, 64)
	if err != nil {
		return 0, true
	}
	return uint32(n), true
}
