package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// asTask and asCall are the two ways in which a fault arrives.
func asTask(f types.BaseMethodFault) error {
	return task.Error{LocalizedMethodFault: &types.LocalizedMethodFault{Fault: f, LocalizedMessage: "the server says so"}}
}

func asCall(f types.BaseMethodFault) error { return soap.WrapVimFault(f) }

func TestClassify(t *testing.T) {
	t.Parallel()
	host := types.ManagedObjectReference{Type: "HostSystem", Value: "host-1"}
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	text := func(want ...string) func(error) bool {
		return func(err error) bool {
			for _, w := range want {
				if !strings.Contains(err.Error(), w) {
					return false
				}
			}
			return true
		}
	}
	for name, tt := range map[string]struct {
		fault types.BaseMethodFault
		match func(error) bool
	}{
		"application quiesce": {&types.ApplicationQuiesceFault{}, is(hypervisor.ErrQuiesce)},
		"filesystem quiesce":  {&types.FilesystemQuiesceFault{}, is(hypervisor.ErrQuiesce)},
		"levels":              {&types.TooManySnapshotLevels{}, is(hypervisor.ErrTooManySnapshots)},
		"login":               {&types.InvalidLogin{}, is(hypervisor.ErrLogin)},
		"tools":               {&types.ToolsUnavailable{}, is(hypervisor.ErrGuestAgent)},
		"space": {&types.NoDiskSpace{Datastore: "ds1"}, func(err error) bool {
			var e *hypervisor.InsufficientSpaceError
			return errors.As(err, &e) && e.Datastore == "ds1"
		}},
		"storage": {&types.InsufficientStorageSpace{}, func(err error) bool {
			var e *hypervisor.InsufficientSpaceError
			return errors.As(err, &e)
		}},
		"permission": {&types.NoPermission{Object: &host, PrivilegeId: "VirtualMachine.State.CreateSnapshot"}, func(err error) bool {
			var e *hypervisor.PermissionError
			return errors.As(err, &e) && e.Privilege == "VirtualMachine.State.CreateSnapshot" && e.Object == "host-1"
		}},
		"permissions": {&types.NoPermission{MissingPrivileges: []types.NoPermissionEntityPrivileges{
			{Entity: host, PrivilegeIds: []string{"a", "b"}},
		}}, func(err error) bool {
			var e *hypervisor.PermissionError
			return errors.As(err, &e) && e.Privilege == "a, b" && e.Object == "host-1"
		}},
		"session": {&types.NotAuthenticated{}, func(err error) bool {
			var e *hypervisor.PermissionError
			return !errors.As(err, &e)
		}},
		"VM gone": {&types.ManagedObjectNotFound{Obj: vmRef("vm-7")}, func(err error) bool {
			var e *hypervisor.VMNotFoundError
			return errors.As(err, &e) && e.Ref == "vm-7"
		}},
		"snapshot gone": {&types.ManagedObjectNotFound{Obj: snapshotRef("snapshot-7")}, is(hypervisor.ErrSnapshotNotFound)},
		"host gone": {&types.ManagedObjectNotFound{Obj: host}, func(err error) bool {
			return !vmGone(err) && !errors.Is(err, hypervisor.ErrSnapshotNotFound)
		}},
		"locked":       {&types.SnapshotLocked{}, text("locked")},
		"disabled":     {&types.SnapshotDisabled{}, text("disabled")},
		"only one":     {&types.MultipleSnapshotsNotSupported{}, text("only one")},
		"no change":    {&types.SnapshotNoChange{}, text("suspended")},
		"broken":       {&types.InvalidSnapshotFormat{}, text("damaged")},
		"name":         {&types.InvalidName{Name: "a*b"}, text(`"a*b"`)},
		"power":        {&types.InvalidPowerState{ExistingState: "poweredOff"}, text("poweredOff")},
		"other power":  {&types.InvalidPowerState{ExistingState: "poweredOff", RequestedState: "poweredOn"}, text("poweredOff", "poweredOn")},
		"question":     {&types.QuestionPending{Text: "moved or copied?"}, text("moved or copied?")},
		"method":       {&types.MethodDisabled{}, text("disabled")},
		"method by":    {&types.MethodDisabled{Source: "backup-tool"}, text("disabled", "backup-tool")},
		"unknown kind": {&types.ConcurrentAccess{}, text("ConcurrentAccess")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for way, err := range map[string]error{
				"task": asTask(tt.fault), "call": asCall(tt.fault), "wrapped": fmt.Errorf("do: %w", asTask(tt.fault)),
			} {
				got := classify(err)
				if !tt.match(got) {
					t.Errorf("%s: got %v", way, got)
				}
				if way == "task" && errors.Is(got, hypervisor.ErrQuiesce) && !strings.Contains(got.Error(), "the server says so") {
					t.Errorf("the server's words are lost: %v", got)
				}
			}
		})
	}
	if err := classify(nil); err != nil {
		t.Errorf("nothing becomes %v", err)
	}
}

