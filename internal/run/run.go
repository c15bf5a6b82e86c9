// Package run gives every backup and restore an identity that the things it creates on the
// hypervisor carry, so that what a killed run left behind can be told from what a living one is
// still using.
package run

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Lifetime of a run whose context has no deadline, and what is added to a deadline: clean-up comes
// after it, and the clocks of two hosts differ.
const (
	defaultLifetime = 48 * time.Hour
	grace           = time.Hour
)

// ErrToken is what text gives that is not a token of a run.
var ErrToken = errors.New("not the token of a run")

// An ID identifies a run: random, so that no two runs share one.
type ID [8]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// A Run is one execution of a backup or restore, and the process that executes it.
type Run struct {
	ID      ID
	Host    string // host name, for people
	Space   Space  // in which PID means something
	PID     int
	Ticks   uint32 // when the process started, in the system's own unit; zero: unknown
	Expires time.Time
}

// A Space identifies a set of processes that see each other: one boot of one host, and in it one
// PID namespace. Two containers, and two hosts, have different spaces even when their host names are
// the same. Zero: unknown, and different from all.
type Space [6]byte

// active holds the runs of this process that have not ended. It is process-wide because that is
// what it says something about: several managers, of several provider configurations, see the same
// hypervisor.
var active sync.Map // of ID to struct{}

// Start begins a run. deadline is when the caller's context ends, zero if it doesn't. The caller
// must call End.
func Start(now, deadline time.Time) Run {
	me := self()
	r := Run{Host: me.host, Space: me.space, PID: me.pid, Ticks: me.ticks}
	_, _ = rand.Read(r.ID[:]) // never fails
	if deadline.IsZero() {
		r.Expires = now.Add(defaultLifetime)
	} else {
		r.Expires = deadline.Add(grace)
	}
	r.Expires = r.Expires.UTC().Truncate(time.Second)
	active.Store(r.ID, struct{}{})
	return r
}

// End marks a run as over: what it left behind, if anything, is nobody's any more.
func (r Run) End() { active.Delete(r.ID) }

// Dead reports whether nobody is behind the run any more. Where its process can be looked for, that
// decides; otherwise, on another host, its expiry does.
func (r Run) Dead(now time.Time) bool {
	if alive, known := r.Alive(); known {
		return !alive
	}
	return now.After(r.Expires)
}

// Alive looks for the process behind the run. known is false where that tells nothing, as on another host.
func (r Run) Alive() (alive, known bool) {
	if _, going := active.Load(r.ID); going {
		return true, true
	}
	me := self()
	if r.Space != me.space || !r.Space.known() {
		return false, false
	}
	if r.PID == me.pid && r.Ticks == me.ticks {
		return false, true
	}
	ticks, there := process(r.PID)
	switch {
	case !there:
		return false, true
	case ticks == 0 || r.Ticks == 0: // can't tell whether the PID was given to another process
		return false, false
	default:
		return ticks == r.Ticks, true
	}
}

// Holder says, for people, by whom a run is carried out.
func (r Run) Holder() string {
	if me := self(); r.Space == me.space && r.Space.known() {
		return fmt.Sprintf("process %d of this machine", r.PID)
	}
	return fmt.Sprintf("process %d of another machine, boot or container", r.PID)
}

func (s Space) known() bool { return s != Space{} }

func spaceOf(parts ...string) Space {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return Space(sum[:6])
}

// A token is the binary form of a run: version, ID, space, PID, ticks, and expiry in Unix seconds,
// which in 32 bits without a sign last until 2106.
const (
	tokenVersion = 1
	tokenSize    = 1 + 8 + 6 + 4 + 4 + 4
)

// Lower case and without padding: a token is a part of file names and of VM names, some of which
// are compared without regard to case, and which can't be long.
var encoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// Token is the run in 44 lower-case letters and digits, without its host name.
func (r Run) Token() string {
	b := make([]byte, 0, tokenSize)
	b = append(b, tokenVersion)
	b = append(b, r.ID[:]...)
	b = append(b, r.Space[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(r.PID))
	b = binary.BigEndian.AppendUint32(b, r.Ticks)
	b = binary.BigEndian.AppendUint32(b, uint32(r.Expires.Unix()))
	return encoding.EncodeToString(b)
}

// ParseToken is the reverse of Token. It returns an error that wraps ErrToken.
func ParseToken(s string) (Run, error) {
	b, err := encoding.DecodeString(s)
	if err != nil || len(b) != tokenSize || b[0] != tokenVersion {
		return Run{}, fmt.Errorf("%w: %q", ErrToken, s)
	}
	r := Run{
		ID:      ID(b[1:9]),
		Space:   Space(b[9:15]),
		PID:     int(binary.BigEndian.Uint32(b[15:])),
		Ticks:   binary.BigEndian.Uint32(b[19:]),
		Expires: time.Unix(int64(binary.BigEndian.Uint32(b[23:])), 0).UTC(),
	}
	if r.Token() != s { // base32 has spare bits and skips line breaks: one run, one token
		return Run{}, fmt.Errorf("%w: %q", ErrToken, s)
	}
	return r, nil
}
