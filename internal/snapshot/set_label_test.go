package snapshot

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

func TestSetLabel(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	r := run.Start(now, now.Add(time.Hour))
	l := newSetLabel(r, now, []hypervisor.VMID{"vm-1", "vm-2"})
	for _, human := range []string{"", "one line", "two\nlines\n", "{}", `{"owner":"somebody"}`, "\n", "größer"} {
		for _, l := range []setLabel{l, l.complete()} {
			text, err := l.describe(human)
			if err != nil || !strings.HasPrefix(text, human) {
				t.Fatalf("%q: %q, %v", human, text, err)
			}
			got, parsed, ok := parseLabel(text)
			if !ok || got != human || !reflect.DeepEqual(parsed, l) {
				t.Errorf("%q became %q, %+v, %t", human, got, parsed, ok)
			}
		}
	}
	if l.abandoned(now) || l.complete().abandoned(now) {
		t.Error("a run that goes on is taken for dead")
	}
	r.End()
	if !l.abandoned(now) || l.complete().abandoned(now) {
		t.Error("a run that is over is not, or a complete set is abandoned")
	}
	other := l
	other.Set = "0000000000000000"
	if other.abandoned(now) {
		t.Error("a label whose parts don't fit is believed")
	}
	for _, text := range []string{"", "mine", "{}", `{"owner":"terraform-provider-vm"}`, `{"owner":"x","set":"y"}`, `{"owner":"terraform-provider-vm","set":1}`} {
		if human, _, ok := parseLabel(text); ok || human != text {
			t.Errorf("%q is taken for a label: %q", text, human)
		}
	}
}

func FuzzParseLabel(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := run.Start(now, now)
	f.Cleanup(r.End)
	l := newSetLabel(r, now, []hypervisor.VMID{"vm-1"})
	for _, human := range []string{"", "text", "two\nlines"} {
		text, err := l.describe(human)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add(text + "\n")
	}
	f.Add("{\"owner\":\"terraform-provider-vm\",\"set\":\"a\",\"run\":\"b\",\"vms\":null}")
	f.Add("\n\n{}")
	f.Fuzz(func(t *testing.T, description string) {
		human, l, ok := parseLabel(description)
		if !ok {
			if human != description {
				t.Errorf("%q became %q", description, human)
			}
			return
		}
		_ = l.abandoned(now)
		text, err := l.describe(human)
		if err != nil {
			return // a time that JSON can't hold
		}
		again, parsed, ok := parseLabel(text)
		if !ok || again != human || parsed.Set != l.Set || parsed.Run != l.Run || len(parsed.VMs) != len(l.VMs) {
			t.Errorf("%q: %q, %+v became %q, %+v", description, human, l, again, parsed)
		}
	})
}

// TestMeasure judges clocks: calls and answers by ours, creation by those of several hosts.
func TestMeasure(t *testing.T) {
	t.Parallel()
	at := func(seconds float64) time.Time {
		return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
	}
	type times struct{ called, created, answered float64 }
	for name, c := range map[string]struct {
		taken        []times
		skew, spread float64
		contradict   bool
	}{
		"one":                         {[]times{{0, 1, 2}}, 0, 2, false},
		"together":                    {[]times{{0, 5, 10}, {0, 5.5, 9}}, 0.5, 10, false},
		"all clocks ahead":            {[]times{{0, 3605, 10}, {1, 3607, 9}}, 2, 10, false},
		"one clock ahead":             {[]times{{0, 3605, 10}, {0, 5, 10}}, 10, 10, true},
		"one after the other":         {[]times{{0, 1, 2}, {10, 11, 12}}, 10, 12, false},
		"one after the other, hidden": {[]times{{0, 11, 2}, {10, 11, 12}}, 12, 12, true},
		"whole seconds":               {[]times{{0, 0, 0.4}, {0.3, 1, 0.9}}, 0.9, 0.9, false},
	} {
		var taken []*Taken
		for _, m := range c.taken {
			taken = append(taken, &Taken{
				Snapshot: hypervisor.Snapshot{CreatedAt: at(m.created)}, called: at(m.called), answered: at(m.answered),
			})
		}
		var s Set
		s.measure(taken)
		if s.Skew.Seconds() != c.skew || s.Spread.Seconds() != c.spread || (len(s.Warnings) > 0) != c.contradict {
			t.Errorf("%s: skew %s, spread %s, warnings %q", name, s.Skew, s.Spread, s.Warnings)
		}
	}
}
