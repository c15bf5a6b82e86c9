package provider

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/action/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/action"
	"github.com/hashicorp/terraform-plugin-framework/action/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
)

var (
	_ action.ActionWithConfigure  = (*restoreTestAction)(nil)
	_ action.ActionWithModifyPlan = (*restoreTestAction)(nil)
)

const restoreTestTimeout = 4 * time.Hour

// restoreTestAction tries a backup out: it restores it to a copy that nobody meets, boots the copy and removes it.
type restoreTestAction struct{ configured }

type restoreTestModel struct {
	chosenBackups
	Folder           types.String   `tfsdk:"folder"`
	ResourcePool     types.String   `tfsdk:"resource_pool"`
	Host             types.String   `tfsdk:"host"`
	Datastore        types.String   `tfsdk:"datastore"`
	HeartbeatTimeout types.String   `tfsdk:"heartbeat_timeout"`
	ScreenshotFile   types.String   `tfsdk:"screenshot_file"`
	Timeouts         timeouts.Value `tfsdk:"timeouts"`
}

func (a *restoreTestAction) Metadata(_ context.Context, req action.MetadataRequest, resp *action.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_restore_test"
}

func (a *restoreTestAction) Schema(ctx context.Context, _ action.SchemaRequest, resp *action.SchemaResponse) {
	attributes := map[string]schema.Attribute{
		"heartbeat_timeout": schema.StringAttribute{
			MarkdownDescription: "For how long the guest's heartbeat is waited for, which its agent (VMware Tools) gives. " +
				"Default: `10m`.",
			Optional:   true,
			Validators: []validator.String{positiveDuration{}},
		},
		"screenshot_file": schema.StringAttribute{
			MarkdownDescription: "A file to write a picture (PNG) of the guest's screen to, once it has given its heartbeat, or when " +
				"it didn't in time. A file that is there is replaced. Its directory must exist.",
			Optional:   true,
			Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
		},
	}
	for name, description := range map[string]string{
		"folder":        "Inventory path of the folder that the copy is in while there is one.",
		"resource_pool": "Inventory path or name of the resource pool that the copy runs in.",
		"host":          "Name of the host that the copy runs on.",
		"datastore":     "Name of the datastore for the copy and all of its disks.",
	} {
		attributes[name] = schema.StringAttribute{
			MarkdownDescription: description + " Default: as for a restore, where the virtual machine was.",
			Optional:            true,
			Validators:          []validator.String{stringvalidator.LengthAtLeast(1)},
		}
	}
	maps.Copy(attributes, chosenBackupArguments("The newest backup"))
	resp.Schema = schema.Schema{
		MarkdownDescription: "Shows that a backup can be restored: it is restored to a copy with an identity of its own, which nothing is " +
			"connected to: no network, no serial port, no medium in its drives, so that it can only boot from its disks. The copy is " +
			"started, its guest's heartbeat is waited for, and it is removed, also if that fails or is interrupted. If the process is " +
			"killed, the next restore or restore test removes it, on whatever machine, within minutes. The virtual machine that was backed up is not touched and may be gone. The " +
			"outcome is kept in the repository, where the data source `vm_backup_health` finds it.",
		Attributes: attributes,
		Blocks:     actionTimeouts(ctx, "Default: `4h`. When it is over, the copy is removed."),
	}
}

// restoreTestOperation is what can fail.
func restoreTestOperation(verb, noun string) operation {
	o := operation{verb: verb, noun: noun, without: "new_vm.", paths: map[argument]path.Path{
		argVM: path.Root("vm"), argBackup: path.Root("backup_id"), argDatastore: path.Root("datastore"),
		argPool: path.Root("resource_pool"), argFolder: path.Root("folder"), argHost: path.Root("host"),
		argHeartbeat: path.Root("heartbeat_timeout"),
	}}
	return actionOn(o)
}

// request says in a request what is written.
func (m *restoreTestModel) request(id repository.ID, version string) restore.RehearseRequest {
	return restore.RehearseRequest{
		BackupID: id, Folder: m.Folder.ValueString(), ResourcePool: m.ResourcePool.ValueString(), Host: m.Host.ValueString(),
		Datastore: m.Datastore.ValueString(), GuestTimeout: duration(m.HeartbeatTimeout),
		Screenshot: !m.ScreenshotFile.IsNull(), Version: version,
	}
}

