package lab_test

import (
	"image/png"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// screenshot takes a picture of the VM's screen and returns where it is.
func (e *env) screenshot() (string, error) {
	e.t.Helper()
	res, err := methods.CreateScreenshot_Task(e.ctx, e.client.Client, &types.CreateScreenshot_Task{This: e.vm.Reference()})
	if err != nil {
		return "", err
	}
	info, err := object.NewTask(e.client.Client, res.Returnval).WaitForResult(e.ctx)
	if err != nil {
		return "", err
	}
	name, _ := info.Result.(string)
	return name, nil
}

func TestCreateScreenshot(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	seen := map[string]bool{}
	for range 2 {
		name, err := e.screenshot()
		e.must(err)
		var p object.DatastorePath
		if !p.FromString(name) || !strings.HasPrefix(p.Path, "web01/web01-") || seen[name] {
			t.Fatalf("a picture %q", name)
		}
		seen[name] = true
		u := *e.client.URL()
		u.User, u.Path = nil, "/folder/"+p.Path
		u.RawQuery = url.Values{"dcPath": {"DC0"}, "dsName": {p.Datastore}}.Encode()
		req, err := http.NewRequestWithContext(e.ctx, http.MethodGet, u.String(), nil)
		e.must(err)
		res, err := e.client.Client.Client.Client.Do(req)
		e.must(err)
		config, err := png.DecodeConfig(res.Body)
		if closeErr := res.Body.Close(); err != nil || closeErr != nil || config.Width != 720 || config.Height != 400 {
			t.Errorf("%s: %+v, %v, %v", res.Status, config, err, closeErr)
		}
	}
	for _, state := range []types.VirtualMachinePowerState{
		types.VirtualMachinePowerStateSuspended, types.VirtualMachinePowerStatePoweredOff,
	} {
		if state == types.VirtualMachinePowerStateSuspended {
			e.must(e.wait(e.vm.Suspend(e.ctx)))
		} else {
			e.must(e.wait(e.vm.PowerOn(e.ctx)))
			e.must(e.wait(e.vm.PowerOff(e.ctx)))
		}
		_, err := e.screenshot()
		e.refused("a picture of a VM that is "+string(state), err, &types.InvalidPowerState{})
	}
}
