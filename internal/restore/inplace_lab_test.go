package restore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
)

// A moment is when a restore makes a call of a kind for the nth time.
type moment struct {
	call string
	nth  int32
}

func (m moment) String() string { return fmt.Sprintf("%s %d", m.call, m.nth) }

// The calls of a restore in place that change something, in their order. ReconfigVM_Task: journal, detaching
// what was uploaded, journal, swap, hardware, end of the journal.
var (
	whileRunning = []moment{
		{"ReconfigVM_Task", 1}, {"ImportVApp", 1}, {"POST /nfc", 1}, {"HttpNfcLeaseComplete", 1}, {"ReconfigVM_Task", 2},
		{"Destroy_Task", 1}, {"ReconfigVM_Task", 3},
	}
	whileStopped = []moment{
		{"ShutdownGuest", 1}, {"ReconfigVM_Task", 4}, {"ReconfigVM_Task", 5}, {"CreateSnapshotEx_Task", 1}, {"RemoveSnapshot_Task", 1},
	}
	whileStarting = []moment{
		{"PowerOnVM_Task", 1}, {"DeleteVirtualDisk_Task", 1}, {"DeleteVirtualDisk_Task", 2}, {"ReconfigVM_Task", 6},
	}
)

// at runs do when the lab is called so often. It reports whether that happened.
func (s *site) at(m moment, do func()) (hit func() bool) {
	var calls atomic.Int32
	s.lab.OnCall(m.call, func(context.Context) {
		if calls.Add(1) == m.nth {
			do()
		}
	})
	return func() bool {
		s.lab.OnCall(m.call, nil)
		return calls.Load() >= m.nth
	}
}

// change plays the guest, which writes to its disks. It returns what they hold then.
func (s *site) change(t *testing.T) (own [][]byte) {
	t.Helper()
	for n := range s.raw {
		if err := s.lab.WriteDisk("web", n, int64(n+1)<<20, bytes.Repeat([]byte("since"), 3000)); err != nil {
			t.Fatal(err)
		}
	}
	return s.content(t)
}

func (s *site) content(t *testing.T) (disks [][]byte) {
	t.Helper()
	for n, want := range s.raw {
		b := make([]byte, len(want))
		if err := s.lab.ReadDisk("web", n, 0, b); err != nil {
			t.Fatal(err)
		}
		disks = append(disks, b)
	}
	return disks
}

// wantVM makes sure that the VM runs with these disks, and that there is nothing beside it.
func (s *site) wantVM(t *testing.T, want [][]byte) {
	t.Helper()
	for n, b := range s.content(t) {
		if !bytes.Equal(b, want[n]) {
			t.Errorf("disk %d has other bytes", n)
		}
	}
	labtest.AssertClean(t, s.lab) // which waits for what the server discards by itself
	vms := s.lab.Status().VMs
	if len(vms) != 1 || vms[0].PowerState != "poweredOn" || vms[0].InstanceUUID != s.vm.InstanceUUID {
		t.Errorf("%d VMs, the first is %s and %s", len(vms), vms[0].Name, vms[0].PowerState)
	}
}

