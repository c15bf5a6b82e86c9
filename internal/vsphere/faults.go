package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// classify translates a fault of the server, whether a call or a task failed with it, to the errors of
// the port. The server's own words stay in the text. Errors that are no faults come back without the
// request's address.
func classify(err error) error {
	if err == nil {
		return nil
	}
	for _, rule := range faultRules {
		if out := rule(err); out != nil {
			return out
		}
	}
	if named := faultName(err); named != "" {
		return fmt.Errorf("%w (%s)", err, named)
	}
	return withoutURL(err)
}

// A faultRule returns nil when it doesn't apply.
type faultRule func(err error) error

// faultRules are tried in order; what is special comes before what is general.
var faultRules = []faultRule{
	wraps(&types.ApplicationQuiesceFault{}, hypervisor.ErrQuiesce),
	wraps(&types.FilesystemQuiesceFault{}, hypervisor.ErrQuiesce),
	wraps(&types.TooManySnapshotLevels{}, hypervisor.ErrTooManySnapshots),
	noSpace,
	noPermission,
	notFound,
	wraps(&types.InvalidLogin{}, hypervisor.ErrLogin),
	wraps(&types.ToolsUnavailable{}, hypervisor.ErrGuestAgent),
	explains(&types.SnapshotLocked{}, "the VM's snapshots are locked"),
	explains(&types.SnapshotDisabled{}, "snapshots are disabled for the VM"),
	explains(&types.MultipleSnapshotsNotSupported{}, "the VM may have only one snapshot"),
	explains(&types.SnapshotNoChange{}, "a suspended VM that has a snapshot of its state can't get another"),
	explains(&types.InvalidSnapshotFormat{}, "the VM's snapshot files are damaged or missing"),
	invalidName,
	powerState,
	questionPending,
	disabled,
}

// wraps makes a rule: faults like target wrap sentinel.
func wraps(target types.BaseMethodFault, sentinel error) faultRule {
	return func(err error) error {
		if !fault.Is(err, target) {
			return nil
		}
		return fmt.Errorf("%w: %s", sentinel, message(err))
	}
}

// explains makes a rule: faults like target get a text that says what they mean.
func explains(target types.BaseMethodFault, text string) faultRule {
	return func(err error) error {
		if !fault.Is(err, target) {
			return nil
		}
		return fmt.Errorf("%s: %w", text, err)
	}
}

func noSpace(err error) error {
	var full *types.NoDiskSpace
	if _, ok := fault.As(err, &full); ok {
		return &hypervisor.InsufficientSpaceError{Datastore: full.Datastore}
	}
	var short *types.InsufficientStorageSpace
	if _, ok := fault.As(err, &short); ok {
		return &hypervisor.InsufficientSpaceError{}
	}
	return nil
}

func noPermission(err error) error {
	if fault.Is(err, &types.NotAuthenticated{}) { // which is a kind of NoPermission
		return nil
	}
	var denied *types.NoPermission
	if _, ok := fault.As(err, &denied); !ok {
		return nil
	}
	out := &hypervisor.PermissionError{Privilege: denied.PrivilegeId}
	if denied.Object != nil {
		out.Object = denied.Object.Value
	}
	if len(denied.MissingPrivileges) > 0 {
		missing := denied.MissingPrivileges[0]
		out.Privilege, out.Object = strings.Join(missing.PrivilegeIds, ", "), missing.Entity.Value
	}
	return out
}

// notFound speaks of VMs and snapshots only; that another object is gone is no outcome of the port.
func notFound(err error) error {
	var gone *types.ManagedObjectNotFound
	if _, ok := fault.As(err, &gone); !ok {
		return nil
	}
	switch gone.Obj.Type {
	case "VirtualMachine":
		return &hypervisor.VMNotFoundError{Ref: gone.Obj.Value}
	case "VirtualMachineSnapshot":
		return fmt.Errorf("%s: %w", gone.Obj.Value, hypervisor.ErrSnapshotNotFound)
	}
	return nil
}

func invalidName(err error) error {
	var bad *types.InvalidName
	if _, ok := fault.As(err, &bad); !ok {
		return nil
	}
	return fmt.Errorf("the server refuses the name %q: %w", bad.Name, err)
}

func powerState(err error) error {
	var state *types.InvalidPowerState
	if _, ok := fault.As(err, &state); !ok {
		return nil
	}
	if state.RequestedState == "" {
		return fmt.Errorf("not possible while the VM is %s: %w", state.ExistingState, err)
	}
	return fmt.Errorf("the VM is %s and would have to be %s: %w", state.ExistingState, state.RequestedState, err)
}

func questionPending(err error) error {
	var pending *types.QuestionPending
	if _, ok := fault.As(err, &pending); !ok {
		return nil
	}
	return fmt.Errorf("the VM waits for an answer to: %s: %w", pending.Text, err)
}

