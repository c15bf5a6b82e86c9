package run

import (
	"errors"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)

func TestToken_roundTrip(t *testing.T) {
	t.Parallel()
	r := Start(now, now.Add(time.Hour))
	defer r.End()
	token := r.Token()
	if len(token) != 44 || strings.ToLower(token) != token {
		t.Errorf("token %q", token)
	}
	got, err := ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "" // has no place in a token
	if got != r {
		t.Errorf("got %+v, want %+v", got, r)
	}
}

func FuzzParseToken(f *testing.F) {
	r := Start(now, time.Time{})
	r.End()
	f.Add(r.Token())
	f.Add("")
	f.Add(strings.Repeat("0", 44))
	f.Add(r.Token()[:43] + "\n")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseToken(s)
		if err != nil {
			if !errors.Is(err, ErrToken) {
				t.Error(err)
			}
			return
		}
		if r.Token() != s {
			t.Errorf("%q was parsed, but is written as %q", s, r.Token())
		}
	})
}

func TestDead(t *testing.T) {
	t.Parallel()
	living := Start(now, now.Add(time.Hour))
	t.Cleanup(living.End)
	ended := Start(now, now.Add(time.Hour))
	ended.End()

	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Run(); err != nil {
		t.Skip("needs the command true of the package coreutils")
	}
	killed := living
	killed.ID, killed.PID = ID{1}, cmd.ProcessState.Pid()

	if living.Ticks == 0 && runtime.GOOS == "linux" {
		t.Error("it is not known when this process started")
	}
	reused := living
	reused.ID, reused.Ticks = ID{2}, living.Ticks+1

	elsewhere := living
	elsewhere.ID, elsewhere.Space = ID{3}, Space{1, 2, 3}

	unknown := living
	unknown.ID, unknown.Space = ID{4}, Space{}

	nowhere := living // as on systems where spaces are not known
	nowhere.Space = Space{}

	expired := living.Expires.Add(time.Second)
	for name, c := range map[string]struct {
		run  Run
		now  time.Time
		dead bool
	}{
		"of this process, going on":                     {living, now, false},
		"of this process, going on beyond its expiry":   {living, expired, false},
		"of this process, in a space that is not known": {nowhere, expired, false},
		"of this process, over":                         {ended, now, true},
		"its process is gone":                           {killed, now, true},
		"its PID belongs to another process":            {reused, now, living.Ticks != 0},
		"on another host":                               {elsewhere, now, false},
		"on another host, expired":                      {elsewhere, expired, true},
		"on a host that is not known":                   {unknown, now, false},
		"on a host that is not known, expired":          {unknown, expired, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := c.run.Dead(c.now); got != c.dead {
				t.Errorf("dead: %v, want %v", got, c.dead)
			}
			elsewhere := c.run.Space != self().space || !c.run.Space.known()
			if alive, known := c.run.Alive(); known && alive == c.dead || known && elsewhere && c.run.ID != living.ID {
				t.Errorf("alive: %v, known: %v", alive, known)
			}
		})
	}
}

// Who waits for a run must know for what.
func TestHolder(t *testing.T) {
	t.Parallel()
	here := Start(now, now.Add(time.Hour))
	t.Cleanup(here.End)
	here.Space, here.PID = self().space, 4711
	elsewhere, unknown := here, here
	elsewhere.Space, unknown.Space = Space{1, 2, 3}, Space{}
	const other = "process 4711 of another machine, boot or container"
	for want, r := range map[string]Run{"process 4711 of this machine": here, other: elsewhere} {
		if !here.Space.known() {
			want = other
		}
		if got := r.Holder(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := unknown.Holder(); got != other {
		t.Errorf("got %q", got)
	}
}

func TestStart_expires(t *testing.T) {
	t.Parallel()
	with, without := Start(now, now.Add(time.Minute)), Start(now, time.Time{})
	defer with.End()
	defer without.End()
	if want := now.Add(time.Minute + grace).Truncate(time.Second); !with.Expires.Equal(want) {
		t.Errorf("expires %v, want %v", with.Expires, want)
	}
	if !without.Expires.After(now.Add(24 * time.Hour)) {
		t.Errorf("a run without deadline expires %v", without.Expires)
	}
	if with.ID == without.ID {
		t.Error("two runs have one ID")
	}
}
