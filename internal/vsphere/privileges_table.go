package vsphere

import "github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"

// A target is the object that a privilege is needed on, as the guide calls it.
type target string

// The targets. A virtual machine in the making has what its folder or its resource pool hands down to it.
const (
	onVM        target = "virtual machine"
	onFolder    target = "folder of the virtual machine"
	onNewVM     target = "folder or resource pool of the new virtual machine"
	onPool      target = "resource pool"
	onDatastore target = "datastores of the disks"
	onHome      target = "datastore of the virtual machine"
	onNetwork   target = "networks"
	onServer    target = "vCenter server"
)

// A grant is privileges that an operation needs on one object. The table of all grants is what the pre-flight asks
// for and what the guide lists.
type grant struct {
	on  target
	ids []string

	// when is the condition under which they are needed, as the guide says it. Empty: always.
	when condition

	// without is what happens without them, as the guide says it. Empty: the operation is refused before
	// anything has started.
	without string
}

// A condition is something about a request that makes it need more.
type condition string

// The conditions of restores. Each holds a reader's words and is looked up by the code that plans a restore.
const (
	unconditional  condition = ""
	ifDisks        condition = "if the backup has disks"
	ifNetworks     condition = "if it has network adapters"
	ifOriginal     condition = "if it gets its original identity"
	ifBootOrder    condition = "if it has a boot order"
	ifTracking     condition = "if change tracking was on"
	ifVApp         condition = "if it has vApp properties that users can't change"
	ifAttributes   condition = "if it has custom attributes"
	ifTags         condition = "if it has tags"
	ifNVRAM        condition = "if the backup has firmware variables"
	ifNoNVRAM      condition = "if the backup has no firmware variables"
	ifRunning      condition = "if it is running"
	ifSnapshots    condition = "if its snapshots are removed"
	ifHardware     condition = "if its hardware is brought back"
	ifPolicies     condition = "if it has storage policies"
	ifEnable       condition = "with `change_tracking = \"enable\"`"
	ifExport       condition = "with `transports = [\"export\"]`"
	ifFallBack     condition = "with both transports, which is the default"
	ifChangedAreas condition = "to tell what is allocated or has changed"
)

const (
	createVM       = "VirtualMachine.Inventory.Create"
	deleteVM       = "VirtualMachine.Inventory.Delete"
	addNewDisk     = "VirtualMachine.Config.AddNewDisk"
	addDisk        = "VirtualMachine.Config.AddExistingDisk"
	removeDisk     = "VirtualMachine.Config.RemoveDisk"
	advanced       = "VirtualMachine.Config.AdvancedConfig"
	editDevice     = "VirtualMachine.Config.EditDevice"
	rename         = "VirtualMachine.Config.Rename"
	settings       = "VirtualMachine.Config.Settings"
	changeTracking = "VirtualMachine.Config.ChangeTracking"
	randomRead     = "VirtualMachine.Provisioning.DiskRandomRead"
	createSnapshot = "VirtualMachine.State.CreateSnapshot"
	removeSnapshot = "VirtualMachine.State.RemoveSnapshot"
	powerOn        = "VirtualMachine.Interact.PowerOn"
	powerOff       = "VirtualMachine.Interact.PowerOff"
	browse         = "Datastore.Browse"
	manageFiles    = "Datastore.FileManagement"
	allocate       = "Datastore.AllocateSpace"
	importVApp     = "VApp.Import"
	exportVApp     = "VApp.Export"
	assignPool     = "Resource.AssignVMToPool"
	assignNetwork  = "Network.Assign"
	setField       = "Global.SetCustomField"
	viewPolicies   = "StorageProfile.View"
	applyPolicies  = "StorageProfile.Apply" // which older servers don't have
	attachTag      = "InventoryService.Tagging.AttachTag"
)

// Operations of this package beside those of the port.
const (
	toRestore        hypervisor.Operation = "restore to a new virtual machine"
	toRestoreInPlace hypervisor.Operation = "restore in place"
	toDeleteReplaced hypervisor.Operation = "delete replaced disks"
)

