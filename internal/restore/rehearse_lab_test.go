package restore_test

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
)

// rehearsalCalls are the calls that a rehearsal makes, in their order, which change something.
var rehearsalCalls = []moment{
	{"ImportVApp", 1}, {"POST /nfc", 1}, {"HttpNfcLeaseComplete", 1}, {"ReconfigVM_Task", 1}, {"PowerOnVM_Task", 1},
	{"CreateScreenshot_Task", 1}, {"DeleteDatastoreFile_Task", 1}, {"Destroy_Task", 1},
}

// rehearsing is a site whose copies come up, and a backup of its VM.
func rehearsing(t *testing.T) (*site, restore.RehearseRequest) {
	t.Helper()
	s := newSite(t)
	s.lab.SetGuestBoot("tf-restore-*", lab.GuestComesUp)
	return s, restore.RehearseRequest{BackupID: s.take(t), Screenshot: true}
}

// wantUntouched makes sure that there is the original alone, as it was.
func (s *site) wantUntouched(t *testing.T, state lab.VMStatus) {
	t.Helper()
	s.wantVM(t, s.raw)
	now := s.lab.Status().VMs[0]
	if now.BIOSUUID != state.BIOSUUID || !slices.EqualFunc(now.Disks, state.Disks, func(a, b lab.DiskStatus) bool { return a.File == b.File }) {
		t.Errorf("the original is %+v, was %+v", now, state)
	}
	for _, f := range s.lab.Status().Files {
		if strings.HasSuffix(f.Name, ".png") || strings.Contains(f.Name, "tf-re") {
			t.Errorf("left behind: %s", f.Name)
		}
	}
}

func TestRehearse_lab(t *testing.T) {
	t.Parallel()
	s, r := rehearsing(t)
	before := s.lab.Status().VMs[0]
	var copied lab.VMStatus
	s.lab.OnCall("CreateScreenshot_Task", func(context.Context) {
		for _, vm := range s.lab.Status().VMs {
			if vm.Name != "web" {
				copied = vm
			}
		}
	})
	result, err := s.m.Rehearse(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	config, err := png.DecodeConfig(bytes.NewReader(result.Screenshot))
	if err != nil || config.Width != 720 || config.Height != 400 {
		t.Errorf("the picture: %+v, %v", config, err)
	}
	if !result.Heartbeat || !result.Recorded || len(result.Warnings) > 0 {
		t.Errorf("%+v", result)
	}
	if !strings.HasPrefix(copied.Name, "tf-restore-") || copied.PowerState != "poweredOn" ||
		copied.BIOSUUID == before.BIOSUUID || copied.InstanceUUID == before.InstanceUUID {
		t.Errorf("the copy was %+v", copied)
	}
	s.wantUntouched(t, before)
}

// Whenever the caller leaves, and if the guest hangs, nothing is left behind.
func TestRehearse_labCancelled(t *testing.T) {
	t.Parallel()
	s, r := rehearsing(t)
	before := s.lab.Status().VMs[0]
	for _, m := range rehearsalCalls {
		ctx, cancel := context.WithCancel(t.Context())
		hit := s.at(m, cancel)
		result, err := s.m.Rehearse(ctx, r)
		cancel()
		if !hit() {
			t.Errorf("%s never came", m)
		}
		last := m.call == "DeleteDatastoreFile_Task" || m.call == "Destroy_Task" // all is said by then
		if !errors.Is(err, context.Canceled) && (!last || err != nil && !errors.Is(err, context.Canceled)) {
			t.Errorf("%s: %+v, %v", m, result, err)
		}
		if s.wantUntouched(t, before); t.Failed() {
			t.Fatalf("after it was cancelled at %s", m)
		}
	}
	s.lab.SetGuestBoot("tf-restore-*", lab.GuestHangs)
	r.GuestTimeout = 100 * time.Millisecond
	result, err := s.m.Rehearse(t.Context(), r)
	if !errors.Is(err, restore.ErrNoHeartbeat) || result.Screenshot == nil {
		t.Errorf("%+v, %v", result, err)
	}
	s.wantUntouched(t, before)
}

// Two at once don't meet: neither takes the other's copy for one that was left behind.
func TestRehearse_labTwo(t *testing.T) {
	t.Parallel()
	s, r := rehearsing(t)
	before := s.lab.Status().VMs[0]
	meet := make(chan struct{})
	s.lab.OnCall("PowerOnVM_Task", func(context.Context) { // both copies are there by then
		select {
		case meet <- struct{}{}:
		case <-meet:
		case <-time.After(time.Minute):
			t.Error("there was one copy only")
		}
	})
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if result, err := s.m.Rehearse(t.Context(), r); err != nil || len(result.Warnings) > 0 {
				t.Errorf("%+v, %v", result, err)
			}
		})
	}
	both.Wait()
	s.wantUntouched(t, before)
}

// What a rehearsal that was killed left behind is removed by the next one.
func TestRehearse_labKilled(t *testing.T) {
	t.Parallel()
	s, r := rehearsing(t)
	before := s.lab.Status().VMs[0]
	for _, m := range rehearsalCalls {
		if m.call == "ImportVApp" || m.call == "HttpNfcLeaseComplete" || m.call == "POST /nfc" {
			continue // held by its lease, as any other restore that was killed
		}
		s.killAt(t, m, childRequest{Rehearse: &r})
		if vms := s.lab.Status().VMs; len(vms) != 2 {
			t.Fatalf("killed at %s: %+v", m, vms)
		}
		result, err := s.m.Rehearse(t.Context(), r)
		if err != nil {
			t.Fatalf("after a kill at %s: %v", m, err)
		}
		if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "was killed") {
			t.Errorf("after a kill at %s: warnings %q", m, result.Warnings)
		}
		if s.wantUntouched(t, before); t.Failed() {
			t.Fatalf("after a kill at %s", m)
		}
	}
	all, err := s.repo.Verifications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := repository.Verified(all[r.BackupID], repository.VerifyRestore); !ok || len(all[r.BackupID]) != 1 {
		t.Errorf("kept: %+v, of all %+v", v, all[r.BackupID])
	}
}
