package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/vmware/govmomi/vapi/rest"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// restCheckAfter is for how long a REST session counts as alive without asking the server.
const restCheckAfter = time.Minute

// restSession is the session with the REST API, where tags live. It is made on first use.
type restSession struct {
	mu      sync.Mutex
	client  *rest.Client
	checked time.Time
}

// rest returns a client of the REST API with a live session.
// Error: hypervisor.ErrNotSupported on an ESXi host, which has no such API.
func (c *Client) rest(ctx context.Context) (*rest.Client, error) {
	if !c.vim.IsVC() {
		return nil, fmt.Errorf("tags of an ESXi host: %w", hypervisor.ErrNotSupported)
	}
	s := &c.restSession
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil && time.Since(s.checked) < restCheckAfter {
		return s.client, nil
	}
	if s.client != nil {
		if session, err := s.client.Session(ctx); err == nil && session != nil {
			s.checked = time.Now()
			return s.client, nil
		}
	}
	if c.session.isRefused(ctx) {
		return nil, fmt.Errorf("log in to the REST API: %w", hypervisor.ErrLogin)
	}
	client := rest.NewClient(c.vim)
	if err := client.Login(ctx, url.UserPassword(c.config.User, c.config.Password.Reveal())); err != nil {
		var cert *hypervisor.CertificateError
		switch {
		case errors.As(err, &cert):
			return nil, cert
		case rest.IsStatusError(err, http.StatusUnauthorized):
			return nil, fmt.Errorf("log in to the REST API of %s as %s: %w", c.addr, c.config.User, hypervisor.ErrLogin)
		case isNetworkError(err) && ctx.Err() == nil:
			return nil, &hypervisor.UnreachableError{Server: c.addr, Err: withoutURL(err)}
		}
		return nil, fmt.Errorf("log in to the REST API of %s: %w", c.addr, withoutURL(err))
	}
	s.client, s.checked = client, time.Now()
	return client, nil
}

// logout ends the session, if there is one. A session that can't be ended expires by itself.
func (s *restSession) logout(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		_ = s.client.Logout(ctx)
		s.client = nil
	}
}
