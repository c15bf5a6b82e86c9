package labtest_test

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
)

// recorder is a test that keeps what it is told.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestRawDisk(t *testing.T) {
	t.Parallel()
	const capacity = 5<<20 + 512
	read := func(seed uint64) []byte {
		t.Helper()
		p, err := os.ReadFile(labtest.RawDisk(t, capacity, seed))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	a, b, c := read(1), read(1), read(2)
	if len(a) != capacity || !bytes.Equal(a, b) || bytes.Equal(a, c) {
		t.Error("disks are not told by their seeds")
	}
	if disk.IsZero(a[:512]) || disk.IsZero(a[capacity-512:]) || bytes.Count(a, []byte{0}) < capacity/4 {
		t.Error("the disk lacks a beginning, an end or holes")
	}
	for _, small := range []int64{512, 4096} {
		if info, err := os.Stat(labtest.RawDisk(t, small, 1)); err != nil || info.Size() != small {
			t.Errorf("a disk of %d bytes: %v, %v", small, info, err)
		}
	}
}

func TestAssertClean(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := labtest.Start(t, lab.Options{VMs: []lab.VMSpec{{Name: "web01", Disks: []string{labtest.RawDisk(t, 1<<20, 1)}}}})
	labtest.AssertClean(t, l)

	u := l.URL()
	u.User = url.UserPassword(l.User(), l.Password())
	c, err := govmomi.NewClient(ctx, u, true)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := find.NewFinder(c.Client).VirtualMachine(ctx, "/DC0/vm/lab/web01")
	if err != nil {
		t.Fatal(err)
	}
	task, err := vm.CreateSnapshot(ctx, "left over", "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	ref, err := vm.FindSnapshot(ctx, "left over")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := vm.ExportSnapshot(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lease.Wait(ctx, nil); err != nil {
		t.Fatal(err)
	}
	r := &recorder{TB: t}
	labtest.AssertCleanWithin(r, l, time.Second)
	text := strings.Join(r.errors, "\n")
	for _, want := range []string{`snapshot "left over"`, "export lease", "delta", ".vmsn"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q isn't reported:\n%s", want, text)
		}
	}
}
