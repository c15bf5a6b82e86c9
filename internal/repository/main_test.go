package repository

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// childEnv makes the test binary run one of the children instead of the tests, on the repository
// at the path in its first argument.
const childEnv = "TEST_REPOSITORY_CHILD"

// children are what tests run in processes of their own.
var children = map[string]func(ctx context.Context, path string) error{}

func TestMain(m *testing.M) {
	minio.MaxRetry = 1 // the client's own attempts come on top of two others'
	if name := os.Getenv(childEnv); name != "" {
		if err := children[name](context.Background(), os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	removeKopia()
	os.Exit(code)
}

// child prepares a process that runs one of the children.
func child(t *testing.T, name, path string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, path)
	// What a child that is killed leaves behind goes with the test.
	cmd.Env = append(os.Environ(), childEnv+"="+name, "TMPDIR="+t.TempDir())
	return cmd
}

// openChild opens a child's repository.
func openChild(ctx context.Context, path string) (*Repository, error) {
	return Open(ctx, Config{Path: path, Password: secret.New(testPassword), Create: true})
}

// The stock kopia command, built once per run of the tests.
var kopia struct {
	once sync.Once
	dir  string
	path string
	err  error
}

func removeKopia() {
	if kopia.dir != "" {
		_ = os.RemoveAll(kopia.dir)
	}
}
