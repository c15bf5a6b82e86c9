// Package lab is a vCenter for one machine: govmomi's simulator with a data plane of its own. Its
// disks hold bytes, its snapshots freeze them, its leases stream them, and where a real vCenter
// refuses, it refuses.
package lab

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/diskstore"
	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator" // the tag service
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// DefaultLeaseTimeout is how long a lease lives without a sign of life, as on a real vCenter.
const DefaultLeaseTimeout = 300 * time.Second

// userName is the user that may log in.
const userName = "administrator@vsphere.local"

// Options say what lab to start.
type Options struct {
	// Listen is the address to serve on; empty: a free port of 127.0.0.1.
	Listen string
	// Dir is where disks live; empty: a temporary directory, removed by Close.
	Dir string
	// ESX makes the lab a single ESXi host instead of a vCenter.
	ESX bool
	// TLSCert and TLSKey are PEM files; empty: a certificate for 127.0.0.1 and localhost, made at start.
	TLSCert, TLSKey string
	// VMs are what the inventory starts with.
	VMs []VMSpec
	// Users are those beside the administrator.
	Users []UserSpec
	// LeaseTimeout is how long a lease lives without a sign of life; zero: DefaultLeaseTimeout.
	LeaseTimeout time.Duration
}

// A VMSpec describes a VM to put into the inventory.
type VMSpec struct {
	Name string
	// Disks are raw image files. Each is the read-only bottom layer of a disk: it is neither copied
	// nor modified, and must stay where it is as long as the lab runs.
	Disks []string
	// PoweredOff leaves the VM off, ToolsNotRunning leaves VMware Tools off, ChangeTracking enables
	// changed block tracking.
	PoweredOff, ToolsNotRunning, ChangeTracking bool
}

// A Lab is a running vCenter (or ESXi host).
type Lab struct {
	options  Options
	model    *simulator.Model
	server   *simulator.Server
	internal *simulator.Registry // registry of the session that the simulator's own clients share
	store    *diskstore.Store
	cert     tls.Certificate
	password string
	dir      string
	ownDir   bool
	done     chan struct{} // closed by Close
	running  sync.WaitGroup
	faults   faults
	leases   leases
	tickets  tickets
	tracking tracking
	events   events
	policies policies
	users    users
	secrets  secrets

	mu       sync.Mutex
	calls    map[string]int
	hooks    map[string]func(context.Context)
	guests   map[string]GuestBoot                  // by the VM's name
	overlays map[*simulator.Registry]string        // sessions that have overlays, with their keys
	jobs     map[types.ManagedObjectReference]*job // running tasks by reference
	busy     map[types.ManagedObjectReference]*job // the task that changes an object
	points   map[types.ManagedObjectReference]*point
	thick    map[string]bool // files that take all their space at once
	made     map[string]diskMake
	closed   bool

	snapshotIDs map[types.ManagedObjectReference]int32  // the last one given out, by VM
	diskUUIDs   map[string]string                       // by the name of a disk's bottom file
	instances   map[string]types.ManagedObjectReference // VMs by instance UUID
	macs        map[string]types.ManagedObjectReference // VMs by MAC address
	creating    sync.Mutex

	unregistered map[string]*types.VirtualMachineConfigInfo // by .vmx file
}

// startMu serialises starts: the simulator copies its templates from package variables.
var startMu sync.Mutex

