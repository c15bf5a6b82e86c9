package restore_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
)

func TestRestore_verify(t *testing.T) {
	t.Parallel()
	for name, vm := range map[string]*restore.NewVM{
		"original": nil, "copy": {Name: "copy", Identity: hypervisor.IdentityCopy},
	} {
		s := newScene(t)
		if vm == nil {
			s.hv.Lose(s.vm.ID)
		}
		for _, disks := range [][]string{nil, {"Hard disk 2"}} {
			result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id, NewVM: vm, Disks: disks, Verify: true})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !result.Verified || disks != nil && len(result.Disks) != 1 {
				t.Errorf("%s: %+v", name, result)
			}
			if left := s.hv.Leftovers(""); len(left) > 0 {
				t.Errorf("%s: left behind: %v", name, left)
			}
			if err := s.hv.DestroyVM(t.Context(), result.VM.ID); err != nil {
				t.Error(err)
			}
		}
		if n := s.hv.Seen(hypervisortest.BeforeOpenDisk); n != 3 {
			t.Errorf("%s: %d disks were read back, want 3", name, n)
		}
	}
}

// A hypervisor that stores other bytes than it was given, and says nothing: no VM comes of that.
func TestRestore_verifyFinds(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hv.Lose(s.vm.ID)
	lies := lyingHypervisor{s.hv, func(ctx context.Context, src disk.Source) { _ = drain(ctx, src, nil) }}
	m := restore.New(lies, s.repo, slog.New(slog.DiscardHandler), time.Now)
	result, err := m.Restore(t.Context(), restore.Request{BackupID: s.id, Verify: true})
	var bad *restore.VerifyError
	if !errors.As(err, &bad) || result != nil {
		t.Fatalf("got %+v, %v", result, err)
	}
	if !strings.HasPrefix(bad.Disk, "Hard disk ") || !strings.HasPrefix(bad.Want, "blake3-1m:") || bad.Want == bad.Got {
		t.Errorf("%+v", bad)
	}
	s.wantClean(t, 0)
	if _, err := m.Restore(t.Context(), restore.Request{BackupID: s.id}); err != nil {
		t.Errorf("without verifying it goes unnoticed, so that the test shows something: %v", err)
	}
}

func TestRestore_verifyFails(t *testing.T) {
	t.Parallel()
	for _, at := range []hypervisortest.Point{
		hypervisortest.BeforeOpenPointInTime, hypervisortest.DuringOpenPointInTime, hypervisortest.BeforeOpenDisk,
		hypervisortest.DuringRead, hypervisortest.BeforeClose,
	} {
		for _, how := range []string{"error", "cancel"} {
			if at == hypervisortest.BeforeClose && how == "cancel" {
				continue // closing doesn't end with the caller
			}
			s := newScene(t)
			s.hv.Lose(s.vm.ID)
			ctx, cancel := context.WithCancel(t.Context())
			want, fault := errBroken, hypervisortest.Fault{At: at, Err: errBroken}
			if how == "cancel" {
				want, fault = context.Canceled, hypervisortest.Fault{At: at, Do: func(context.Context) { cancel() }}
			}
			s.hv.Fail(fault)
			result, err := s.m.Restore(ctx, restore.Request{BackupID: s.id, Verify: true})
			cancel()
			if !errors.Is(err, want) || result != nil {
				t.Errorf("%s, %s: got %+v, %v", at, how, result, err)
			}
			s.wantClean(t, 0)
		}
	}
}

// The digest that is made of what is read back is the one that a backup makes, however the disk is read.
func TestRestore_verifyDigest(t *testing.T) {
	t.Parallel()
	image := content(7, 5<<20+512)
	copy(image[3<<20:], make([]byte, 1<<20)) // a block of zeros
	blocks := disk.Blocks{}
	for at := 0; at < len(image); at += disk.BlockSize {
		if b := image[at:min(at+disk.BlockSize, len(image))]; !disk.IsZero(b) {
			blocks[int64(at/disk.BlockSize)] = disk.HashBlock(b)
		}
	}
	want := blocks.Digest(int64(len(image)))
	for _, step := range []int{512, 65536, 1 << 20, 3<<20 + 1024, len(image)} {
		if got, err := restore.DigestOf(t.Context(), pieces{image, step}); err != nil || got != want {
			t.Errorf("in pieces of %d bytes: %s, %v, want %s", step, got, err, want)
		}
	}
	if _, err := restore.DigestOf(t.Context(), broken{}); !errors.Is(err, errBroken) {
		t.Errorf("got error %v", err)
	}
}

