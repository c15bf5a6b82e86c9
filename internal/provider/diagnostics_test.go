package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/diag"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// everyError is at least one error for every row of advices, in the order of the rows.
func everyError() []error {
	missing := func(kind, name string, there ...string) error {
		return fmt.Errorf("restore %q from 61a9: %w", "web01",
			&hypervisor.NotAvailableError{Kind: kind, Name: name, Available: there})
	}
	return []error{
		&unknownError{"vsphere.server"},
		errNoHypervisor,
		errNoRepositoryConfigured,
		fmt.Errorf("%w: its ID is aa, but the backup is in bb", errOtherRepository),
		fmt.Errorf("%w: it is aa, but the resource was made on bb", errOtherServer),
		&hypervisor.CertificateError{Server: "vc:443", Thumbprint: "AB:CD", Err: errors.New("signed by unknown authority")},
		fmt.Errorf("log in to vc as u: %w", hypervisor.ErrLogin),
		&hypervisor.UnreachableError{Server: "vc:443", Err: errors.New("connection refused")},
		&hypervisor.PermissionError{Privilege: "VirtualMachine.State.CreateSnapshot", Object: "/DC0/vm/web01"},
		&hypervisor.MissingPrivilegesError{Missing: []hypervisor.PermissionError{
			{Privilege: "VApp.Import, Resource.AssignVMToPool", Object: "/DC0/host/C0/Resources"},
			{Privilege: "Datastore.AllocateSpace", Object: "datastore ssd"},
		}},
		&hypervisor.VMNotFoundError{Ref: "web01", Where: "vc"},
		&hypervisor.AmbiguousVMError{Ref: "web", Matches: []string{"/DC0/vm/a/web (u1)", "/DC0/vm/b/web (u2)"}},
		&hypervisor.ObstacleError{VM: "/DC0/vm/web01", Obstacles: []hypervisor.Obstacle{{
			Kind: hypervisor.ObstacleIndependent, Device: "Hard disk 2", Reason: "It is independent.", Remedy: "Exclude it.",
		}}},
		fmt.Errorf("take snapshot %q of web01: %w", "s", hypervisor.ErrQuiesce),
		fmt.Errorf("web01 is restored and runs, but %w after 10m0s", restore.ErrGuest),
		fmt.Errorf("rehearse a restore of /DC0/vm/web01 from 61a9: the copy was started, but %w within 10m0s", restore.ErrNoHeartbeat),
		fmt.Errorf("restore into web02: %w", restore.ErrOtherVM),
		fmt.Errorf("restore into web01: %w", hypervisor.ErrSnapshotsInTheWay),
		fmt.Errorf("/DC0/vm/web01: %w: %q (on ci-1, since 2026-03-01T12:00:00Z)", restore.ErrReadFrom, "tf-backup-61a9"),
		fmt.Errorf("shut down web01: %w", hypervisor.ErrShutdown),
		&hypervisor.InterruptedError{VM: "/DC0/vm/web01", Interrupted: hypervisor.Interrupted{RunID: "r1"}},
		fmt.Errorf("replace the disks of web01: %w", hypervisor.ErrTakenOver),
		&hypervisor.DiskMismatchError{VM: "/DC0/vm/web01", Disk: "Hard disk 2 (scsi0:1)", Reason: "there is none", Disks: []string{"Hard disk 1 (scsi0:0)"}},
		&restore.VerifyError{Disk: "Hard disk 1 (scsi0:0)", Want: "blake3-1m:aa", Got: "blake3-1m:bb"},
		&snapshot.WrongVMError{Snapshot: "snapshot-7", VM: "/DC0/vm/web01", Of: "/DC0/vm/db01"},
		&snapshot.NameError{VM: "/DC0/vm/web01", Name: "before update", Has: []string{"a", "b"}},
		fmt.Errorf("take the set %q: %w: 7s", "before upgrade", snapshot.ErrSkew),
		fmt.Errorf("shut down web01: %w", hypervisor.ErrGuestAgent),
		fmt.Errorf("%w: the timeout is negative", quiesce.ErrPolicy),
		hypervisor.ErrTooManySnapshots,
		hypervisor.ErrSnapshotNotFound,
		hypervisor.ErrConsolidationNeeded,
		fmt.Errorf("vm-42 exists: %w", hypervisor.ErrOutOfReach),
		fmt.Errorf("delete web01: %w", errInUse),
		fmt.Errorf("delete web01: %w: Hard disk 2 ([ds] db01/db01.vmdk)", errOtherDisks),
		fmt.Errorf("destroy web01: %w: clone01 ([ds] web01/web01.vmdk)", hypervisor.ErrDisksInUse),
		fmt.Errorf("delete web01: %w", errImportedRuns),
		&hypervisor.IdentityInUseError{Kind: "BIOS UUID", Value: "u1", VM: "/DC0/vm/web01"},
		&hypervisor.NameInUseError{Name: "web01", Folder: "/DC0/vm"},
		missing("network", "prod", "VM Network", "dev"),
		missing("datastore", "ssd", "LocalDS_0"),
		missing("resource pool", "gold"),
		missing("folder", "/DC0/vm/x"),
		missing("host", "esx1", "esx2"),
		missing("storage policy", "gold"),
		&hypervisor.InsufficientSpaceError{Datastore: "ssd", Need: 200, Free: 100},
		&hypervisor.HardwareVersionError{Version: "vmx-21", Supported: []string{"vmx-19", "vmx-20"}},
		hypervisor.ErrConfigFormat,
		fmt.Errorf("%w of %q in the repository", errNoBackup, "web01"),
		ofOne("web01", []repository.RestorePoint{
			{VMPath: "/a/web01", Server: "vc1", InstanceUUID: "5020"}, {VMPath: "/b/web01", Server: "vc2", InstanceUUID: "5020"}}),
		fmt.Errorf("%w: the directory /x doesn't exist", errScreenshotFile),
		fmt.Errorf("get 61a9: %w", repository.ErrNotFound),
		fmt.Errorf("open repository /srv/b: %w", repository.ErrPassword),
		fmt.Errorf("commit to repository s3://b/: restore point 61a9: %w: write xn0_1: %w: unexpected EOF", repository.ErrUncertain,
			repository.ErrUnreachable),
		fmt.Errorf("open repository s3://b/: connect: %w: AccessDenied: Access Denied", repository.ErrRefused),
		fmt.Errorf("write disk \"disk.raw\" to repository s3://b/: write p12ab: %w: dial tcp 10.0.0.1:443: connect: connection refused",
			repository.ErrUnreachable),
		fmt.Errorf("open repository s3://b/: %w: they are locked by compliance for 30 days, and governance for 7 days is configured",
			repository.ErrWeakerLock),
		fmt.Errorf("open repository /srv/b: %w", repository.ErrNoRepository),
		repository.ErrReadOnly,
		repository.ErrFull,
		fmt.Errorf("write to repository /srv/b: %w: process 7 on ci-1 maintains it since 2026-03-01T12:00:00Z", repository.ErrBusy),
		fmt.Errorf("delete restore point 61a9: %w", repository.ErrInUse),
		&repository.TrackingError{Base: "61a9", File: "disk-2000.raw", Offset: 5 << 20},
		repository.ErrSchemaVersion,
		repository.ErrIncomplete,
		fmt.Errorf("commit to repository /srv/b: %w: pack p12ab is missing", repository.ErrSharedDamage),
		&repository.DigestError{ID: "61a9", File: "disk-2000.raw", Want: "blake3-1m:aa", Got: "blake3-1m:bb"},
		fmt.Errorf("%w: memory and quiesce", snapshot.ErrRequest),
		fmt.Errorf("%w: web01 has no disk %q to exclude", backup.ErrRequest, "Hard disk 9"),
		fmt.Errorf("%w: no network %q in the backup", restore.ErrRequest, "x"),
		fmt.Errorf("read disk: %w", hypervisor.ErrLost),
		hypervisor.ErrNotSupported,
	}
}