func TestIncompatibleDevice(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		inner types.BaseMethodFault
		kind  hypervisor.ObstacleKind
	}{
		"bus": {&types.SharedBusControllerNotSupported{
			DeviceNotSupported: types.DeviceNotSupported{Device: "SCSI controller 1"},
		}, hypervisor.ObstacleSharedBus},
		"raw": {&types.RawDiskNotSupported{
			DeviceNotSupported: types.DeviceNotSupported{Device: "SCSI controller 1"},
		}, hypervisor.ObstaclePhysicalRDM},
	} {
		o := incompatibleDevice(&types.SnapshotIncompatibleDeviceInVm{
			Fault: types.LocalizedMethodFault{Fault: tt.inner, LocalizedMessage: "It can't."},
		})
		if o.Device != "SCSI controller 1" || o.Kind != tt.kind || !o.BlocksSnapshot || !strings.Contains(o.Reason, "It can't") {
			t.Errorf("%s: got %+v", name, o)
		}
	}
}

// fakeStatus looks like the client library's.
type fakeStatus string

func (e fakeStatus) Error() string { return string(e) }

func inURL(err error) error {
	return &url.Error{Op: "Post", URL: "https://operator:secret@vc/sdk", Err: err}
}

func TestTransient(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err                           error
		network, transient, ambiguous bool
		status                        int
	}{
		"refused":     {err: inURL(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), network: true, transient: true, ambiguous: true},
		"reset":       {err: inURL(syscall.ECONNRESET), network: true, transient: true, ambiguous: true},
		"EOF":         {err: inURL(io.EOF), network: true, transient: true, ambiguous: true},
		"truncated":   {err: io.ErrUnexpectedEOF, network: true, transient: true, ambiguous: true},
		"no name":     {err: inURL(&net.DNSError{}), network: true, transient: true, ambiguous: true},
		"timeout":     {err: inURL(context.DeadlineExceeded), network: true, transient: true, ambiguous: true},
		"cancelled":   {err: inURL(context.Canceled)},
		"certificate": {err: inURL(&hypervisor.CertificateError{Err: io.EOF})},
		"503":         {err: inURL(fakeStatus("503 Service Unavailable")), transient: true, ambiguous: true, status: 503},
		"404":         {err: inURL(fakeStatus("404 Not Found")), status: 404},
		"other text":  {err: inURL(fakeStatus("503 monkeys"))},
		"host":        {err: asCall(&types.HostNotConnected{}), transient: true},
		"fault":       {err: asCall(&types.NoPermission{})},
		"gone":        {err: fmt.Errorf("task-1: %w", errGone), ambiguous: true},
		"unknown end": {err: fmt.Errorf("wait for task-1: %w: %w", errUnknownEnd, asCall(&types.NoPermission{})), ambiguous: true},
		"other":       {err: errors.New("other")},
	} {
		if got := isNetworkError(tt.err); got != tt.network {
			t.Errorf("%s: network %t", name, got)
		}
		if got := isTransient(tt.err); got != tt.transient {
			t.Errorf("%s: transient %t", name, got)
		}
		if got := isAmbiguous(tt.err); got != tt.ambiguous {
			t.Errorf("%s: ambiguous %t", name, got)
		}
		if got := statusOf(tt.err); got != tt.status {
			t.Errorf("%s: status %d", name, got)
		}
		if got := classify(tt.err).Error(); strings.Contains(got, "secret") {
			t.Errorf("%s: the address with its password is in %q", name, got)
		}
	}
}

func FuzzEscapeName(f *testing.F) {
	for _, s := range []string{"", "web01", "100%", "a/b", `a\b`, "%25", "%2f%5C", "%%%", "ü/%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		escaped := escapeName(name)
		if strings.ContainsAny(escaped, `/\`) {
			t.Errorf("%q becomes %q", name, escaped)
		}
		if got := unescapeName(escaped); got != name {
			t.Errorf("%q becomes %q becomes %q", name, escaped, got)
		}
	})
}
