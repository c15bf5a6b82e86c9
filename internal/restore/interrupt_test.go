package restore_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
	"github.com/terraform-vm/terraform-provider-vm/internal/vsphere"
)

// A site is a lab with a VM, a connection to it, and a repository: all the real parts.
type site struct {
	lab     *lab.Lab
	client  *vsphere.Client
	repo    *repository.Repository
	dir     string // of the repository
	raw     [][]byte
	vm      *hypervisor.VM
	backups *backup.Manager
	m       *restore.Manager
}

func newSite(t *testing.T, transports ...string) *site {
	t.Helper()
	shared := sharedScene(t)
	s := &site{lab: labtest.Start(t, lab.Options{}), repo: shared.repo, dir: shared.dir}
	spec := lab.VMSpec{Name: "web"}
	for n, capacity := range []int64{8<<20 + 4096, 3 << 20} {
		spec.Disks = append(spec.Disks, labtest.RawDisk(t, capacity, uint64(n)+1))
		b, err := os.ReadFile(spec.Disks[n])
		if err != nil {
			t.Fatal(err)
		}
		s.raw = append(s.raw, b)
	}
	if err := s.lab.AddVM(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	s.client = connect(t, s.lab, transports...)
	vm, err := s.client.FindVM(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	s.vm = vm
	s.backups = backup.New(s.client, s.repo, slog.New(slog.DiscardHandler), time.Now, "1")
	s.m = restore.New(s.client, s.repo, slog.New(slog.DiscardHandler), time.Now)
	return s
}

func connect(t *testing.T, l *lab.Lab, transports ...string) *vsphere.Client {
	t.Helper()
	client, err := vsphere.Connect(t.Context(), vsphere.Config{
		Server: l.URL().Host, User: l.User(), Password: secret.New(l.Password()), Thumbprint: l.Fingerprint(),
		Transports: transports,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return client
}

// interrupt cancels the context when the lab is called. It reports whether that happened.
func (s *site) interrupt(t *testing.T, call string) (ctx context.Context, hit func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var once sync.Once
	reached := make(chan struct{})
	s.lab.OnCall(call, func(context.Context) {
		once.Do(func() {
			close(reached)
			cancel()
		})
	})
	return ctx, func() bool {
		s.lab.OnCall(call, nil)
		select {
		case <-reached:
			return true
		default:
			return false
		}
	}
}

func (s *site) take(t *testing.T) repository.ID {
	t.Helper()
	result, err := s.backups.Take(t.Context(), backup.Request{VM: "web"})
	if err != nil {
		t.Fatal(err)
	}
	return result.ID
}

// lose removes the VM outright.
func (s *site) lose(t *testing.T) {
	t.Helper()
	if err := s.client.DestroyVM(t.Context(), s.vm.ID); err != nil {
		t.Fatal(err)
	}
}

// restoreAll restores the VM and compares it with what was lost. There may be warnings that contain
// one of the given texts, and no others.
func (s *site) restoreAll(t *testing.T, id repository.ID, mayWarn ...string) {
	t.Helper()
	result, err := s.m.Restore(t.Context(), restore.Request{BackupID: id})
	if err != nil {
		t.Fatal(err)
	}
	if vm := result.VM; vm.BIOSUUID != s.vm.BIOSUUID || vm.InstanceUUID != s.vm.InstanceUUID || vm.Path != s.vm.Path ||
		vm.PowerState != hypervisor.PoweredOn {
		t.Errorf("restored %+v, lost %+v", vm, s.vm)
	}
	for _, w := range result.Warnings {
		if !slices.ContainsFunc(mayWarn, func(text string) bool { return strings.Contains(w, text) }) {
			t.Errorf("warning %q", w)
		}
	}
	for n, want := range s.raw {
		got := make([]byte, len(want))
		if err := s.lab.ReadDisk("web", n, 0, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("disk %d has other bytes than the lost one: %v", n, err)
		}
		if result.Disks[n].UUID != s.vm.Disks[n].UUID {
			t.Errorf("disk %d has UUID %s, the lost one %s", n, result.Disks[n].UUID, s.vm.Disks[n].UUID)
		}
	}
	labtest.AssertClean(t, s.lab)
}

// Ctrl-C in every phase of a backup: no snapshot, no lease, no listed half backup, and the next one
// succeeds.
func TestInterruptedBackup(t *testing.T) {
	t.Parallel()
	for call, transport := range map[string]string{
		"CreateSnapshotEx_Task": vsphere.TransportDatastore, "GET /folder": vsphere.TransportDatastore,
		"ExportSnapshot": vsphere.TransportExport, "GET /nfc": vsphere.TransportExport,
		"RemoveSnapshot_Task": vsphere.TransportDatastore,
	} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, transport)
			ctx, hit := s.interrupt(t, call)
			result, err := s.backups.Take(ctx, backup.Request{VM: "web"})
			if !hit() {
				t.Fatalf("the call was never made: %v; %v", err, s.lab.Calls())
			}
			// When the snapshot is removed the backup is committed: it stands.
			if stands := call == "RemoveSnapshot_Task"; stands != (err == nil) || err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("got %+v, %v", result, err)
			}
			labtest.AssertClean(t, s.lab)
			points, err := s.repo.List(t.Context(), repository.Filter{VM: s.vm.InstanceUUID})
			if err != nil || (len(points) == 1) != (result != nil) {
				t.Errorf("restore points %+v, %v", points, err)
			}
			id := s.take(t)
			s.lose(t)
			s.restoreAll(t, id)
		})
	}
}

