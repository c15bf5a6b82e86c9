package vsphere

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// remove takes back whatever was created. An import whose lease is aborted is undone by the server; what
// remains nevertheless is removed here.
func (r *restore) remove(ctx context.Context) error {
	if r.lease != nil {
		if err := r.lease.abort(ctx); err != nil && !errors.Is(err, errLeaseEnded) {
			r.client.log.WarnContext(ctx, "end the lease of an import", "vm", r.rebuild.name, "error", err)
		}
	}
	ref := r.vm
	if ref.Value == "" {
		// The call that creates the VM failed, or its answer was lost.
		found, err := r.awaitMade(ctx)
		if err != nil {
			return fmt.Errorf("%q may have been left behind in %s: %w", r.rebuild.name, r.place.folderPath, err)
		}
		if found != nil {
			ref = *found
		}
	}
	if ref.Value == "" {
		return nil // without a VM there is no directory of ours
	}
	destroyed, err := r.client.destroyHeld(ctx, hypervisor.VMID(ref.Value))
	if err != nil {
		return fmt.Errorf("%q was left behind in %s: %w", r.rebuild.name, r.place.folderPath, err)
	}
	// Where the server has undone the import, the directory may be somebody else's by now.
	datastore, file := splitPath(r.vmx) // the server may have chosen another directory than was asked for
	if store, ok := r.place.stores[datastore]; ok && destroyed && path.Dir(file) != "." && !keepsObjects(store) {
		err := r.client.deleteDirectory(ctx, r.place.datacenter, store, path.Dir(file))
		if err == nil && r.writing {
			err = r.deleteLate(ctx, store, path.Dir(file))
		}
		if err != nil {
			return fmt.Errorf("the directory %s was left behind: %w", joinPath(datastore, path.Dir(file)), err)
		}
	}
	return nil
}

// lateTimeout is for how long the NVRAM may appear whose upload broke off.
const lateTimeout = 5 * time.Second

// deleteLate removes the NVRAM if it comes after its directory has gone, which the server makes anew for it.
func (r *restore) deleteLate(ctx context.Context, store mo.Datastore, directory string) error {
	appear, cancel := context.WithTimeout(ctx, lateTimeout)
	defer cancel()
	for attempt := 1; pause(appear, backoff(attempt)) == nil; attempt++ {
		files, err := r.client.searchDatastore(ctx, store, directory, "*")
		switch {
		case err == nil && len(files) == 1 && path.Ext(files[0]) == ".nvram":
			return r.client.deleteDirectory(ctx, r.place.datacenter, store, directory)
		case err == nil && len(files) > 0: // somebody else has it by now
			return nil
		case err != nil && !errors.Is(err, errNoFile):
			return err
		}
	}
	return nil
}

// appearTimeout is for how long a VM may appear whose import was asked for and not answered. The server
// creates it beside the call.
const appearTimeout = 15 * time.Second

// awaitMade finds the VM in the making; nil: there is none. Where the answer to the import was lost, one
// that isn't there may still come; one that the server is at may have no configuration yet.
func (r *restore) awaitMade(ctx context.Context) (*types.ManagedObjectReference, error) {
	appear, cancel := context.WithTimeout(ctx, appearTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		found, err := r.client.findMade(ctx, r.place.folder, r.spec.RunID)
		again := err == nil && found == nil && r.unanswered || errors.Is(err, hypervisor.ErrOutOfReach)
		if !again || pause(appear, backoff(attempt)) != nil {
			return found, err
		}
	}
}

// findMade finds the VM in the making of a run; nil: there is none. Error: hypervisor.ErrOutOfReach, where one has the
// name and it can't be told.
func (c *Client) findMade(
	ctx context.Context, folder types.ManagedObjectReference, runID string,
) (*types.ManagedObjectReference, error) {
	ref, err := c.findChild(ctx, folder, makingName(runID))
	if err != nil || ref == nil || ref.Type != "VirtualMachine" {
		return nil, err
	}
	marker, err := c.readMarker(ctx, *ref)
	if err != nil || marker != runID {
		return nil, err
	}
	return ref, nil
}

// readMarker returns the ID of the run that makes a VM, or "". Error: hypervisor.ErrOutOfReach.
func (c *Client) readMarker(ctx context.Context, ref types.ManagedObjectReference) (string, error) {
	var vm mo.VirtualMachine
	err := c.properties(ctx, ref, []string{"name", "config.extraConfig", "runtime.connectionState"}, &vm)
	switch {
	case err != nil && vmGone(err):
		return "", nil
	case err != nil:
		return "", err
	case vm.Config == nil:
		return "", unreadable(&vm, unescapeName(vm.Name))
	}
	return optionValue(vm.Config.ExtraConfig, markerKey), nil
}

// debris are the extensions of files that a VM in the making may leave in its directory.
var debris = []string{".nvram", ".log", ".hlog", ".vmsd", ".vmxf", ".vswp", ".png"}

