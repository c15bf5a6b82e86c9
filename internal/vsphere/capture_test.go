package vsphere

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// testCapture is a captured configuration as a backup has it.
func testCapture(t testing.TB) hypervisor.Config {
	t.Helper()
	c := capture{Name: "web", Folder: "/DC0/vm", Datacenter: "DC0", config: capturedConfig()}
	var err error
	if c.Config, err = encodeConfig(c.config); err != nil {
		t.Fatal(err)
	}
	data, err := c.encode()
	if err != nil {
		t.Fatal(err)
	}
	return hypervisor.Config{Format: configFormat, Data: data}
}

func TestReadCapture(t *testing.T) {
	t.Parallel()
	config := testCapture(t)
	got, err := readCapture(config)
	if err != nil {
		t.Fatal(err)
	}
	again, err := encodeConfig(got.config)
	if err != nil {
		t.Fatal(err)
	}
	want, err := encodeConfig(capturedConfig())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, want) {
		t.Error("the configuration isn't what was captured")
	}
	for _, data := range []string{
		``, `{`, `[]`, `{"config":null}`, `{"config":{"_typeName":"VirtualMachineConfigInfo","hardware":{"_typeName":"VirtualHardware","device":[null]}}}`,
		`{"config":{"_typeName":"VirtualMachineConfigInfo","extraConfig":[null]}}`, `{"config":{"hardware":{"device":[{"_typeName":"NoSuchDevice"}]}}}`,
	} {
		config.Data = []byte(data)
		if _, err := readCapture(config); !errors.Is(err, hypervisor.ErrConfigFormat) {
			t.Errorf("%s: got %v", data, err)
		}
	}
}