// grants says which privileges each operation needs, and on what (vSphere Web Services API reference, the
// "Required Privileges" of each method that the operation calls; VMware vSphere Security, "Defined Privileges").
var grants = map[hypervisor.Operation][]grant{
	hypervisor.ToSnapshot:       {{on: onVM, ids: []string{createSnapshot}}},
	hypervisor.ToRenameSnapshot: {{on: onVM, ids: []string{"VirtualMachine.State.RenameSnapshot"}}},
	hypervisor.ToRemoveSnapshot: {{on: onVM, ids: []string{removeSnapshot}}},
	hypervisor.ToRevert:         {{on: onVM, ids: []string{"VirtualMachine.State.RevertToSnapshot"}}},
	hypervisor.ToConsolidate:    {{on: onVM, ids: []string{removeSnapshot}}},
	hypervisor.ToPowerOn:        {{on: onVM, ids: []string{powerOn}}},
	hypervisor.ToPowerOff:       {{on: onVM, ids: []string{powerOff}}},
	hypervisor.ToDestroy:        {{on: onVM, ids: []string{deleteVM}}, {on: onFolder, ids: []string{deleteVM}}},
	hypervisor.ToScreenshot: {
		{on: onVM, ids: []string{"VirtualMachine.Interact.CreateScreenshot"}},
		{on: onHome, ids: []string{browse, manageFiles}, without: "there is no screenshot"},
	},
	hypervisor.ToBackUp: {
		{on: onVM, ids: []string{createSnapshot, removeSnapshot}},
		{on: onVM, ids: []string{exportVApp}, when: ifExport},
		{on: onVM, ids: []string{exportVApp}, when: ifFallBack, without: "it fails if a disk can't be read from its datastore"},
		{on: onDatastore, ids: []string{browse, manageFiles}, without: "disks are exported, and the reason is given"},
		{on: onHome, ids: []string{browse, manageFiles}, without: "a warning says that the firmware variables are not captured"},
		{on: onVM, ids: []string{randomRead}, when: ifChangedAreas, without: "every disk is read in full, and the reason is given"},
		{on: onServer, ids: []string{viewPolicies}, when: ifPolicies, without: "a warning says that they are not captured"},
		{on: onVM, ids: []string{changeTracking}, when: ifEnable, without: "a warning says so, and disks are read in full"},
	},
	toRestore: {
		{on: onPool, ids: []string{importVApp, assignPool}},
		{on: onFolder, ids: []string{createVM, advanced}},
		{on: onFolder, ids: []string{addNewDisk}, when: ifDisks},
		{on: onDatastore, ids: []string{allocate}},
		{on: onNetwork, ids: []string{assignNetwork}, when: ifNetworks},
		{on: onNewVM, ids: []string{rename, advanced, editDevice}},
		{on: onNewVM, ids: []string{deleteVM}, without: "an error names what stays behind if the restore fails"},
		{on: onNewVM, ids: []string{settings}, when: ifBootOrder},
		{on: onNewVM, ids: []string{changeTracking}, when: ifTracking},
		{on: onNewVM, ids: []string{"VApp.ApplicationConfig"}, when: ifVApp},
		{on: onNewVM, ids: []string{setField}, when: ifAttributes},
		{on: onNewVM, ids: []string{attachTag}, when: ifTags, without: "a warning names those that are not restored"},
		{on: onHome, ids: []string{allocate, browse}},
		{on: onHome, ids: []string{manageFiles}, when: ifNVRAM},
		{on: onHome, ids: []string{manageFiles}, when: ifNoNVRAM, without: "an error names the files that stay behind if the restore fails"},
		{on: onDatastore, ids: []string{manageFiles}, when: ifOriginal},
		{on: onServer, ids: []string{viewPolicies}, when: ifPolicies, without: "a warning says that they are not restored"},
		{on: onNewVM, ids: []string{applyPolicies}, when: ifPolicies, without: "a warning says that they are not restored"},
	},
	toRestoreInPlace: {
		{on: onVM, ids: []string{advanced, addDisk, removeDisk}},
		{on: onVM, ids: []string{powerOff}, when: ifRunning},
		{on: onVM, ids: []string{removeSnapshot}, when: ifSnapshots},
		{on: onVM, ids: []string{settings}, when: ifBootOrder},
		{on: onPool, ids: []string{importVApp, assignPool}},
		{on: onFolder, ids: []string{createVM, advanced, addNewDisk}},
		{on: onNewVM, ids: []string{advanced, removeDisk, deleteVM}},
		{on: onDatastore, ids: []string{allocate, browse, manageFiles}},
		{on: onHome, ids: []string{allocate, browse, manageFiles}},
		{on: onVM, ids: []string{
			"VirtualMachine.Config.CPUCount", "VirtualMachine.Config.Memory", "VirtualMachine.Config.Annotation", "VirtualMachine.Config.Resource",
			settings, editDevice,
		}, when: ifHardware, without: "a warning names each setting that is not brought back"},
		{on: onNetwork, ids: []string{assignNetwork}, when: ifHardware, without: "a warning names the adapter"},
	},
	toDeleteReplaced: {{on: onDatastore, ids: []string{manageFiles}, without: "they stay, and a warning names them"}},
}