func (s *site) restoreInPlace(t *testing.T, r restore.Request) *restore.Result {
	t.Helper()
	result, err := s.m.Restore(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if vm := result.VM; vm.ID != s.vm.ID || vm.PowerState != hypervisor.PoweredOn || !result.Verified {
		t.Errorf("%+v", result)
	}
	if killed := strings.Contains(fmt.Sprint(result.Warnings), "was killed"); !killed && len(result.Replaced) > 0 {
		t.Errorf("%+v are kept", result.Replaced)
	}
	if err := s.m.DeleteReplaced(t.Context(), s.vm.InstanceUUID, result.Replaced); err != nil { // the killed one's
		t.Error(err)
	}
	for n, d := range result.Disks {
		if d.UUID != s.vm.Disks[n].UUID || d.Path != result.VM.Disks[n].Path || d.Address != s.vm.Disks[n].Address {
			t.Errorf("disk %+v, was %+v", d, s.vm.Disks[n])
		}
	}
	s.wantVM(t, s.raw)
	return result
}

func TestRestoreInPlace_lab(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := restore.Request{BackupID: s.take(t), InPlace: &restore.InPlace{}, Verify: true, WaitForGuest: &restore.WaitForGuest{}}
	s.change(t)
	result := s.restoreInPlace(t, r)
	if !result.VM.GuestAgent || result.VM.GuestIPAddress == "" || len(result.Warnings) > 0 {
		t.Errorf("%+v, warnings %q", result.VM, result.Warnings)
	}
	// Some of it, and the replaced disk is kept until somebody deletes it.
	own := s.change(t)
	r.Disks, r.InPlace.KeepReplacedDisks = []string{"Hard disk 2"}, time.Hour
	result, err := s.m.Restore(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if disks := s.content(t); !bytes.Equal(disks[0], own[0]) || !bytes.Equal(disks[1], s.raw[1]) || len(result.Replaced) != 1 {
		t.Errorf("the first disk is not the VM's own, or the second not the restored one; replaced %+v", result.Replaced)
	}
	if err := s.m.DeleteReplaced(t.Context(), s.vm.InstanceUUID, result.Replaced); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, s.lab)
}

// A guest that boots slowly is waited for, one that never comes up is not waited for without end.
func TestWaitForGuest_lab(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id := s.take(t)
	s.lose(t)
	s.lab.SetGuestBoot("web", lab.GuestHangs)
	r := restore.Request{BackupID: id, WaitForGuest: &restore.WaitForGuest{Timeout: time.Millisecond}}
	result, err := s.m.Restore(t.Context(), r)
	if !errors.Is(err, restore.ErrGuest) || result == nil || result.VM.PowerState != hypervisor.PoweredOn {
		t.Fatalf("got %+v, %v", result, err)
	}
	if err := s.client.DestroyVM(t.Context(), result.VM.ID); err != nil {
		t.Fatal(err)
	}
	// It comes up when somebody has begun to wait: the session's filters tell.
	r.WaitForGuest.Timeout = time.Minute
	var once atomic.Bool
	s.lab.OnCall("WaitForUpdatesEx", func(context.Context) {
		if vms := s.lab.Status().VMs; len(vms) == 1 && vms[0].Name == "web" && vms[0].PowerState == "poweredOn" && once.CompareAndSwap(false, true) {
			if err := s.lab.BootGuest("web"); err != nil {
				t.Error(err)
			}
		}
	})
	result, err = s.m.Restore(t.Context(), r)
	if err != nil || !result.VM.GuestAgent || result.VM.GuestIPAddress == "" {
		t.Fatalf("got %+v, %v", result, err)
	}
}

// Ctrl-C at every step of a restore in place: the VM has its own disks and runs, or has the restored ones and
// runs; nothing is left behind; and the next restore succeeds.
func TestInterruptedInPlace(t *testing.T) {
	t.Parallel()
	for name, moments := range map[string][]moment{"running": whileRunning, "stopped": whileStopped, "starting": whileStarting} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			r := restore.Request{BackupID: s.take(t), InPlace: &restore.InPlace{VM: "web"}, Verify: true}
			for _, m := range moments {
				own := s.change(t)
				ctx, cancel := context.WithCancel(t.Context())
				hit := s.at(m, cancel)
				result, err := s.m.Restore(ctx, r)
				cancel()
				if !hit() {
					t.Fatalf("%s: the call was never made: %v", m, err)
				}
				var in *restore.InPlaceError
				switch {
				case err == nil: // it was too late, and what it kept from being deleted is listed
					if err := s.m.DeleteReplaced(t.Context(), s.vm.InstanceUUID, result.Replaced); err != nil {
						t.Errorf("%s: %v", m, err)
					}
					s.wantVM(t, s.raw)
				case result != nil || !errors.Is(err, context.Canceled) || errors.As(err, &in) && (in.Swapped || in.PowerState != hypervisor.PoweredOn):
					t.Errorf("%s: got %+v, %v", m, result, err)
				default:
					s.wantVM(t, own)
				}
				// Starting a VM may be cancelled in time or too late.
				if late := name == "starting"; m.call != "PowerOnVM_Task" && late != (err == nil) {
					t.Errorf("%s: got error %v", m, err)
				}
				if t.Failed() {
					t.Fatalf("after an interruption at %s", m)
				}
				s.restoreInPlace(t, r)
			}
		})
	}
}

// kill -9 at the steps of a restore in place: whatever a killed run left, the next one goes on from there, and
// nothing but the VM with the restored disks remains.
func TestKilledInPlace(t *testing.T) {
	t.Parallel()
	for name, moments := range map[string][]moment{
		"uploading": {{"POST /nfc", 1}},
		"stopping":  {{"ShutdownGuest", 1}},
		"swapping":  {{"ReconfigVM_Task", 4}, {"ReconfigVM_Task", 5}, {"RemoveSnapshot_Task", 1}},
		"starting":  whileStarting,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			labtest.ExpireWhenRefused(s.lab) // to the next restore, what the killed one holds
			r := restore.Request{BackupID: s.take(t), InPlace: &restore.InPlace{VM: "web"}, Verify: true}
			for _, m := range moments {
				s.change(t)
				s.killAt(t, m, r)
				if _, err := s.m.Check(t.Context(), r); err != nil {
					t.Errorf("%s: check: %v", m, err)
				}
				result := s.restoreInPlace(t, r)
				if !strings.Contains(fmt.Sprint(result.Warnings), "was killed") {
					t.Errorf("%s: warnings %q", m, result.Warnings)
				}
				if t.Failed() {
					t.Fatalf("after a kill at %s", m)
				}
			}
		})
	}
}

// killAt restores in another process, and kills it before the lab answers a call, which comes to nothing. r is what
// makes a childRequest.
func (s *site) killAt(t *testing.T, m moment, r any) {
	t.Helper()
	request, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	cmd, stderr := s.child(t, request)
	reached, killed := make(chan struct{}), make(chan struct{})
	hit := s.at(m, func() {
		close(reached)
		<-killed
		panic(http.ErrAbortHandler) // the call was never heard of
	})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-reached:
	case err := <-ended:
		hit()
		t.Fatalf("%s: the restore ended before: %v: %s", m, err, stderr.String())
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	<-ended
	hit()
	close(killed)
}
