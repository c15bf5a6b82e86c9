package vsphere

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// A session is the login of a Client. It goes past the roundTripper, which calls it.
type session struct {
	direct   *vim25.Client // repeats nothing
	user     string
	password secret.String
	log      *slog.Logger

	// turn holds one token; who has it may log in. A channel rather than a mutex, so that waiting
	// ends with the context.
	turn chan struct{}

	// Owned by who holds turn; generation counts log-ins.
	generation uint64
	key        string // of the session on the server
	refused    error  // a refused log-in is final: more attempts would lock the account
}

func newSession(vim *vim25.Client, user string, password secret.String, log *slog.Logger) *session {
	direct := *vim
	direct.RoundTripper = vim.Client
	s := &session{direct: &direct, user: user, password: password, log: log, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// take waits for the turn to log in.
func (s *session) take(ctx context.Context) error {
	select {
	case <-s.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *session) release() { s.turn <- struct{}{} }

// current returns the number of log-ins so far, to be handed to renew.
func (s *session) current(ctx context.Context) (uint64, error) {
	if err := s.take(ctx); err != nil {
		return 0, err
	}
	defer s.release()
	return s.generation, nil
}

// currentKey is the server's ID of the session. It is as secret as a password.
func (s *session) currentKey(ctx context.Context) (string, error) {
	if err := s.take(ctx); err != nil {
		return "", err
	}
	defer s.release()
	return s.key, nil
}

// login logs in. Error: hypervisor.ErrLogin.
func (s *session) login(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	return s.loginLocked(ctx)
}

func (s *session) loginLocked(ctx context.Context) error {
	if s.refused != nil {
		return s.refused
	}
	res, err := methods.Login(ctx, s.direct, &types.Login{
		This: *s.direct.ServiceContent.SessionManager, UserName: s.user, Password: s.password.Reveal(), Locale: "en_US",
	})
	switch {
	case err == nil:
		s.generation++
		s.key = res.Returnval.Key
		return nil
	case fault.Is(err, &types.InvalidLogin{}), fault.Is(err, &types.NoPermission{}):
		s.refused = fmt.Errorf("log in as %s: %w", s.user, hypervisor.ErrLogin)
		return s.refused
	}
	return fmt.Errorf("log in as %s: %w", s.user, withoutURL(err))
}

// renew logs in again unless somebody else has done so since generation seen.
func (s *session) renew(ctx context.Context, seen uint64) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	if s.generation != seen {
		return nil
	}
	// A server that still knows the session refuses a second log-in on it as if the password were wrong.
	if active, err := s.active(ctx); err == nil && active {
		s.generation++
		return nil
	}
	s.log.InfoContext(ctx, "the vSphere session has ended, logging in again", "user", s.user)
	return s.loginLocked(ctx)
}

// active asks the server whether the session is authenticated.
func (s *session) active(ctx context.Context) (bool, error) {
	var m mo.SessionManager
	err := mo.RetrieveProperties(ctx, s.direct, s.direct.ServiceContent.PropertyCollector,
		*s.direct.ServiceContent.SessionManager, &m)
	if err != nil {
		return false, err
	}
	return m.CurrentSession != nil, nil
}

// touch makes a call that keeps the session alive.
func (s *session) touch(ctx context.Context, through soap.RoundTripper) error {
	_, err := methods.GetCurrentTime(ctx, through)
	return err
}

// isRefused tells whether the server has refused the user or the password.
func (s *session) isRefused(ctx context.Context) bool {
	if err := s.take(ctx); err != nil {
		return false
	}
	defer s.release()
	return s.refused != nil
}

func (s *session) logout(ctx context.Context) error {
	_, err := methods.Logout(ctx, s.direct, &types.Logout{This: *s.direct.ServiceContent.SessionManager})
	if fault.Is(err, &types.NotAuthenticated{}) {
		return nil
	}
	return err
}

// A roundTripper renews the session and repeats what may be repeated:
//   - any call that the server refused because the session has ended, since it didn't act on it;
//   - calls that only read, after a failure of the network or of a busy server.
//
// A call that creates or changes something is never repeated after a failure that leaves open whether
// the server acted; callers look what became of it.
type roundTripper struct {
	next    soap.RoundTripper
	session *session
	changes *atomic.Int64 // counts the calls that may have changed something
	log     *slog.Logger
}

// readAttempts is how often a read is tried; with the delays of backoff it is given up after some 3 s.
const readAttempts = 5

// RoundTrip implements soap.RoundTripper.
func (r *roundTripper) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	method, this := describe(req)
	renewed := false
	if mayChange(method) {
		defer r.changes.Add(1)
	}
	for attempt := 1; ; attempt++ {
		seen, err := r.session.current(ctx)
		if err != nil {
			return err
		}
		if err = r.next.RoundTrip(ctx, req, res); err == nil {
			err = withheld(res)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return err
		case fault.Is(err, &types.NotAuthenticated{}):
			if renewed || method == "Logout" {
				return err
			}
			if err := r.session.renew(ctx, seen); err != nil {
				return fmt.Errorf("%s: renew the session: %w", method, err)
			}
			renewed = true
			if sessionBound(this) {
				return err // what the call was about ended with the session
			}
		case attempt < readAttempts && onlyReads(method) && isTransient(err):
			r.log.DebugContext(ctx, "repeating a read", "method", method, "attempt", attempt, "error", withoutURL(err))
			if pause(ctx, backoff(attempt)) != nil {
				return err
			}
		default:
			return err
		}
		reset(res)
	}
}

// withheld returns an error when a read succeeded but the properties were kept back because the session
// has ended: reading properties is allowed to anybody, and each object says what it doesn't show.
func withheld(res soap.HasFault) error {
	var objects []types.ObjectContent
	switch body := res.(type) {
	case *methods.RetrievePropertiesExBody:
		if body.Res != nil && body.Res.Returnval != nil {
			objects = body.Res.Returnval.Objects
		}
	case *methods.ContinueRetrievePropertiesExBody:
		if body.Res != nil {
			objects = body.Res.Returnval.Objects
		}
	}
	for _, object := range objects {
		for _, missing := range object.MissingSet {
			if f, ok := missing.Fault.Fault.(*types.NotAuthenticated); ok {
				return soap.WrapVimFault(f)
			}
		}
	}
	return nil
}

// describe returns the method's name and the object it is called on.
func describe(req soap.HasFault) (method string, this types.ManagedObjectReference) {
	v := reflect.Indirect(reflect.ValueOf(req))
	method = strings.TrimSuffix(v.Type().Name(), "Body")
	if r := v.FieldByName("Req"); r.IsValid() && !r.IsZero() {
		if f := reflect.Indirect(r).FieldByName("This"); f.IsValid() {
			this, _ = f.Interface().(types.ManagedObjectReference)
		}
	}
	return method, this
}

// reset empties a response that holds the fault of an earlier attempt.
func reset(res soap.HasFault) {
	if v := reflect.ValueOf(res); v.Kind() == reflect.Pointer && !v.IsNil() {
		v.Elem().SetZero()
	}
}

// sessionBound tells whether an object ends with the session that made it.
func sessionBound(ref types.ManagedObjectReference) bool {
	switch ref.Type {
	case "PropertyFilter", "ContainerView", "ListView", "HttpNfcLease", "TaskHistoryCollector":
		return true
	case "PropertyCollector":
		return ref.Value != "propertyCollector" && ref.Value != "ha-property-collector"
	}
	return false
}

// onlyReads tells whether a method changes nothing on the server that outlives the session.
func onlyReads(method string) bool {
	for _, prefix := range []string{"Retrieve", "Query", "Find", "Check", "Search"} {
		if strings.HasPrefix(method, prefix) {
			return !strings.HasSuffix(method, "_Task")
		}
	}
	switch method {
	case "CurrentTime", "HttpNfcLeaseGetManifest", "HttpNfcLeaseProgress", "HasPrivilegeOnEntities", "HasPrivilegeOnEntity",
		"FetchUserPrivilegeOnEntities", "CreateContainerView", "CancelTask", "RefreshStorageInfo":
		return true
	}
	return false
}

// backoff returns how long to wait before attempt+1: about 0.1, 0.2, 0.4 s and so on, at most 5 s,
// spread so that callers who failed together don't come back together.
func backoff(attempt int) time.Duration {
	d := min(100*time.Millisecond<<min(attempt-1, 10), 5*time.Second)
	return d/2 + rand.N(d) // not a secret
}

// pause waits d or until ctx ends, and returns ctx.Err().
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errClosed = errors.New("the connection is closed")
