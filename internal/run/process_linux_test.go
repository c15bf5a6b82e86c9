package run

import (
	"os"
	"os/exec"
	"testing"
)

// A proc file system that hides other users' processes is no proof that they are gone.
func TestProcess_hidden(t *testing.T) {
	t.Parallel()
	empty := t.TempDir() // shows no process at all
	if ticks, alive := processIn(empty, os.Getpid()); !alive || ticks != 0 {
		t.Errorf("a hidden process: %d ticks, alive: %v", ticks, alive)
	}
	// PID 1 always lives, and is another user's unless this one is root.
	if _, alive := processIn(empty, 1); !alive {
		t.Error("PID 1 is taken for dead")
	}
	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Run(); err != nil {
		t.Skip("needs the command true of the package coreutils")
	}
	if _, alive := processIn(empty, cmd.ProcessState.Pid()); alive {
		t.Error("a process that ended is taken for alive")
	}
}

func TestProcess_invalid(t *testing.T) {
	t.Parallel()
	for _, pid := range []int{0, -1} {
		if _, alive := process(pid); alive {
			t.Errorf("PID %d, a group of processes, is taken for one", pid)
		}
	}
}
