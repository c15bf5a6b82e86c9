package vsphere

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

func screenshotLab(t *testing.T, esx bool) (*lab.Lab, *Client, *hypervisor.VM) {
	t.Helper()
	l := labtest.Start(t, lab.Options{ESX: esx, VMs: []lab.VMSpec{{Name: "web", Disks: []string{labtest.RawDisk(t, 1<<20, 1)}}}})
	c := dial(t, labConfig(l))
	vm, err := c.FindVM(t.Context(), "web")
	must(t, err)
	return l, c, vm
}

// wantNoPicture makes sure that no picture stayed on the server.
func wantNoPicture(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, f := range l.Status().Files {
		if strings.HasSuffix(f.Name, ".png") {
			t.Errorf("left behind: %s", f.Name)
		}
	}
}

func TestScreenshot(t *testing.T) {
	t.Parallel()
	for name, esx := range map[string]bool{"vCenter": false, "ESXi": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			takesScreenshot(t, esx)
		})
	}
}

func takesScreenshot(t *testing.T, esx bool) {
	t.Helper()
	l, c, vm := screenshotLab(t, esx)
	picture, err := c.Screenshot(t.Context(), vm.ID)
	must(t, err)
	if config, err := png.DecodeConfig(bytes.NewReader(picture)); err != nil || config.Width != 720 {
		t.Errorf("%+v, %v", config, err)
	}
	wantNoPicture(t, l)
	must(t, c.PowerOff(t.Context(), vm.ID))
	if _, err := c.Screenshot(t.Context(), vm.ID); !fault.Is(err, &types.InvalidPowerState{}) {
		t.Errorf("of a VM that is off: %v", err)
	}
	var gone *hypervisor.VMNotFoundError
	if _, err := c.Screenshot(t.Context(), "vm-4711"); !errors.As(err, &gone) {
		t.Errorf("of a VM that isn't there: %v", err)
	}
}

// Whatever goes wrong, no picture stays on the server.
func TestScreenshot_fails(t *testing.T) {
	t.Parallel()
	l, c, vm := screenshotLab(t, false)
	l.Fault(lab.Fault{Method: "CreateScreenshot_Task", Fault: "NoPermission"})
	var denied *hypervisor.PermissionError
	if _, err := c.Screenshot(t.Context(), vm.ID); !errors.As(err, &denied) {
		t.Errorf("without the privilege: %v", err)
	}
	l.Fault(lab.Fault{Method: "GET /folder", Fault: "503", Count: readAttempts})
	if _, err := c.Screenshot(t.Context(), vm.ID); !errors.Is(err, hypervisor.ErrLost) {
		t.Errorf("that can't be fetched: %v", err)
	}
	wantNoPicture(t, l)
	for _, call := range []string{"CreateScreenshot_Task", "GET /folder"} {
		ctx, cancel := context.WithCancel(t.Context())
		l.OnCall(call, func(context.Context) { cancel() })
		if call == "GET /folder" { // the picture is so small that it would arrive before anybody hears of it
			l.Fault(lab.Fault{Method: call, Fault: "hang"})
		}
		if picture, err := c.Screenshot(ctx, vm.ID); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at %s: %d bytes, %v", call, len(picture), err)
		}
		l.OnCall(call, nil)
		cancel()
		wantNoPicture(t, l)
	}
	l.OnCall("GET /folder", func(context.Context) {
		for _, entity := range l.Model().Map().All("Datastore") {
			store, ok := entity.(*simulator.Datastore)
			if !ok {
				continue
			}
			pictures, err := filepath.Glob(filepath.Join(store.Summary.Url, "web", "*.png"))
			if err != nil {
				t.Error(err)
			}
			for _, file := range pictures {
				if err := os.WriteFile(file, []byte("<html>"), 0o600); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if _, err := c.Screenshot(t.Context(), vm.ID); err == nil || !strings.Contains(err.Error(), "is no picture") {
		t.Errorf("something else than a picture: %v", err)
	}
	wantNoPicture(t, l)
}
