package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// An argument is what an error is about, in words that hold for every resource. Resources say
// where their own argument of that meaning is.
type argument string

const (
	argVM         argument = "vm"
	argQuiesce    argument = "quiesce"
	argGuestAgent argument = "guest agent"
	argBackup     argument = "backup"
	argNetwork    argument = "network"
	argDatastore  argument = "datastore"
	argPool       argument = "resource pool"
	argFolder     argument = "folder"
	argHost       argument = "host"
	argName       argument = "name"
	argIdentity   argument = "identity"
	argTimeout    argument = "timeout"
	argExclude    argument = "excluded disks"
	argDisks      argument = "disks"
	argGuest      argument = "guest to wait for"
	argOtherVM    argument = "another vm"
	argSnapshot   argument = "snapshot"
	argSnapshots  argument = "snapshots in the way"
	argSkew       argument = "skew"
	argShutdown   argument = "shutdown"
	argHeartbeat  argument = "heartbeat"
)

// An operation is something that can fail: what a diagnostic calls it, and where its arguments are.
type operation struct {
	verb, noun string // "Take", "Snapshot"
	paths      map[argument]path.Path

	// exists says what there is now, after the failure, in one sentence. It may be empty.
	exists string

	// without is what the names of arguments begin with in advice, and don't where this happens.
	without string
}

// leaving returns the operation with a sentence on what there is after a failure.
func (o operation) leaving(format string, args ...any) operation {
	o.exists = fmt.Sprintf(format, args...)
	return o
}

