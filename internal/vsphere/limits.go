package vsphere

import (
	"context"
	"fmt"
	"sync"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// limits are the semaphores that transfers of disks take, so that a plan with many backups doesn't
// overload one VM's storage, one host's NFC service, or the vCenter's proxy.
type limits struct {
	perVM, perHost int
	server         chan struct{}

	mu    sync.Mutex
	slots map[string]*slots
}

// slots is one semaphore, removed when nobody holds or awaits it.
type slots struct {
	sem   chan struct{}
	users int
}

func newLimits(perVM, perHost, perServer int) *limits {
	return &limits{
		perVM: perVM, perHost: perHost,
		server: make(chan struct{}, perServer),
		slots:  make(map[string]*slots),
	}
}

// acquireTransfer waits until a transfer for vm on host may start; host may be empty when it is not
// known. release must be called once. The narrowest limit is taken first, so that a VM that waits for
// itself holds nothing that others could use; the order is the same for all, so there is no deadlock.
func (c *Client) acquireTransfer(ctx context.Context, vm, host string) (release func(), err error) {
	return c.limits.acquire(ctx, vm, host)
}

func (l *limits) acquire(ctx context.Context, vm, host string) (release func(), err error) {
	releaseVM, err := l.take(ctx, "vm "+vm, l.perVM)
	if err != nil {
		return nil, fmt.Errorf("wait for a transfer of %s: %w", vm, err)
	}
	releaseHost := func() {}
	if host != "" {
		if releaseHost, err = l.take(ctx, "host "+host, l.perHost); err != nil {
			releaseVM()
			return nil, fmt.Errorf("wait for a transfer of %s on host %s: %w", vm, host, err)
		}
	}
	select {
	case l.server <- struct{}{}:
	case <-ctx.Done():
		releaseHost()
		releaseVM()
		return nil, fmt.Errorf("wait for a transfer of %s: %w", vm, ctx.Err())
	}
	return sync.OnceFunc(func() {
		<-l.server
		releaseHost()
		releaseVM()
	}), nil
}

// take takes one of n slots of the semaphore named key.
func (l *limits) take(ctx context.Context, key string, n int) (release func(), err error) {
	l.mu.Lock()
	s := l.slots[key]
	if s == nil {
		s = &slots{sem: make(chan struct{}, n)}
		l.slots[key] = s
	}
	s.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if s.users--; s.users == 0 {
			delete(l.slots, key)
		}
	}
	select {
	case s.sem <- struct{}{}:
		return func() { <-s.sem; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// lockVM waits until this process runs no other operation that changes the VM. A server refuses a
// second state-changing task on a VM (TaskInProgress); queueing here saves the round trips, and keeps
// the order. unlock must be called once. The lock is not re-entrant.
func (c *Client) lockVM(ctx context.Context, vm hypervisor.VMID) (unlock func(), err error) {
	unlock, err = c.locks.take(ctx, string(vm), 1)
	if err != nil {
		return nil, fmt.Errorf("wait for other operations on %s: %w", vm, err)
	}
	return unlock, nil
}
