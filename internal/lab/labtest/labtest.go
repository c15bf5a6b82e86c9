// Package labtest starts labs for tests, makes disks for them, and asserts that nothing was left
// behind in them.
package labtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// Start starts a lab that lives as long as the test. Injected faults that hit nothing fail the test:
// what they were to prove wasn't proved.
func Start(t testing.TB, o lab.Options) *lab.Lab {
	t.Helper()
	l, err := lab.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range l.UnhitFaults() {
			t.Errorf("injected fault was never hit, or not as often as asked: %+v", f)
		}
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
	})
	return l
}

// RawDisk makes a raw disk image of a capacity in bytes, a multiple of 512. It is sparse, with data of
// different kinds in some extents: what doesn't compress, text, blocks of one value, and zeros that
// are allocated. The same capacity and seed give the same disk.
func RawDisk(t testing.TB, capacity int64, seed uint64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), fmt.Sprintf("disk-%d.raw", seed))
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Truncate(capacity)
	r := rand.New(rand.NewPCG(seed, uint64(capacity)))
	for kind := 0; kind < 12 && err == nil; kind++ {
		p := data(r, kind, 4096*(1+r.IntN(64)))
		off := r.Int64N(max(capacity-int64(len(p)), 1)) &^ 511
		if kind == 0 {
			off = 0 // a boot sector
		}
		if kind == 1 {
			off = max(capacity-int64(len(p)), 0) // up to the last byte
		}
		p = p[:min(int64(len(p)), capacity-off)]
		_, err = f.WriteAt(p, off)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// data makes n bytes of one of four kinds.
func data(r *rand.Rand, kind, n int) []byte {
	p := make([]byte, n)
	switch kind % 4 {
	case 0:
		for i := range p {
			p[i] = byte(r.Uint32())
		}
	case 1:
		line := fmt.Sprintf("%08x INFO request served in %d ms\n", r.Uint32(), r.IntN(1000))
		copy(p, strings.Repeat(line, n/len(line)+1))
	case 2:
		v := byte(1 + r.IntN(255))
		for i := range p {
			p[i] = v
		}
	}
	return p
}

// settle is how long AssertClean waits for what ends by itself: a task whose result a client already
// has, a connection that was just closed.
const settle = time.Minute

// AssertClean fails the test unless the lab is as if nothing had happened: no snapshots, no leases, no
// running tasks, and no files that belong to no VM.
func AssertClean(t testing.TB, l *lab.Lab) {
	t.Helper()
	assertClean(t, l, settle)
}

func assertClean(t testing.TB, l *lab.Lab, wait time.Duration) {
	t.Helper()
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		left := leftovers(l.Status())
		if len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Errorf("left behind in the lab:\n\t%s", strings.Join(left, "\n\t"))
			return
		}
	}
}

// ExpireWhenRefused lets the leases in a lab expire, for a client that waits for that: when somebody who was
// refused what a lease holds asks for it again. It takes the hooks of the calls that are refused then.
func ExpireWhenRefused(l *lab.Lab) {
	for _, method := range []string{"Destroy_Task", "ConsolidateVMDisks_Task"} {
		var asked atomic.Bool
		l.OnCall(method, func(context.Context) {
			if asked.Swap(true) {
				l.ExpireLeases()
			}
		})
	}
}

// leftovers lists what shouldn't be in a lab.
func leftovers(s lab.Status) (left []string) {
	homes := make(map[string]bool)
	used := make(map[string]bool)
	for _, vm := range s.VMs {
		for _, snapshot := range vm.Snapshots {
			left = append(left, fmt.Sprintf("snapshot %q of VM %q", snapshot.Name, vm.Name))
		}
		for _, d := range vm.Disks {
			homes[path.Dir(d.File)] = true
			for _, file := range d.Chain {
				used[stem(file)] = true
			}
			if len(d.Chain) > 1 {
				left = append(left, fmt.Sprintf("VM %q runs on the delta %s", vm.Name, d.File))
			}
		}
	}
	for _, lease := range s.Leases {
		left = append(left, fmt.Sprintf("%s lease %s on %s", lease.Kind, lease.ID, lease.Entity))
	}
	for _, task := range s.Tasks {
		if task.State == "running" || task.State == "queued" {
			left = append(left, fmt.Sprintf("%s task %s (%s)", task.State, task.ID, task.Name))
		}
	}
	for _, f := range s.Files {
		switch {
		case path.Ext(f.Name) == ".vmdk" && !used[stem(f.Name)],
			path.Ext(f.Name) == ".vmsn", path.Ext(f.Name) == ".vmem",
			f.VM == "" && !homes[path.Dir(f.Name)]:
			left = append(left, "file "+f.Name)
		}
	}
	return left
}

// stem is the name of a disk's descriptor or extent without what tells the two apart.
func stem(file string) string {
	file = strings.TrimSuffix(file, ".vmdk")
	for _, suffix := range []string{"-flat", "-delta", "-sesparse", "-ctk"} {
		file = strings.TrimSuffix(file, suffix)
	}
	return file
}