// advice is what to tell about one kind of error.
type advice struct {
	is    func(error) bool
	about argument
	todo  string // what to do about it, in one or two sentences
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func as[T error]() func(error) bool {
	return func(err error) bool {
		var target T
		return errors.As(err, &target)
	}
}

func notAvailable(kind string) func(error) bool {
	return func(err error) bool {
		var missing *hypervisor.NotAvailableError
		return errors.As(err, &missing) && missing.Kind == kind
	}
}

// advices is the one place where errors become advice. The first that matches is used, so the more
// specific ones come first.
var advices = []advice{
	{is: as[*unknownError](), todo: "Give the provider a value that is known when this is read, or apply in two steps " +
		"with -target."},
	{is: is(errNoHypervisor), todo: "Add vsphere = { … } to the provider block, or set " + envServer + ", " + envUser +
		" and " + envPassword + "."},
	{is: is(errNoRepositoryConfigured), todo: "Add repository = { … } to the provider block, or set " +
		envRepositoryPath + " and " + envRepositoryPassword + "."},
	{is: is(errOtherRepository), todo: "Configure the repository that the state was made with, or remove the resource " +
		"from the state with \"terraform state rm\"."},
	{is: is(errOtherServer), todo: "Configure the server that the state was made with. If the virtual machine really " +
		"moved or is gone for good, remove the resource from the state with \"terraform state rm\"."},

	{is: as[*hypervisor.CertificateError](), todo: "Compare the thumbprint with the one that the server's administrator " +
		"gives. If it is the same, set vsphere.thumbprint to it; or set vsphere.ca_file to the certificate of the " +
		"authority that signed it."},
	{is: is(hypervisor.ErrLogin), todo: "Check vsphere.user and vsphere.password (" + envUser + ", " + envPassword + ")."},
	{is: as[*hypervisor.UnreachableError](), todo: "Check vsphere.server (" + envServer + "), and that the server and " +
		"its hosts can be reached from here on port 443."},
	{is: as[*hypervisor.MissingPrivilegesError](), todo: "Nothing was started. Give the user a role with these privileges on " +
		"the objects, or on ones above them with propagation."},
	{is: as[*hypervisor.PermissionError](), todo: "Give the user a role with this privilege on the object, or on one " +
		"above it with propagation."},

	{is: as[*hypervisor.VMNotFoundError](), about: argVM, todo: "Check the reference: a managed object ID (vm-42), a BIOS " +
		"UUID, an instance UUID, an inventory path or a name. The user must be allowed to see the virtual machine."},
	{is: as[*hypervisor.AmbiguousVMError](), about: argVM, todo: "Use one of the paths or identifiers above."},
	{is: as[*hypervisor.ObstacleError](), about: argVM, todo: "Remove what stands in the way first."},
	{is: is(hypervisor.ErrQuiesce), about: argQuiesce, todo: "See to it that the guest agent (VMware Tools) runs and that " +
		"the guest's file systems and applications can be frozen; or set quiesce.mode to \"preferred\" or \"off\", for a " +
		"copy as after a power failure."},
	{is: is(restore.ErrGuest), about: argGuest, todo: "Look at the virtual machine's console. If the guest only needs " +
		"longer, allow more time with wait_for_guest.timeout."},
	{is: is(restore.ErrNoHeartbeat), about: argHeartbeat, todo: "Look at the picture of its screen: set screenshot_file. If the guest only " +
		"needs longer, allow more time with heartbeat_timeout. Without VMware Tools, a guest never gives a heartbeat."},
	{is: is(restore.ErrOtherVM), about: argOtherVM, todo: "Name the virtual machine that was backed up, or set " +
		"in_place.allow_other_vm = true if this one is meant."},
	{is: is(hypervisor.ErrSnapshotsInTheWay), about: argSnapshots, todo: "Remove the snapshots of the virtual machine, or set " +
		"in_place.remove_snapshots = true to have them removed when the restored disks are complete."},
	{is: is(restore.ErrReadFrom), about: argSnapshots, todo: "Apply again once the backup or the restore that reads from it has ended. Don't " +
		"remove the snapshot by hand. One that was killed leaves it to the next backup or restore of the virtual machine to remove."},
	{is: is(hypervisor.ErrShutdown), about: argShutdown, todo: "Allow more time with in_place.shutdown_timeout, shut the guest " +
		"down by hand, or set in_place.power_off = true to have the virtual machine stopped hard."},
	{is: as[*hypervisor.InterruptedError](), about: argVM, todo: "Wait until the other restore has ended, and apply again. One that " +
		"was killed is taken up by the next: at once where its process ran, elsewhere when it has given no sign of life for " +
		"some minutes."},
	{is: is(hypervisor.ErrTakenOver), about: argVM, todo: "This process was paused, or had lost the server, for so long that " +
		"another apply went on in its place. Wait until that has ended; what it did is in its state. Apply again only if you " +
		"want to restore once more."},
	{is: as[*hypervisor.DiskMismatchError](), about: argDisks, todo: "Name the disks to restore with only_disks, or restore " +
		"into a new virtual machine."},
	{is: as[*restore.VerifyError](), todo: "The storage didn't give back what was written to it. Check the " +
		"datastore and the host before anything else, and restore to another datastore."},
	{is: as[*snapshot.WrongVMError](), about: argSnapshot, todo: "Use the id of a snapshot of this virtual machine."},
	{is: as[*snapshot.NameError](), about: argSnapshot, todo: "Use the name of one of its snapshots, or what was given to " +
		"vm_snapshot_create as name."},
	{is: is(snapshot.ErrSkew), about: argSkew, todo: "Allow more with max_skew_seconds, or have fewer members quiesced: that " +
		"takes the longest. The snapshots that were taken are removed."},
	{is: is(hypervisor.ErrGuestAgent), about: argGuestAgent, todo: "Start the guest agent (VMware Tools) in the guest, or " +
		"do without it."},
	{is: is(quiesce.ErrPolicy), about: argQuiesce, todo: "Correct the quiesce argument."},
	{is: is(hypervisor.ErrTooManySnapshots), about: argVM, todo: "Remove snapshots of this virtual machine first. Two or " +
		"three levels are a good limit; 32 are the end."},
	{is: is(hypervisor.ErrSnapshotNotFound), about: argSnapshot, todo: "Refresh the state: \"terraform plan -refresh-only\" shows what is gone."},
	{is: is(hypervisor.ErrConsolidationNeeded), todo: "Consolidate the virtual machine's disks, with the action " +
		"vm_consolidate for one, once whatever holds its files has let go of them: another backup, a clone, or a full datastore."},

	{is: is(hypervisor.ErrOutOfReach), todo: "Give the user the right to see the virtual machine and its snapshots. If it is " +
		"gone for good, remove the resource from the state with \"terraform state rm\"."},
	{is: is(errInUse), todo: "To keep the virtual machine, run \"terraform untaint\" with the resource's address. To have it " +
		"deleted and restored again, power it off first."},
	{is: is(errOtherDisks), todo: "Remove these disks from the virtual machine and keep their files, or delete those that nobody " +
		"needs. To keep the virtual machine, apply on_destroy = \"keep\" first."},
	{is: is(hypervisor.ErrDisksInUse), todo: "Remove that virtual machine first, or give it disks of its own. To keep both, apply " +
		"on_destroy = \"keep\" first."},
	{is: is(errImportedRuns), todo: "If it is the one to be deleted, power it off first. To keep it, remove the resource from the " +
		"state with \"terraform state rm\"."},
	{is: as[*hypervisor.IdentityInUseError](), about: argIdentity, todo: "Remove that virtual machine first, or restore " +
		"beside it: new_vm = { name = \"…\", identity = \"copy\" }."},
	{is: as[*hypervisor.NameInUseError](), about: argName, todo: "Choose another new_vm.name or new_vm.folder, or move the " +
		"other virtual machine away."},
	{is: notAvailable("network"), about: argNetwork, todo: "Name another network with new_vm.network_map."},
	{is: notAvailable("datastore"), about: argDatastore, todo: "Name another datastore with new_vm.datastore or " +
		"new_vm.disk_datastores."},
	{is: notAvailable("resource pool"), about: argPool, todo: "Name another resource pool with new_vm.resource_pool."},
	{is: notAvailable("folder"), about: argFolder, todo: "Name another folder, or create it first."},
	{is: notAvailable("host"), about: argHost, todo: "Name another host with new_vm.host, or none."},
	{is: as[*hypervisor.NotAvailableError](), todo: "Name another one in new_vm."},
	{is: as[*hypervisor.InsufficientSpaceError](), about: argDatastore, todo: "Free space on the datastore, or use another " +
		"one."},
	{is: as[*hypervisor.HardwareVersionError](), about: argHost, todo: "Restore to newer hosts: choose them with " +
		"new_vm.resource_pool or new_vm.host."},
	{is: is(hypervisor.ErrConfigFormat), about: argBackup, todo: "Use a newer version of this provider, and the kind of " +
		"hypervisor that the backup was taken from."},

	{is: is(errNoBackup), about: argVM, todo: "Take a backup first, or check the reference. The data source vm_backups lists the " +
		"backups that there are."},
	{is: is(errSeveralVMs), about: argVM, todo: "Write the instance UUID or the path that only the one has that is meant."},
	{is: is(errScreenshotFile), todo: "Correct screenshot_file: a file in a directory that exists and may be written."},
	{is: is(repository.ErrNotFound), about: argBackup, todo: "Check the ID, and that repository.path names the repository " +
		"that the backup is in. The data source vm_backups lists what is there."},
	{is: is(repository.ErrPassword), todo: "Check repository.password (" + envRepositoryPassword + ")."},
	{is: is(repository.ErrUncertain), todo: "When the repository can be reached again, look with the data source vm_backups whether " +
		"the backup is there, and once more some minutes later: what was sent last may arrive late. One that is there is whole; it isn't in the state. Import it, or apply again, which takes another " +
		"backup and leaves that one."},
	{is: is(repository.ErrRefused), todo: "Check the credentials of the repository in the provider block or the environment, and that " +
		"they allow to list, read, write and delete there."},
	{is: is(repository.ErrUnreachable), todo: "Check where the repository is in the provider block, and that the service can be " +
		"reached from here; then apply again. What was copied already is not copied twice."},
	{is: is(repository.ErrWeakerLock), todo: "Write the object_lock that the repository has, or a stronger one, or none: then it keeps " +
		"its own. What is locked can't be unlocked by a configuration."},
	{is: is(repository.ErrNoRepository), todo: "Check repository.path (" + envRepositoryPath + "), or what is written in its " +
		"place. The first vm_backup creates a repository, in a directory whose parent exists, or a bucket or container that exists."},
	{is: is(repository.ErrReadOnly), todo: "Allow the user who runs Terraform to write to repository.path."},
	{is: is(repository.ErrFull), todo: "Free space where repository.path is, and apply again. What was copied already is " +
		"not copied twice."},
	{is: is(repository.ErrBusy), todo: "Apply again once the repository's maintenance has ended. It runs once a day, and ends " +
		"with its process however that ends."},
	{is: is(repository.ErrInUse), todo: "Apply again once the restore that reads from the backup has ended. One that was killed " +
		"holds nothing."},
	{is: is(repository.ErrTrackingWrong), todo: "The hypervisor's tracking of changes can't be trusted on this virtual " +
		"machine. Take a backup with mode = \"full\", and reset the tracking: on vSphere, switch changed block tracking off " +
		"and on again while there are no snapshots. Earlier backups of which only changes were read may lack some."},
	{is: is(repository.ErrSchemaVersion), about: argBackup, todo: "Use a newer version of this provider."},
	{is: is(repository.ErrIncomplete), todo: "Apply again: a new backup copies what is missing."},
	{is: is(repository.ErrSharedDamage), todo: "Check the storage below repository.path, and restore what it lost from a copy " +
		"if there is one; the action vm_backup_verify and \"kopia snapshot verify\" find what is affected. Until then, back up to another " +
		"directory: in this one, no new backup stores the damaged data again."},
	{is: is(repository.ErrDamaged), about: argBackup, todo: "Don't retry: what is damaged stays damaged. Use another backup, " +
		"and check the storage below repository.path; the action vm_backup_verify and \"kopia snapshot verify\" find what else is affected."},

	{is: is(snapshot.ErrRequest), todo: "Correct the arguments."},
	{is: is(backup.ErrRequest), about: argExclude, todo: "Correct the arguments."},
	{is: is(restore.ErrRequest), todo: "Correct the arguments."},
	{is: is(hypervisor.ErrLost), todo: "Apply again once the server and its hosts can be reached."},
	{is: is(hypervisor.ErrNotSupported), todo: "This hypervisor can't do it; leave the argument out."},
}

// Outcomes that end before any work, because the context did.
var (
	deadlineAdvice = advice{about: argTimeout, todo: "If it only needs longer, allow more time in the timeouts block. What " +
		"was under way on the server was cancelled."}
	cancelAdvice = advice{todo: "Apply again to take it up afresh."}
)

func adviceFor(ctx context.Context, err error) advice {
	// The end of the context explains whatever error it made of the connection.
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return deadlineAdvice
	case errors.Is(ctx.Err(), context.Canceled):
		return cancelAdvice
	}
	for _, a := range advices {
		if a.is(err) {
			return a
		}
	}
	return advice{}
}