// FuzzReadCapture reads damaged configurations and does with them what a restore does before it asks the
// server.
func FuzzReadCapture(f *testing.F) {
	f.Add(testCapture(f).Data)
	f.Add([]byte(`{"config":{"_typeName":"VirtualMachineConfigInfo","hardware":{"device":[{"_typeName":"VirtualDisk","key":1}]}}}`))
	f.Add([]byte(`{"config":{"vAppConfig":{"_typeName":"VmConfigInfo","property":[{}]},"bootOptions":{"bootOrder":[null]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := readCapture(hypervisor.Config{Format: configFormat, Data: data})
		if err != nil {
			if !errors.Is(err, hypervisor.ErrConfigFormat) {
				t.Errorf("got %v", err)
			}
			return
		}
		r := testRebuild(hypervisor.IdentityOriginal)
		for _, d := range orderedDisks(c.devices()) {
			r.disks[d.Key] = "[ds]"
		}
		if _, _, err := creationSpec(c.config, r); err != nil {
			return
		}
		if _, _, err := completionSpec(c.config, capturedConfig(), r); err != nil {
			return
		}
		_, _ = compareRestored(c.config, capturedConfig(), r)
	})
}

func TestCapture_names(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	var got capture
	if err := json.Unmarshal(c.config.Data, &got); err != nil {
		t.Fatal(err)
	}
	if got.Name != benchVM || got.Folder != "/DC0/vm/lab" || got.Datacenter != "DC0" || got.Cluster != "DC0_C0" ||
		got.ResourcePool != "/DC0/host/DC0_C0/Resources" || got.PowerState != "poweredOn" || got.Host == "" {
		t.Errorf("captured %+v", got)
	}
	if len(got.Datastores) != 1 || got.Datastores[0].Name != "LocalDS_0" {
		t.Errorf("datastores %+v", got.Datastores)
	}
	want := []capturedNetwork{
		{Device: 4000, Name: "VM Network", Kind: standardNetwork},
		{Device: 4001, Name: "DC0_DVPG0", Kind: distributedNetwork, Switch: "DVS0"},
	}
	if !slices.Equal(got.Networks, want) {
		t.Errorf("networks %+v", got.Networks)
	}
	if len(got.Tags) == 0 || len(got.CustomAttributes) == 0 {
		t.Errorf("tags %+v, attributes %+v", got.Tags, got.CustomAttributes)
	}
	if len(c.config.NVRAM) == 0 || !strings.HasSuffix(got.NVRAM, ".nvram") {
		t.Errorf("NVRAM %q of %d bytes", got.NVRAM, len(c.config.NVRAM))
	}
	if len(c.config.Warnings) > 0 {
		t.Errorf("warnings %q", c.config.Warnings)
	}
}

func TestCapture_withoutNVRAM(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	var vm mo.VirtualMachine
	if err := b.client.properties(t.Context(), vmRef(b.vm.ID), []string{"layoutEx", "config"}, &vm); err != nil {
		t.Fatal(err)
	}
	datacenter := object.NewDatacenter(b.client.vim, types.ManagedObjectReference{Type: "Datacenter", Value: "datacenter-2"})
	deleted, err := object.NewFileManager(b.client.vim).DeleteDatastoreFile(t.Context(), nvramFile(&vm, vm.Config), datacenter)
	if err == nil {
		err = deleted.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	c := b.mustBackUp()
	if len(c.config.Warnings) != 1 || !strings.Contains(c.config.Warnings[0], "NVRAM could not be captured") || c.config.NVRAM != nil {
		t.Errorf("warnings %q: an EFI VM may not start without its NVRAM", c.config.Warnings)
	}
}

func TestNVRAMFile(t *testing.T) {
	t.Parallel()
	config := func(options ...types.BaseOptionValue) *types.VirtualMachineConfigInfo {
		return &types.VirtualMachineConfigInfo{Files: types.VirtualMachineFileInfo{VmPathName: "[ds] web/a.vmx"}, ExtraConfig: options}
	}
	listed := &mo.VirtualMachine{LayoutEx: &types.VirtualMachineFileLayoutEx{File: []types.VirtualMachineFileLayoutExFileInfo{
		{Type: "config", Name: "[ds] web/a.vmx"}, {Type: "nvram", Name: "[ds] web/x.nvram"}}}}
	for _, test := range []struct {
		props  *mo.VirtualMachine
		config *types.VirtualMachineConfigInfo
		want   string
	}{
		{listed, config(), "[ds] web/x.nvram"},
		{&mo.VirtualMachine{}, config(&types.OptionValue{Key: "nvram", Value: "y.nvram"}), "[ds] web/y.nvram"},
		{&mo.VirtualMachine{}, config(&types.OptionValue{Key: "nvram", Value: "/vmfs/volumes/ds/y.nvram"}), "[ds] web/a.nvram"},
		{&mo.VirtualMachine{}, config(), "[ds] web/a.nvram"},
	} {
		if got := nvramFile(test.props, test.config); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

func TestRestore_tagGone(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	captured, err := readCapture(c.config)
	if err != nil {
		t.Fatal(err)
	}
	captured.Tags = append(captured.Tags, capturedTag{Category: "no such", Name: "tag"})
	captured.CustomAttributes["no such attribute"] = "x"
	if c.config.Data, err = captured.encode(); err != nil {
		t.Fatal(err)
	}
	vm, warnings, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityCopy, Name: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 2 || !strings.Contains(warnings[0], `"no such"`) || !strings.Contains(warnings[1], "no such attribute") {
		t.Errorf("warnings %q", warnings)
	}
	if got := b.status(vm.Name); len(got.Tags) == 0 || len(got.CustomAttributes) == 0 {
		t.Errorf("tags %v, attributes %v", got.Tags, got.CustomAttributes)
	}
}

func TestRestore_tagsFail(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	r, err := b.client.StartRestore(t.Context(), hypervisor.RestoreSpec{
		Config: c.config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	for key, d := range c.disks {
		if err := r.WriteDisk(t.Context(), key, d); err != nil {
			t.Fatal(err)
		}
		if err := r.WriteDisk(t.Context(), key, d); err == nil {
			t.Error("a disk was written twice")
		}
	}
	if made, ok := r.(*restore); ok {
		made.place.tags = []string{"urn:vmomi:InventoryServiceTag:0:GLOBAL"} // as if deleted since the check
	}
	if _, _, err := r.Commit(t.Context()); err == nil || !strings.Contains(err.Error(), "attach tag") {
		t.Errorf("commit: %v", err)
	}
	for range 2 {
		if err := r.Abort(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if n := len(b.lab.Status().VMs); n != 1 {
		t.Errorf("%d VMs", n)
	}
	labtest.AssertClean(t, b.lab)
}

func TestRestore_disksMissing(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	key := c.config.Summary.Disks[0].Key
	r, err := b.client.StartRestore(t.Context(), hypervisor.RestoreSpec{
		Config: c.config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.WriteDisk(t.Context(), "none", c.disks[key]); err == nil {
		t.Error("a disk was written that the VM doesn't have")
	}
	if err := r.WriteDisk(t.Context(), key, &memoryDisk{capacity: 1 << 20}); err == nil {
		t.Error("a disk was written with content of another size")
	}
	if _, _, err := r.Commit(t.Context()); err == nil || !strings.Contains(err.Error(), "Hard disk 1 was not written") {
		t.Errorf("commit: %v", err)
	}
	if err := b.client.PowerOn(t.Context(), r.VM()); err == nil {
		t.Error("a VM in the making was started")
	}
	if err := r.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, b.lab)
}

func TestRestore_sameNameAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	dc, err := b.client.findPath(t.Context(), "/DC0/vm")
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error)
	folders := []string{"a", "b", "c"}
	for _, name := range folders {
		if _, err := object.NewFolder(b.client.vim, *dc).CreateFolder(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{
				Identity: hypervisor.IdentityCopy, Name: "twin", Folder: name, RunID: "run-" + name})
			results <- err
		}()
	}
	for range folders {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	labtest.AssertClean(t, b.lab)
	homes := map[string]bool{}
	for _, vm := range b.lab.Status().VMs {
		homes[vm.Disks[0].File] = true
	}
	if len(homes) != len(folders)+1 {
		t.Errorf("disks %v", homes)
	}
}

func TestRestore_onHost(t *testing.T) {
	t.Parallel()
	b := &bench{T: t, raw: []string{labtest.RawDisk(t, 4<<20, 1)}}
	b.lab = labtest.Start(t, lab.Options{ESX: true})
	if err := b.lab.AddVM(t.Context(), lab.VMSpec{Name: benchVM, Disks: b.raw}); err != nil {
		t.Fatal(err)
	}
	b.client = dial(t, labConfig(b.lab))
	b.find()
	c := b.mustBackUp()
	if err := b.client.DestroyVM(t.Context(), b.vm.ID); err != nil {
		t.Fatal(err)
	}
	vm, warnings, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal})
	if err != nil {
		t.Fatal(err)
	}
	if vm.BIOSUUID != b.vm.BIOSUUID || vm.Path != b.vm.Path || len(warnings) > 0 {
		t.Errorf("got %+v, warnings %q", vm, warnings)
	}
	b.sameBytes(benchVM, 0, b.raw[0])
	labtest.AssertClean(t, b.lab)
}

// TestReadNVRAM_somethingElse is sent a page, or a part of the file, where the file should be.
func TestReadNVRAM_somethingElse(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"a page": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>Log in, please</html>") },
		"a page elsewhere": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/login" {
				http.Redirect(w, r, "/login", http.StatusFound)
				return
			}
			_, _ = io.WriteString(w, "Log in, please")
		},
		"a part": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			w.Header().Set("Transfer-Encoding", "identity") // its end is that of the connection
			_, _ = io.WriteString(w, "a half of the varia")
		},
		"a part of a length": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "a half of the varia")
		},
		"a part in chunks": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "a half of the varia")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := &fileServer{answer: func(_ int, w http.ResponseWriter, r *http.Request) bool { answer(w, r); return true }}
			c, _ := server.start(t)
			if got, err := c.fetchFile(t.Context(), "/DC0", "[ds] web/web.nvram", maxNVRAM); !errors.Is(err, hypervisor.ErrLost) {
				t.Errorf("it read %q: %v", got, err)
			}
		})
	}
	server := &fileServer{content: []byte("the variables")}
	c, _ := server.start(t)
	if got, err := c.fetchFile(t.Context(), "/DC0", "[ds] web/web.nvram", maxNVRAM); string(got) != "the variables" || err != nil {
		t.Errorf("it read %q, %v", got, err)
	}
}

func TestReadNVRAM_missing(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	if _, err := b.client.readNVRAM(t.Context(), "DC0", "[LocalDS_0] web01/none.nvram"); !errors.Is(err, errNoFile) {
		t.Errorf("got %v", err)
	}
}

func TestRestore_otherHost(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	vm, _, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityCopy, Name: "copy", Host: "DC0_H0"})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.status(vm.Name); got.ResourcePool != "/DC0/host/DC0_H0/Resources" || !strings.HasSuffix(got.Host, "/DC0_H0") {
		t.Errorf("VM is in %s on %s", got.ResourcePool, got.Host)
	}
}

func TestRestore_diskUUID(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	if err := b.client.DestroyVM(t.Context(), b.vm.ID); err != nil {
		t.Fatal(err)
	}
	r, err := b.client.StartRestore(t.Context(), hypervisor.RestoreSpec{
		Config: c.config, Identity: hypervisor.IdentityOriginal, RunID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	for key, d := range c.disks {
		if err := r.WriteDisk(t.Context(), key, d); err != nil {
			t.Fatal(err)
		}
	}
	made, ok := r.(*restore)
	if !ok {
		t.Fatalf("a restore is %T", r)
	}
	// As if the server had given the disk a UUID of its own at creation.
	const want = "6000c29f-ffff-ffff-ffff-ffffffffffff"
	for _, d := range orderedDisks(made.captured.devices()) {
		if backing, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
			backing.Uuid = want
		}
	}
	vm, warnings, err := r.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if vm.Disks[0].UUID != want || len(warnings) > 0 {
		t.Errorf("disk %+v, warnings %q", vm.Disks[0], warnings)
	}
	if err := r.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := b.client.FindVM(t.Context(), benchVM); err != nil {
		t.Errorf("abort after commit: %v", err)
	}
}

func TestClusterSettings(t *testing.T) {
	t.Parallel()
	vm := types.ManagedObjectReference{Type: "VirtualMachine", Value: "vm-1"}
	other := types.ManagedObjectReference{Type: "VirtualMachine", Value: "vm-2"}
	config := func(vm types.ManagedObjectReference) *types.ClusterConfigInfoEx {
		both := []types.ManagedObjectReference{{Type: "VirtualMachine", Value: "vm-3"}, vm}
		return &types.ClusterConfigInfoEx{
			Rule: []types.BaseClusterRuleInfo{
				&types.ClusterAffinityRuleSpec{ClusterRuleInfo: types.ClusterRuleInfo{Name: "together"}, Vm: both},
				&types.ClusterAntiAffinityRuleSpec{ClusterRuleInfo: types.ClusterRuleInfo{Name: "apart"}, Vm: both},
			},
			Group:       []types.BaseClusterGroupInfo{&types.ClusterVmGroup{ClusterGroupInfo: types.ClusterGroupInfo{Name: "licensed"}, Vm: both}},
			DrsVmConfig: []types.ClusterDrsVmConfigInfo{{Key: vm}},
			DasVmConfig: []types.ClusterDasVmConfigInfo{{Key: vm}},
		}
	}
	if got := clusterSettings(config(other), vm); len(got) > 0 {
		t.Errorf("got %q for a VM that the cluster says nothing about", got)
	}
	got := strings.Join(clusterSettings(config(vm), vm), " ")
	for _, want := range []string{`"together"`, `"apart"`, `"licensed"`, "DRS override", "HA override"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %s", got, want)
		}
	}
}
