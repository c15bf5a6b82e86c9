package run_test

import (
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

func TestParseSnapshot(t *testing.T) {
	t.Parallel()
	this := run.Start(time.Now(), time.Time{})
	this.End()
	started := time.Now()
	for _, prefix := range []string{run.BackupSnapshot, run.VerifySnapshot} {
		name, description, err := this.LabelSnapshot(prefix, started)
		if err != nil {
			t.Fatal(err)
		}
		r, label, ours := run.ParseSnapshot(name, description)
		if !ours || r.Token() != this.Token() || label.PID != this.PID || label.Host != this.Host ||
			!label.Started.Equal(started.UTC().Truncate(time.Second)) {
			t.Errorf("%s %s: got %+v, %+v, %v", name, description, r, label, ours)
		}
		for _, other := range [][2]string{
			{"nightly", description}, {prefix, description}, {name + "0", description},
			{"tf-other-" + strings.TrimPrefix(name, prefix), description},
			{name, ""}, {name, "null"}, {name, "{}"},
			{name, strings.Replace(description, "terraform-provider-vm", "someone", 1)},
			{name, strings.Replace(description, this.Token(), "x", 1)},
		} {
			if _, _, ours := run.ParseSnapshot(other[0], other[1]); ours {
				t.Errorf("%q with %q passes for one of ours", other[0], other[1])
			}
		}
	}
}

func FuzzParseSnapshot(f *testing.F) {
	this := run.Start(time.Now(), time.Time{})
	this.End()
	name, description, err := this.LabelSnapshot(run.VerifySnapshot, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(name, description)
	f.Add(name, "null")
	f.Add("", `{"owner":"terraform-provider-vm"}`)
	f.Fuzz(func(t *testing.T, name, description string) {
		if r, label, ours := run.ParseSnapshot(name, description); ours && (!strings.HasSuffix(name, r.ID.String()) || label.Run != r.Token()) {
			t.Errorf("%q with %q is taken for one of %s", name, description, r.Token())
		}
	})
}
