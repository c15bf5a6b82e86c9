//go:build unix

package diskstore

import (
	"syscall"
	"testing"
)

// diskUsage is what a file really takes, in bytes.
func diskUsage(t *testing.T, name string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}