// Start starts a lab. Its VMs are ready when it returns; the caller must Close it. Errors: a VM's disk
// can't be read, the certificate or the address can't be used.
func Start(ctx context.Context, o Options) (*Lab, error) {
	if o.LeaseTimeout == 0 {
		o.LeaseTimeout = DefaultLeaseTimeout
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	l := &Lab{
		options: o, dir: o.Dir, done: make(chan struct{}),
		calls:    make(map[string]int),
		hooks:    make(map[string]func(context.Context)),
		guests:   make(map[string]GuestBoot),
		overlays: make(map[*simulator.Registry]string),
		jobs:     make(map[types.ManagedObjectReference]*job),
		busy:     make(map[types.ManagedObjectReference]*job),
		points:   make(map[types.ManagedObjectReference]*point),
		thick:    make(map[string]bool),
		made:     make(map[string]diskMake),

		snapshotIDs: make(map[types.ManagedObjectReference]int32),
		diskUUIDs:   make(map[string]string),

		unregistered: make(map[string]*types.VirtualMachineConfigInfo),
		instances:    make(map[string]types.ManagedObjectReference),
		macs:         make(map[string]types.ManagedObjectReference),
	}
	err := l.start(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start lab: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context) error {
	if err := l.openStore(); err != nil {
		return err
	}
	secret := make([]byte, 12)
	_, _ = rand.Read(secret) // never fails
	l.password = hex.EncodeToString(secret)
	var err error
	if l.cert, err = certificate(l.options.TLSCert, l.options.TLSKey); err != nil {
		return err
	}
	if err := l.serve(ctx); err != nil {
		return err
	}
	if err := l.prepareInventory(ctx); err != nil {
		return err
	}
	l.model.Map().SessionManager().ValidLogin = l.validLogin
	for _, user := range l.options.Users {
		if err := l.AddUser(user); err != nil {
			return err
		}
	}
	for _, vm := range l.options.VMs {
		if err := l.AddVM(ctx, vm); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.calls) // those were the lab's own
	return nil
}

func (l *Lab) openStore() error {
	if l.dir == "" {
		dir, err := os.MkdirTemp("", "vm-lab-")
		if err != nil {
			return err
		}
		l.dir, l.ownDir = dir, true
	}
	disks := filepath.Join(l.dir, "disks")
	if err := os.MkdirAll(disks, 0o700); err != nil {
		return err
	}
	store, err := diskstore.Open(disks)
	if err != nil {
		return err
	}
	l.store = store
	return nil
}

// serve creates the inventory and starts the server.
func (l *Lab) serve(ctx context.Context) error {
	startMu.Lock()
	defer startMu.Unlock()
	m := simulator.VPX()
	if l.options.ESX {
		m = simulator.ESX()
	}
	m.Machine = 0
	m.ServiceContent.About.InstanceUuid = uuid.NewString()
	l.model = m
	if err := m.Create(); err != nil {
		return err
	}
	// The simulator's settings are pointers into a package variable, and the server writes its URL into them.
	options := m.Map().OptionManager()
	for i, o := range options.Setting {
		setting := *o.GetOptionValue()
		options.Setting[i] = &setting
	}
	m.Service.Listen = &url.URL{Host: l.options.Listen, User: url.UserPassword(userName, l.password)}
	m.Service.TLS = &tls.Config{Certificates: []tls.Certificate{l.cert}, MinVersion: tls.VersionTLS12}
	m.Service.RegisterEndpoints = true
	if err := l.install(ctx); err != nil {
		return err
	}
	if err := checkAddress(ctx, l.options.Listen); err != nil {
		return err
	}
	l.server = m.Service.NewServer()
	l.installPolicies()
	return nil
}

// install puts the lab's handlers before the simulator's.
func (l *Lab) install(ctx context.Context) error {
	svc, registry := l.model.Service, l.model.Map()
	// The simulator's own clients share one session over all simulators of a process: find out which
	// it is, to leave it alone.
	registry.Handler = func(ctx *simulator.Context, _ *simulator.Method) (mo.Reference, types.BaseMethodFault) {
		l.internal = ctx.Session.Registry
		return nil, nil
	}
	if _, err := methods.GetCurrentTime(ctx, svc); err != nil {
		return err
	}
	registry.Handler = l.handle
	registry.AddHandler(&janitor{l})
	for _, path := range []string{registry.Path, registry.Path + "/vimService"} {
		svc.HandleFunc("POST "+path, l.serveSDK)
	}
	l.installTagging()
	l.installTransfers()
	return nil
}

// URL is where the API is served, without user and password.
func (l *Lab) URL() *url.URL {
	u := *l.server.URL
	u.User = nil
	return &u
}

// User is the name to log in with.
func (*Lab) User() string { return userName }

// Password is the password to log in with.
func (l *Lab) Password() string { return l.password }

// Model is the simulator behind the lab, for tests of the lab itself and for odd set-ups.
func (l *Lab) Model() *simulator.Model { return l.model }

// Calls counts API calls by method since the start. HTTP requests count as "GET /nfc" and so on.
func (l *Lab) Calls() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := make(map[string]int, len(l.calls))
	for method, n := range l.calls {
		calls[method] = n
	}
	return calls
}

// OnCall has fn run whenever a client calls method, before the call acts. A nil fn removes the hook.
func (l *Lab) OnCall(method string, fn func(context.Context)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fn == nil {
		delete(l.hooks, method)
		return
	}
	l.hooks[method] = fn
}

// enter counts a call and runs its hook.
func (l *Lab) enter(ctx context.Context, method string) {
	l.mu.Lock()
	l.calls[method]++
	hook := l.hooks[method]
	l.mu.Unlock()
	if hook != nil {
		hook(ctx)
	}
}

// Close stops the lab and removes what it made, but not a directory that it was given.
func (l *Lab) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	close(l.done)
	if l.server != nil {
		_ = l.server.Listener.Close()
		l.server.CloseClientConnections()
		l.server.Close()
	}
	l.running.Wait()
	if l.model != nil && l.model.Service != nil {
		l.model.Remove()
	}
	var errs []error
	if l.store != nil {
		errs = append(errs, l.store.Close())
	}
	if l.ownDir {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}
