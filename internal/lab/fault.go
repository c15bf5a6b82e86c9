package lab

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// A Fault makes calls fail.
type Fault struct {
	// Method is the SOAP name of a method, or "GET /nfc", "POST /nfc", "PUT /nfc", "GET /folder",
	// "PUT /folder". CreateSnapshot_Task also stands for CreateSnapshotEx_Task. ImportVAppLRO is the task
	// that creates an import's VM beside the call.
	Method string `json:"method"`
	// Fault is the name of a vim fault type ("TaskInProgress"). A method that starts a task succeeds and
	// the task fails; with "call:" before the name the call itself fails. Beyond these there are "drop"
	// (the connection breaks before the call acts), "lost" (it acts, and the connection breaks in the middle
	// of the answer; a task that it started takes a moment longer), "503", "hang" (no answer until the client
	// goes away), for transfers "truncate" and "corrupt", for "GET /folder" also "whole", "shifted" and "shorter"
	// (the answer to a request for a range is the whole file, another range, or all but the range's last byte),
	// and for ShutdownGuest "ignore" (the guest does nothing). Empty: nothing but the delay.
	Fault string `json:"fault"`
	// Count is how many calls it hits: zero means one, a negative number means all.
	Count int `json:"count"`
	// After is how many calls pass before it hits.
	After int `json:"after"`
	// Delay is how long the call or the task takes before the fault, or the work, happens.
	Delay time.Duration `json:"delay"`
}

// faultKind is the place at which a fault acts.
type faultKind int

const (
	faultTransport faultKind = iota // the connection
	faultCall                       // the call
	faultTask                       // the task that the call starts
	faultTransfer                   // an HTTP request of a lease or a datastore
	faultGuest                      // what the guest makes of the call
)

// transportFaults break the connection rather than the call.
var transportFaults = []string{"drop", "lost", "503", "hang"}

func (f Fault) kind() faultKind {
	switch {
	case f.Fault == "ignore":
		return faultGuest
	case strings.Contains(f.Method, " /"):
		return faultTransfer
	case slices.Contains(transportFaults, f.Fault):
		return faultTransport
	case strings.HasSuffix(f.Method, "_Task") && !strings.HasPrefix(f.Fault, "call:"), f.Method == importTask:
		return faultTask
	}
	return faultCall
}

// matches says whether the fault is meant for a method.
func (f Fault) matches(method string) bool {
	return f.Method == method || f.Method == "CreateSnapshot_Task" && method == "CreateSnapshotEx_Task"
}

// privileges are those that a missing permission names, by method.
var privileges = map[string]string{
	"CreateSnapshot_Task":   "VirtualMachine.State.CreateSnapshot",
	"RemoveSnapshot_Task":   "VirtualMachine.State.RemoveSnapshot",
	"RenameSnapshot":        "VirtualMachine.State.RenameSnapshot",
	"RevertToSnapshot_Task": "VirtualMachine.State.RevertToSnapshot",
	"ExportSnapshot":        "VApp.Export",
	"ImportVApp":            "VApp.Import",
	"PowerOnVM_Task":        "VirtualMachine.Interact.PowerOn",
	"PowerOffVM_Task":       "VirtualMachine.Interact.PowerOff",
	"Destroy_Task":          "VirtualMachine.Inventory.Delete",
	"ReconfigVM_Task":       "VirtualMachine.Config.Settings",
	"RetrievePropertiesEx":  "System.Read",
}

// fill sets what a server says about the object of a fault. task is the one that fails, empty for a call.
func (f Fault) fill(fault types.BaseMethodFault, object, task types.ManagedObjectReference) {
	switch t := fault.(type) {
	case *types.TaskInProgress:
		t.Task = task
	case *types.NoPermission:
		t.Object, t.PrivilegeId = &object, privileges[f.Method]
	case *types.NotAuthenticated:
		t.Object, t.PrivilegeId = &object, "System.View"
	case *types.NoDiskSpace:
		t.Datastore, t.File = "LocalDS_0", "[LocalDS_0]"
	case *types.ManagedObjectNotFound:
		t.Obj = object
	}
}

// method makes the vim fault of the fault's name, nil when it names none. Unknown names become a
// SystemError that says so.
func (f Fault) method() types.BaseMethodFault {
	name := strings.TrimPrefix(f.Fault, "call:")
	if name == "" {
		return nil
	}
	if t, ok := types.TypeFunc()(name); ok {
		if fault, ok := reflect.New(t).Interface().(types.BaseMethodFault); ok {
			return fault
		}
	}
	return &types.SystemErrorFault{Reason: fmt.Sprintf("injected fault %q is no vim fault", f.Fault)}
}

// faults are the injected faults.
type faults struct {
	mu   sync.Mutex
	list []*injected
	lost map[string]int // by method, the calls whose task has not begun to work
}

// lostWork is for how long a server is still at the task of a call whose answer was lost, when its client comes back.
const lostWork = 250 * time.Millisecond

// lose notes a call whose answer will be lost.
func (s *faults) lose(method string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = make(map[string]int)
	}
	if method == "ImportVApp" {
		method = importTask
	}
	s.lost[method]++
}

// isLost tells whether a task is that of such a call, and uses it up.
func (s *faults) isLost(method string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost[method] == 0 {
		return false
	}
	s.lost[method]--
	return true
}

type injected struct {
	Fault
	kind    faultKind
	seen    int
	left    int // negative: no end
	hitOnce bool
}

// Fault makes the next calls of a method fail. Of several faults for one method the first that applies wins.
func (l *Lab) Fault(f Fault) {
	left := f.Count
	if left == 0 {
		left = 1
	}
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	l.faults.list = append(l.faults.list, &injected{Fault: f, kind: f.kind(), left: left})
}

// Heal takes back the faults of a method.
func (l *Lab) Heal(method string) {
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	l.faults.list = slices.DeleteFunc(l.faults.list, func(f *injected) bool { return f.Method == method })
}

// next tells what happens to a call of method at one place, and uses it up.
func (s *faults) next(method string, kind faultKind) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.list {
		if f.kind != kind || !f.matches(method) || f.left == 0 {
			continue
		}
		if f.seen < f.After {
			f.seen++
			continue
		}
		f.hitOnce = true
		if f.left > 0 {
			f.left--
		}
		return f.Fault, true
	}
	return Fault{}, false
}

// UnhitFaults lists the faults that have hit nothing, or less than they were to hit.
func (l *Lab) UnhitFaults() []Fault {
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	var unhit []Fault
	for _, f := range l.faults.list {
		if f.left > 0 || !f.hitOnce {
			unhit = append(unhit, f.Fault)
		}
	}
	return unhit
}