// TestDiagnostics compares what people get to read, word for word, with testdata/diagnostics.txt.
func TestDiagnostics(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	write := func(ctx context.Context, o operation, err error) {
		var diags diag.Diagnostics
		o.fail(ctx, &diags, err)
		for _, d := range diags {
			at := ""
			if p, ok := d.(diag.DiagnosticWithPath); ok {
				at = " at " + p.Path().String()
			}
			fmt.Fprintf(&b, "%s: %s%s\n%s\n\n---\n", d.Severity(), d.Summary(), at, d.Detail())
		}
	}
	var hit []int
	for _, err := range everyError() {
		row := slices.IndexFunc(advices, func(a advice) bool { return a.is(err) })
		hit = append(hit, row)
		o := backupOperation("Take", "create").leaving("There is no backup.")
		if row > 0 && slices.Contains([]argument{argNetwork, argDatastore, argPool, argFolder, argHost, argName, argIdentity, argBackup}, advices[row].about) {
			o = restoreOperation("Restore", "Virtual Machine", "create")
		}
		if row > 0 && slices.Contains([]argument{argGuest, argOtherVM, argSnapshots, argShutdown, argDisks}, advices[row].about) {
			o = inPlaceOperation("Restore", "Virtual Machine", "create")
		}
		if row > 0 && slices.Contains([]argument{argHeartbeat}, advices[row].about) {
			o = restoreTestOperation("Test", "Restore")
		}
		if row > 0 && slices.Contains([]argument{argSnapshot}, advices[row].about) {
			o = revertOperation("Revert", "create", &restoreModel{})
		}
		write(t.Context(), o, err)
	}
	for i := range advices {
		if !slices.Contains(hit, i) {
			t.Errorf("no error hits row %d: %s", i, advices[i].todo)
		}
	}
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	<-late.Done()
	write(late, snapshotOperation("Take", "create"), fmt.Errorf("task-7: %w", late.Err()))
	stopped, stop := context.WithCancel(t.Context())
	stop()
	write(stopped, snapshotOperation("Take", "create"), fmt.Errorf("task-7: %w", stopped.Err()))
	write(t.Context(), snapshotOperation("Take", "create"), errors.New("something else.\nIn two lines"))

	compareGolden(t, "testdata/diagnostics.txt", b.String())
}

func TestSentence(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                "",
		"read x: gone":    "Read x: gone.",
		"ärger":           "Ärger.",
		"vc:443 is off":   "vc:443 is off.",
		"web01: gone":     "web01: gone.",
		"it is so.":       "It is so.",
		"two\n  lines":    "Two\n  lines",
		"\"web\" matches": "\"web\" matches.",
	} {
		if got := sentence(text); got != want {
			t.Errorf("sentence(%q) is %q, want %q", text, got, want)
		}
	}
}