// deleteDirectory removes what a destroyed VM left in its directory. One that isn't there is no error. One
// that holds anything else belongs to somebody who came since. A file that the server is still writing, for
// a client that didn't hear how that ended, keeps the directory for a moment.
func (c *Client) deleteDirectory(
	ctx context.Context, datacenter lineage, store mo.Datastore, directory string,
) error {
	dc := datacenter.datacenter()
	if dc == nil || store.Browser.Value == "" {
		return nil
	}
	return untilDeleted(ctx, func() error { return c.tryDeleteDirectory(ctx, dc.Self, store, directory) })
}

// untilDeleted tries to delete what may still be held for a while.
func untilDeleted(ctx context.Context, try func() error) error {
	busy, cancel := context.WithTimeout(ctx, appearTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := try()
		if err == nil || !mayDeleteLater(err) || pause(busy, backoff(attempt)) != nil {
			return err
		}
	}
}

// mayDeleteLater tells whether a file or directory whose removal failed like this may be removed in a while.
func mayDeleteLater(err error) bool {
	for _, f := range []types.BaseMethodFault{
		&types.FileLocked{}, &types.CannotDeleteFile{}, &types.DirectoryNotEmpty{}, &types.FileFault{},
	} {
		if fault.Is(err, f) {
			return true
		}
	}
	return isAmbiguous(err)
}

// deleteRounds is how often a directory is emptied that fills again meanwhile.
const deleteRounds = 3

// tryDeleteDirectory empties a directory before it removes it, since it would go with all that is in it, and
// others may put something there at any time.
func (c *Client) tryDeleteDirectory(
	ctx context.Context, datacenter types.ManagedObjectReference, store mo.Datastore, directory string,
) error {
	for range deleteRounds {
		files, err := c.searchDatastore(ctx, store, directory, "*")
		switch {
		case errors.Is(err, errNoFile):
			return nil
		case err != nil:
			return err
		case len(files) == 0:
			return c.tryDeleteFile(ctx, datacenter, joinPath(store.Name, directory))
		}
		for _, file := range files {
			if !slices.Contains(debris, path.Ext(file)) {
				c.log.WarnContext(ctx, "leaving a directory that holds files of others", "directory", directory, "file", file)
				return nil
			}
		}
		for _, file := range files {
			if err := c.tryDeleteFile(ctx, datacenter, joinPath(store.Name, path.Join(directory, file))); err != nil {
				return err
			}
		}
	}
	return errors.New("files come again and again")
}

// tryDeleteFile deletes a file, or a directory with all that is in it. One that isn't there is no error.
func (c *Client) tryDeleteFile(ctx context.Context, datacenter types.ManagedObjectReference, name string) error {
	_, err := c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
		res, err := methods.DeleteDatastoreFile_Task(ctx, c.vim, &types.DeleteDatastoreFile_Task{
			This: *c.vim.ServiceContent.FileManager, Name: name, Datacenter: &datacenter,
		})
		if err != nil {
			return nil, err
		}
		return object.NewTask(c.vim, res.Returnval), nil
	})
	if fault.Is(err, &types.FileNotFound{}) {
		return nil
	}
	return withoutURL(err)
}