// fail adds the diagnostic for an error: what happened, what there is now, what to do.
func (o operation) fail(ctx context.Context, diags *diag.Diagnostics, err error) {
	a := adviceFor(ctx, err)
	summary := "Unable to " + o.verb + " " + o.noun
	detail := o.detail(err, a)
	if at, ok := o.paths[a.about]; ok {
		diags.AddAttributeError(at, summary, detail)
		return
	}
	diags.AddError(summary, detail)
}

// warn adds a warning for an error that the request survived.
func (o operation) warn(ctx context.Context, diags *diag.Diagnostics, summary string, err error) {
	a := adviceFor(ctx, err)
	if at, ok := o.paths[a.about]; ok {
		diags.AddAttributeWarning(at, summary, o.detail(err, a))
		return
	}
	diags.AddWarning(summary, o.detail(err, a))
}

func (o operation) detail(err error, a advice) string {
	parts := []string{sentence(err.Error())}
	todo := a.todo
	if o.without != "" {
		todo = strings.ReplaceAll(todo, o.without, "")
	}
	for _, s := range []string{o.exists, todo} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, "\n\n")
}

// sentence makes a sentence of an error's text. A first word that isn't a plain one, such as the name of
// a server, stays as it is.
func sentence(text string) string {
	word := text
	if end := strings.IndexAny(text, " \n"); end >= 0 {
		word = text[:end]
	}
	plain := strings.IndexFunc(word, func(r rune) bool { return !unicode.IsLower(r) }) < 0
	if first, size := utf8.DecodeRuneInString(text); plain && size > 0 {
		text = string(unicode.ToUpper(first)) + text[size:]
	}
	if text == "" || strings.HasSuffix(text, ".") || strings.Contains(text, "\n") {
		return text
	}
	return text + "."
}

// warnings adds what an operation has to say about its result.
func warnings(diags *diag.Diagnostics, summary string, texts []string) {
	for _, text := range texts {
		diags.AddWarning(summary, sentence(text))
	}
}
