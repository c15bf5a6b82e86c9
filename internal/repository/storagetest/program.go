// Package storagetest runs real storage servers for tests of repositories, each for one test on the loopback
// interface, and networks that fail.
package storagetest

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

// Program builds a command from the module tools/name, once for all tests of this machine, and returns its path.
func Program(t testing.TB, name, pkg string) string {
	t.Helper()
	root := filepath.Dir(goEnv(t, "GOMOD"))
	dir := filepath.Join(root, "build", "tools")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// Tests of several packages run at the same time.
	lock := flock.New(filepath.Join(dir, name+".lock"))
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()                        //nolint:errcheck // as closing does
	program := filepath.Join(dir, name+".exe") // a name that every system runs
	// Not the test's context: the command is for others, too. What is up to date isn't built again.
	build := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, pkg)
	build.Dir = filepath.Join(root, "tools", name)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", name, err, out)
	}
	return program
}

func goEnv(t testing.TB, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if errors.Is(err, exec.ErrNotFound) {
		Missing(t, "the go command: install Go")
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// Missing skips a test that needs something which the machine lacks. In CI, where that would hide a failure, the
// test fails.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal("needs " + what)
	}
	t.Skip("needs " + what)
}

// run runs a server until the test ends, and waits until it answers on an address.
func run(t testing.TB, cmd *exec.Cmd, network, address string) {
	t.Helper()
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed, or its output says more
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(cmd.Path), output.String())
		}
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(time.Minute)
	for {
		conn, err := new(net.Dialer).DialContext(t.Context(), network, address)
		if err == nil {
			_ = conn.Close() // nothing was sent
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", cmd.Path, output.String())
		case <-timeout:
			t.Fatalf("%s doesn't answer on %s", cmd.Path, address)
		case <-tick.C:
		}
	}
}

// socket is a path for the socket of a server: short enough for every system, and not a port that another may take.
func socket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sock") //nolint:usetesting // the names of a test's own directories are too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // it holds nothing else
	return filepath.Join(dir, "s")
}
