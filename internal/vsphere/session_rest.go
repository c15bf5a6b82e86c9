package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/vmware/govmomi/vapi/rest"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// restCheckAfter is for how long a REST session counts as alive without asking the server.
const restCheckAfter = time.Minute

// restSession is the session with the REST API, where tags live. It is made on first use.
type restSession struct {
	// turn holds one token; who has it owns what follows. A channel rather than a mutex, so that waiting
	// ends with the context.
	turn    chan struct{}
	client  *rest.Client
	checked time.Time
}

func newRESTSession() *restSession {
	s := &restSession{turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// take waits for the turn. Give it back by release.
func (s *restSession) take(ctx context.Context) error {
	select {
	case <-s.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *restSession) release() { s.turn <- struct{}{} }

// rest returns a client of the REST API with a live session.
// Error: hypervisor.ErrNotSupported on an ESXi host, which has no such API.
func (c *Client) rest(ctx context.Context) (*rest.Client, error) {
	if !c.vim.IsVC() {
		return nil, fmt.Errorf("tags of an ESXi host: %w", hypervisor.ErrNotSupported)
	}
	s := c.restSession
	if err := s.take(ctx); err != nil {
		return nil, fmt.Errorf("log in to the REST API: %w", err)
	}
	defer s.release()
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
	if s.take(ctx) != nil {
		return // somebody is logging in
	}
	defer s.release()
	if s.client != nil {
		_ = s.client.Logout(ctx)
		s.client = nil
	}
}