// pieces yields an image piece by piece, without those that are all zero.
type pieces struct {
	image []byte
	step  int
}

func (p pieces) Capacity() int64 { return int64(len(p.image)) }

func (p pieces) Extents(_ context.Context, yield func(offset int64, data []byte) error) error {
	for at := 0; at < len(p.image); at += p.step {
		b := p.image[at:min(at+p.step, len(p.image))]
		if disk.IsZero(b) {
			continue
		}
		if err := yield(int64(at), b); err != nil {
			return err
		}
	}
	return nil
}

// broken can't be read.
type broken struct{}

func (broken) Capacity() int64 { return 512 }

func (broken) Extents(context.Context, func(int64, []byte) error) error { return errBroken }

// Disks that are not restored have no part in the verification: they may be such as no snapshot covers.
func TestRestoreInPlace_verifiesRestored(t *testing.T) {
	t.Parallel()
	s, own := newChangedScene(t)
	var spec hypervisor.PointInTimeSpec
	m := restore.New(pointHypervisor{s.hv, &spec}, s.repo, slog.New(slog.DiscardHandler), time.Now)
	r := s.inPlace()
	r.Disks, r.Verify = []string{"Hard disk 2"}, true
	if _, err := m.Restore(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(spec.Exclude, []hypervisor.DiskKey{s.vm.Disks[0].Key}) || !bytes.Equal(s.hv.DiskBytes(s.vm.ID, 0), own[0]) {
		t.Errorf("%+v", spec)
	}
	if n := s.hv.Seen(hypervisortest.BeforeOpenDisk); n != 1 {
		t.Errorf("%d disks were read back", n)
	}
}

// A pointHypervisor keeps what points in time are asked for.
type pointHypervisor struct {
	*hypervisortest.Fake
	spec *hypervisor.PointInTimeSpec
}

func (h pointHypervisor) OpenPointInTime(
	ctx context.Context, vm hypervisor.VMID, spec hypervisor.PointInTimeSpec,
) (hypervisor.PointInTime, error) {
	*h.spec = spec
	return h.Fake.OpenPointInTime(ctx, vm, spec)
}

// Disks that were moved to other places of the VM since the backup are told by their UUIDs.
func TestRestoreInPlace_movedDisks(t *testing.T) {
	t.Parallel()
	s, _ := newChangedScene(t)
	s.hv.Edit(s.vm.ID, func(vm *hypervisor.VM) {
		vm.Disks[0].Address, vm.Disks[1].Address = "scsi0:7", "scsi0:0"
	})
	r := s.inPlace()
	r.Verify = true
	result := s.restoreInPlace(t, r, hypervisor.PoweredOn)
	if d := result.Disks; d[0].Address != "scsi0:7" || d[1].Address != "scsi0:0" || d[0].UUID != s.vm.Disks[0].UUID {
		t.Errorf("disks %+v", d)
	}
}

// The caller leaves when all is in place, of a VM that isn't started.
func TestRestoreInPlace_cancelledAtTheEnd(t *testing.T) {
	t.Parallel()
	s, own := newChangedScene(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeClose, Do: func(context.Context) { cancel() }})
	r := s.inPlace()
	r.Verify, r.Power = true, restore.PowerOff
	if result, err := s.m.Restore(ctx, r); !errors.Is(err, context.Canceled) || result != nil {
		t.Errorf("got %+v, %v", result, err)
	}
	s.wantOwn(t, own, hypervisor.PoweredOn)
}