func disabled(err error) error {
	var off *types.MethodDisabled
	if _, ok := fault.As(err, &off); !ok {
		return nil
	}
	if off.Source == "" {
		return fmt.Errorf("the operation is disabled on this object: %w", err)
	}
	return fmt.Errorf("the operation is disabled on this object by %s: %w", off.Source, err)
}

// message is what the server says about a fault, or its name where it says nothing.
func message(err error) string {
	var f types.BaseMethodFault
	if text, ok := fault.As(err, &f); ok && text != "" {
		return text
	}
	text := err.Error()
	if name := faultName(err); name != "" && !strings.Contains(text, name) {
		return strings.TrimPrefix(text+" ("+name+")", " ")
	}
	return text
}

// faultName returns the type of a fault as the API names it, "" if err is none.
func faultName(err error) string {
	var f types.BaseMethodFault
	if _, ok := fault.As(err, &f); !ok || f == nil {
		return ""
	}
	name := fmt.Sprintf("%T", f)
	return name[strings.LastIndexByte(name, '.')+1:]
}

// vmGone tells whether an error says that the VM itself doesn't exist.
func vmGone(err error) bool {
	var gone *hypervisor.VMNotFoundError
	return errors.As(err, &gone)
}

// isFinal tells whether trying again is of no use, or harmful.
func isFinal(err error) bool {
	var denied *hypervisor.PermissionError
	return errors.Is(err, hypervisor.ErrLogin) || errors.As(classify(err), &denied) ||
		fault.Is(err, &types.InvalidProperty{}) || fault.Is(err, &types.InvalidArgument{}) ||
		fault.Is(err, &types.NotSupported{}) || fault.Is(err, &types.MethodNotFound{})
}

// isNetworkError tells whether the server wasn't reached, or the connection broke. Callers look at their
// own context first, whose deadline looks like one of the network.
func isNetworkError(err error) bool {
	var cert *hypervisor.CertificateError
	if statusOf(err) != 0 || errors.As(err, &cert) || errors.Is(err, context.Canceled) {
		return false
	}
	var op *net.OpError
	var dns *net.DNSError
	var timeout net.Error
	return errors.As(err, &op) || errors.As(err, &dns) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPIPE) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

// isBroken tells whether the answer ended too early.
func isBroken(err error) bool {
	var syntax *xml.SyntaxError
	return isNetworkError(err) || errors.As(err, &syntax)
}

// isTransient tells whether the same call may well succeed in a moment.
func isTransient(err error) bool {
	if status := statusOf(err); status != 0 {
		return status == http.StatusServiceUnavailable || status == http.StatusBadGateway ||
			status == http.StatusGatewayTimeout || status == http.StatusTooManyRequests
	}
	for _, f := range []types.BaseMethodFault{
		&types.HostCommunication{}, &types.HostNotReachable{}, &types.HostNotConnected{},
	} {
		if fault.Is(err, f) {
			return true
		}
	}
	return isBroken(err)
}

// errUnknownEnd: the server may have done it, may still be at it, or may have failed.
var errUnknownEnd = errors.New("how it ended is not known")

// isAmbiguous tells whether it is open if the server acted on a call that failed like this, or how a task ended
// that it started.
func isAmbiguous(err error) bool {
	return isBroken(err) || statusOf(err) >= http.StatusInternalServerError ||
		errors.Is(err, errUnknownEnd) || errors.Is(err, errGone)
}

// objectGone tells whether an error says that an object doesn't exist.
func objectGone(err error, ref types.ManagedObjectReference) bool {
	var gone *types.ManagedObjectNotFound
	_, ok := fault.As(err, &gone)
	return ok && gone.Obj.Type == ref.Type && gone.Obj.Value == ref.Value
}

// isUntaken tells whether a call that failed like this never got to the server: nobody took the
// connection, or a proxy said that the server is down.
func isUntaken(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" || statusOf(err) == http.StatusServiceUnavailable
}

// statusOf returns the HTTP status that a call failed with instead of an answer; 0 if it is no such
// error. The client library keeps the response in an unexported type whose text is the status line,
// "503 Service Unavailable"; there is no other way to it.
func statusOf(err error) int {
	var u *url.Error
	if !errors.As(err, &u) || u.Err == nil {
		return 0
	}
	var status int
	var rest string
	if n, _ := fmt.Sscanf(u.Err.Error(), "%d %s", &status, &rest); n < 1 || status < 300 || status > 599 {
		return 0
	}
	if !strings.HasPrefix(u.Err.Error(), fmt.Sprintf("%d %s", status, http.StatusText(status))) {
		return 0
	}
	return status
}

// missingObject is the error for an object that an answer leaves out.
func missingObject(ref types.ManagedObjectReference) error {
	return soap.WrapVimFault(&types.ManagedObjectNotFound{Obj: ref})
}

// named completes an error that doesn't know the server's name.
func (c *Client) named(err error) error {
	var gone *hypervisor.VMNotFoundError
	if errors.As(err, &gone) && gone.Where == "" {
		gone.Where = c.addr
	}
	return err
}