// CleanUpRestores implements hypervisor.Restorer. A VM counts as one of ours only if it has both the name
// and the marker of a VM in the making.
func (c *Client) CleanUpRestores(ctx context.Context, abandoned func(hypervisor.Unfinished) bool) ([]string, error) {
	vms, err := c.list(ctx, "VirtualMachine", "name")
	if err != nil {
		return nil, fmt.Errorf("clean up restores: %w", err)
	}
	var removed []string
	var errs []error
	for ref, object := range vms {
		name, _ := nameAndParent(object)
		runID, ok := strings.CutPrefix(unescapeName(name), makingPrefix)
		if !ok {
			continue
		}
		found, err := c.unfinished(ctx, ref, runID)
		if err != nil {
			errs = append(errs, err)
		}
		if found == nil || !abandoned(*found) {
			continue
		}
		err = c.removeUnfinished(ctx, ref, *found)
		switch {
		case fault.Is(err, &types.InvalidState{}): // held by a lease until that expires
			c.log.InfoContext(ctx, "the server still holds what a killed restore left", "vm", found.Name)
		case errors.Is(err, hypervisor.ErrTakenOver):
			c.log.InfoContext(ctx, "somebody is at what was taken for the rest of a killed restore", "vm", found.Name)
		case err != nil:
			errs = append(errs, fmt.Errorf("%q was left behind: %w", found.Name, err))
		default:
			removed = append(removed, found.Name)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("clean up restores: %w", err)
	}
	return removed, nil
}

// unfinished reads a VM in the making of a run; nil: it is none.
func (c *Client) unfinished(
	ctx context.Context, ref types.ManagedObjectReference, runID string,
) (*hypervisor.Unfinished, error) {
	var vm mo.VirtualMachine
	err := c.properties(ctx, ref, []string{"config.extraConfig", "recentTask"}, &vm)
	switch {
	case err != nil && vmGone(err):
		return nil, nil
	case err != nil:
		return nil, err
	case vm.Config == nil || optionValue(vm.Config.ExtraConfig, markerKey) != runID:
		return nil, nil
	}
	vm.Self = ref
	out := &hypervisor.Unfinished{
		Name: makingName(runID), RunID: runID, Lease: optionValue(vm.Config.ExtraConfig, tenureKey),
	}
	out.Busy = out.Lease != "" && c.busy(ctx, &vm)
	return out, nil
}

// takenAway is the lease of a VM in the making that somebody is removing who isn't the run that made it.
const takenAway = "taken away"

// removeUnfinished removes a VM in the making. A run that still is at it must not give it its name any more, and finds
// that out by the lease. Error: hypervisor.ErrTakenOver, if it isn't as it was found any more.
func (c *Client) removeUnfinished(
	ctx context.Context, ref types.ManagedObjectReference, found hypervisor.Unfinished,
) error {
	if found.Lease != "" {
		err := c.setOptions(ctx, hypervisor.VMID(ref.Value), func(vm *mo.VirtualMachine) ([]types.BaseOptionValue, error) {
			options := vm.Config.ExtraConfig
			if optionValue(options, markerKey) != found.RunID || optionValue(options, tenureKey) != found.Lease {
				return nil, hypervisor.ErrTakenOver
			}
			return []types.BaseOptionValue{&types.OptionValue{Key: tenureKey, Value: takenAway}}, nil
		})
		switch {
		case vmGone(err):
			return nil
		case err != nil:
			return err
		}
	}
	return c.destroyMade(ctx, ref, c.destroy)
}

// destroyMade removes a VM in the making and its directory, which bears the name of the finished VM. The
// server, for which its lease has expired, may do so in the middle.
func (c *Client) destroyMade(
	ctx context.Context, ref types.ManagedObjectReference, destroy func(context.Context, hypervisor.VMID) (bool, error),
) error {
	if err := c.tryDestroyMade(ctx, ref, destroy); !vmGone(err) {
		return err
	}
	return nil
}

func (c *Client) tryDestroyMade(
	ctx context.Context, ref types.ManagedObjectReference, destroy func(context.Context, hypervisor.VMID) (bool, error),
) error {
	var vm mo.VirtualMachine
	if err := c.properties(ctx, ref, []string{"config.files.vmPathName", "datastore"}, &vm); err != nil {
		return err
	}
	line, err := c.ancestors(ctx, ref)
	if err != nil {
		return err
	}
	stores, err := c.stores(ctx, vm.Datastore)
	if err != nil {
		return err
	}
	if err := c.releaseTarget(ctx, ref); err != nil {
		return err
	}
	destroyed, err := destroy(ctx, hypervisor.VMID(ref.Value))
	if err != nil {
		return err
	}
	if vm.Config == nil || !destroyed {
		return nil
	}
	datastore, file := splitPath(vm.Config.Files.VmPathName)
	if path.Dir(file) == "." || keepsObjects(stores[datastore]) {
		return nil
	}
	return c.deleteDirectory(ctx, line, stores[datastore], path.Dir(file))
}

// heldTimeout is how long a lease may keep a VM whose client is gone: vCenter's 300 seconds, and some for
// the server to undo the import.
const heldTimeout = 6 * time.Minute

// destroyHeld destroys a VM that may be held by the lease of a client that was killed. Nobody but that
// client can end the lease; when it expires, the server removes the VM by itself.
func (c *Client) destroyHeld(ctx context.Context, id hypervisor.VMID) (destroyed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, heldTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		destroyed, err = c.destroy(ctx, id)
		if err == nil || !fault.Is(err, &types.InvalidState{}) || pause(ctx, backoff(attempt)) != nil {
			return destroyed, err
		}
	}
}

// DestroyVM implements hypervisor.Restorer.
func (c *Client) DestroyVM(ctx context.Context, id hypervisor.VMID) error {
	err := c.checkOwnDisks(ctx, id)
	switch {
	case vmGone(err):
		return nil
	case err != nil:
		return fmt.Errorf("destroy %s: %w", id, err)
	}
	_, err = c.destroy(ctx, id)
	return err
}

// destroy tells whether there was a VM to destroy, and it is certain that nobody else did.
func (c *Client) destroy(ctx context.Context, id hypervisor.VMID) (destroyed bool, err error) {
	if err := c.PowerOff(ctx, id); err != nil {
		if vmGone(err) {
			return false, nil
		}
		return false, fmt.Errorf("destroy %s: %w", id, err)
	}
	unlock, err := c.lockVM(ctx, id)
	if err != nil {
		return false, fmt.Errorf("destroy %s: %w", id, err)
	}
	defer unlock()
	for attempt := 1; ; attempt++ {
		_, err = c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
			res, err := methods.Destroy_Task(ctx, c.vim, &types.Destroy_Task{This: vmRef(id)})
			if err != nil {
				return nil, err
			}
			return object.NewTask(c.vim, res.Returnval), nil
		})
		switch {
		case err == nil:
			return true, nil
		case vmGone(err):
			return false, nil
		case !isAmbiguous(err) || attempt == readAttempts || pause(ctx, backoff(attempt)) != nil:
			return false, fmt.Errorf("destroy %s: %w", id, withoutURL(err))
		}
		// Where the server heard of it, the next attempt waits for that task, or finds no VM.
	}
}