// ModifyPlan checks what can be checked before anything is done. That there is no backup yet is no error: the same
// apply may take it.
func (a *restoreTestAction) ModifyPlan(
	ctx context.Context, req action.ModifyPlanRequest, resp *action.ModifyPlanResponse,
) {
	var config restoreTestModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, cancel, ok := a.planning(ctx, resp.Diagnostics)
	defer cancel()
	if !ok || config.BackupID.IsUnknown() || config.VM.IsUnknown() {
		return
	}
	op := restoreTestOperation("Plan", "Restore Test")
	if err := config.checkFile(); err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	point, err := config.newest(ctx, a.session)
	if errors.Is(err, errNoBackup) || errors.Is(err, repository.ErrNotMade) {
		return
	}
	var found []string
	if err == nil {
		var m *restore.Manager
		if m, err = a.session.restores(ctx); err == nil {
			found, err = m.CheckRehearsal(ctx, config.request(point.ID, a.session.version))
		}
	}
	warnings(&resp.Diagnostics, "Restore Test With Reservations", found)
	if err != nil {
		op.failPlan(ctx, &resp.Diagnostics, err)
	}
}

// errScreenshotFile: the picture can't be written where it is to go.
var errScreenshotFile = errors.New("the picture of the guest's screen can't be written")

// checkFile finds out early whether the picture can be written.
func (m *restoreTestModel) checkFile() error {
	if m.ScreenshotFile.IsNull() || m.ScreenshotFile.IsUnknown() {
		return nil
	}
	name := m.ScreenshotFile.ValueString()
	directory := filepath.Dir(name)
	switch info, err := os.Stat(directory); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the directory %s doesn't exist", errScreenshotFile, directory)
	case err != nil:
		return fmt.Errorf("%w: %w", errScreenshotFile, err)
	case !info.IsDir():
		return fmt.Errorf("%w: %s is not a directory", errScreenshotFile, directory)
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is not a regular file", errScreenshotFile, name)
	}
	return nil
}

// writePicture writes the picture; whoever looks at the file sees all of it, or what was there before.
func (m *restoreTestModel) writePicture(picture []byte) (err error) {
	name := m.ScreenshotFile.ValueString()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: %w", errScreenshotFile, err)
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(name), ".screenshot-*.png")
	if err != nil {
		return err
	}
	_, err = f.Write(picture)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error tells more
	}
	return err
}

func (a *restoreTestAction) Invoke(ctx context.Context, req action.InvokeRequest, resp *action.InvokeResponse) {
	var config restoreTestModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, end := a.invoking(ctx, config.Timeouts, restoreTestTimeout, resp)
	defer end()
	if resp.Diagnostics.HasError() {
		return
	}
	op := restoreTestOperation("Test", "Restore").leaving("The copy was removed, unless the error says otherwise. The virtual machine that was " +
		"backed up was not touched.")
	err := config.checkFile()
	var point repository.RestorePoint
	if err == nil {
		point, err = config.newest(ctx, a.session)
	}
	var m *restore.Manager
	if err == nil {
		m, err = a.session.restores(ctx)
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	result, err := m.Rehearse(ctx, config.request(point.ID, a.session.version))
	if result != nil {
		warnings(&resp.Diagnostics, "Restore Tested With Reservations", result.Warnings)
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
	}
	if result == nil {
		return
	}
	if result.Screenshot != nil {
		if err := config.writePicture(result.Screenshot); err != nil {
			op.fail(ctx, &resp.Diagnostics, err)
		}
	}
	if err == nil {
		progress.Say(ctx, describeRehearsed(point, result))
	}
}

// describeRehearsed says what came of a test.
func describeRehearsed(p repository.RestorePoint, r *restore.Rehearsal) string {
	return fmt.Sprintf("backup %s of %s, taken at %s, can be restored: %s were written in %s, the guest's heartbeat came %s after "+
		"power-on, and the copy is removed", p.ID, p.VMPath, p.CreatedAt.UTC().Format(time.RFC3339),
		progress.Size(r.RestoredBytes), r.RestoreTime.Round(time.Second/10), r.BootTime.Round(time.Second/10))
}