// Ctrl-C in every phase of a restore: no half VM, no files, no lease, and the next one succeeds.
func TestInterruptedRestore(t *testing.T) {
	t.Parallel()
	for _, call := range []string{
		"ImportVApp", "POST /nfc", "HttpNfcLeaseComplete", "ReconfigVM_Task", "PUT /folder",
		"CreateSnapshotEx_Task", "GET /folder", "RemoveSnapshot_Task",
	} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			id := s.take(t)
			s.lose(t)
			ctx, hit := s.interrupt(t, call)
			result, err := s.m.Restore(ctx, restore.Request{BackupID: id, Verify: true})
			if !errors.Is(err, context.Canceled) || result != nil {
				t.Errorf("got %+v, %v", result, err)
			}
			if !hit() {
				t.Fatalf("the call was never made: %v; %v", err, s.lab.Calls())
			}
			labtest.AssertClean(t, s.lab)
			if vms := s.lab.Status().VMs; len(vms) > 0 {
				t.Errorf("VMs %+v", vms)
			}
			s.restoreAll(t, id)
		})
	}
}

// Ctrl-C while the restored VM is started: it is complete and stays. That is an error only if the VM
// doesn't run: with one, Terraform would replace a VM that does.
func TestInterruptedPowerOn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id := s.take(t)
	s.lose(t)
	ctx, hit := s.interrupt(t, "PowerOnVM_Task")
	result, err := s.m.Restore(ctx, restore.Request{BackupID: id})
	if !hit() {
		t.Fatal("the VM was not started")
	}
	if result == nil {
		t.Fatalf("no result, %v", err)
	}
	vms := s.lab.Status().VMs
	if len(vms) != 1 || vms[0].InstanceUUID != s.vm.InstanceUUID || (vms[0].PowerState == "poweredOn") != (result.VM.PowerState == hypervisor.PoweredOn) {
		t.Fatalf("the lab has %+v, the result is %+v", vms, result.VM)
	}
	if runs := result.VM.PowerState == hypervisor.PoweredOn; runs != (err == nil) || !runs && !errors.Is(err, context.Canceled) {
		t.Errorf("the VM is %s: %v", result.VM.PowerState, err)
	}
	labtest.AssertClean(t, s.lab)
}
