package vsphere

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A Client is a connection to a vCenter or an ESXi host. It is safe for concurrent use.
type Client struct {
	config Config
	addr   string // host:port
	vim    *vim25.Client
	log    *slog.Logger

	session *session
	limits  *limits
	locks   *limits // one slot per VM, see lockVM
	watcher *watcher
	reads   readers
	hints   hints
	listing coalesced[map[types.ManagedObjectReference]types.ObjectContent] // all VMs

	overview *overview

	restSession *restSession

	ticks func(d time.Duration) (ticks <-chan time.Time, end func()) // everySoOften, but for tests

	serverMu sync.Mutex
	serverID string // of an ESXi host, once known

	// life ends with Close. What serves many callers at a time (a batch of reads, the watcher, the
	// keepalive) runs on it rather than on the context of one caller.
	life context.Context // see above
	stop context.CancelFunc
	done chan struct{} // closed when the keepalive has ended
}

// Connect logs in. Call Close when done.
//
// Errors: hypervisor.ErrLogin, a *hypervisor.CertificateError with the thumbprint the server
// presented, a *hypervisor.UnreachableError. A wrong password is tried once, since servers lock
// accounts.
func Connect(ctx context.Context, config Config, log *slog.Logger) (*Client, error) {
	config, u, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), "443")
	}
	tr := &trust{server: addr, off: config.AllowUnverifiedSSL, now: time.Now}
	if tr.pin, err = config.pin(); err != nil {
		return nil, err
	}
	if tr.roots, err = config.rootCAs(); err != nil {
		return nil, err
	}
	sc := soap.NewClient(u, config.AllowUnverifiedSSL)
	sc.UserAgent = config.UserAgent
	tr.known = sc.Thumbprint
	tr.install(sc.DefaultTransport(), config.DialTimeout)

	vim, err := vim25.NewClient(ctx, sc)
	if err != nil {
		sc.CloseIdleConnections()
		return nil, connectError(ctx, u.Host, err)
	}
	c := &Client{
		config: config, addr: addr, vim: vim, log: log,
		limits: newLimits(config.MaxTransfersPerVM, config.MaxTransfersPerHost, config.MaxTransfersPerServer),
		locks:  newLimits(1, 1, 1),
		done:   make(chan struct{}),

		restSession: newRESTSession(), ticks: everySoOften,
	}
	c.session = newSession(vim, config.User, config.Password, log)
	if err := c.session.login(ctx); err != nil {
		sc.CloseIdleConnections()
		return nil, connectError(ctx, u.Host, err)
	}
	log.InfoContext(ctx, "logged in", "server", u.Host, "user", config.User, "product", vim.ServiceContent.About.FullName)
	c.overview = newOverview(c.listing.get)
	vim.RoundTripper = &roundTripper{next: sc, session: c.session, changes: &c.overview.changes, log: log}

	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.life, c.stop = life, stop
	c.watcher = newWatcher(life, vim, log)
	c.reads = newReaders(life, vim, c.overview)
	c.listing.life = life
	c.listing.ask = func(ctx context.Context) (map[types.ManagedObjectReference]types.ObjectContent, error) {
		return c.list(ctx, "VirtualMachine", "name", "config.uuid", "config.instanceUuid")
	}
	go c.keepAlive()
	return c, nil
}

// connectError says what is wrong with the server, the network or the log-in.
func connectError(ctx context.Context, server string, err error) error {
	var cert *hypervisor.CertificateError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("connect to %s: %w", server, context.Cause(ctx))
	case errors.As(err, &cert):
		return cert
	case errors.Is(err, hypervisor.ErrLogin):
		return fmt.Errorf("connect to %s: %w", server, err)
	case isNetworkError(err):
		return &hypervisor.UnreachableError{Server: server, Err: withoutURL(err)}
	}
	return fmt.Errorf("connect to %s: no answer of a vSphere API: %w", server, withoutURL(err))
}

// withoutURL takes the address of the request off the text of an error of package net/http. What went wrong remains
// to be seen and told from other things, by isAmbiguous for one.
func withoutURL(err error) error {
	failed := requests(err)
	if len(failed) == 0 {
		return err
	}
	text := err.Error()
	for _, u := range failed {
		text = strings.ReplaceAll(text, u.Error(), u.Err.Error())
	}
	if strings.Contains(text, failed[0].URL) { // somebody puts it another way
		text = failed[0].Err.Error()
	}
	return &addresslessError{text: text, err: err}
}

// requests are the errors of package net/http that an error wraps.
func requests(err error) (all []*url.Error) {
	if u, ok := err.(*url.Error); ok { //nolint:errorlint // this very one, others are found on the way
		return []*url.Error{u}
	}
	switch wrapper := err.(type) { //nolint:errorlint // as above
	case interface{ Unwrap() error }:
		if inner := wrapper.Unwrap(); inner != nil {
			all = requests(inner)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range wrapper.Unwrap() {
			all = append(all, requests(inner)...)
		}
	}
	return all
}

type addresslessError struct {
	text string
	err  error
}

func (e *addresslessError) Error() string { return e.text }
func (e *addresslessError) Unwrap() error { return e.err }

// keepAlive uses the session now and then so that the server doesn't end it. A session that ended
// nevertheless is renewed on the way, like for any other call.
func (c *Client) keepAlive() {
	defer close(c.done)
	tick := time.NewTicker(c.config.KeepAlive)
	defer tick.Stop()
	for {
		select {
		case <-c.life.Done():
			return
		case <-tick.C:
			if err := c.session.touch(c.life, c.vim); err != nil {
				c.log.WarnContext(c.life, "keep the vSphere session alive", "server", c.addr, "error", err)
			}
		}
	}
}

// closeTimeout is how long Close may take to log out if its caller sets no deadline.
const closeTimeout = 15 * time.Second

// Close logs out and ends what runs in the background. It keeps the deadline of ctx, but not its
// cancellation: who was cancelled logs out nevertheless. A session that can't be ended in time expires by
// itself. A second call does nothing.
func (c *Client) Close(ctx context.Context) error {
	if c.life.Err() != nil {
		return nil
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(closeTimeout)
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	// The watcher takes leave of the server first, but not all of the time.
	c.watcher.close(min(closeWatcherTimeout, time.Until(deadline)/3), c.stop)
	<-c.done
	rest := make(chan struct{})
	go func() {
		defer close(rest)
		c.restSession.logout(ctx)
	}()
	err := c.session.logout(ctx)
	<-rest
	c.vim.CloseIdleConnections()
	if err != nil {
		return fmt.Errorf("log out of %s: %w", c.addr, withoutURL(err))
	}
	return nil
}

// vmRef is the managed object reference of a VM's handle.
func vmRef(id hypervisor.VMID) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "VirtualMachine", Value: string(id)}
}

// snapshotRef is the managed object reference of a snapshot's handle.
func snapshotRef(id hypervisor.SnapshotID) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: string(id)}
}

// vm wraps a VM's handle for govmomi.
func (c *Client) vm(id hypervisor.VMID) *object.VirtualMachine {
	return object.NewVirtualMachine(c.vim, vmRef(id))
}
