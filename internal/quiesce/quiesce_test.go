package quiesce_test

import (
	"errors"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
)

func TestPolicy(t *testing.T) {
	t.Parallel()
	vss := &hypervisor.VSS{Context: "backup"}
	for _, c := range []struct {
		policy quiesce.Policy
		ok     bool
		wanted bool
	}{
		{quiesce.Policy{}, true, false},
		{quiesce.Policy{Mode: quiesce.Off}, true, false},
		{quiesce.Policy{Mode: quiesce.Preferred}, true, true},
		{quiesce.Policy{Mode: quiesce.Required, Timeout: time.Minute, VSS: vss}, true, true},
		{quiesce.Policy{Mode: "always"}, false, false},
		{quiesce.Policy{Mode: quiesce.Required, Timeout: -time.Second}, false, true},
	} {
		err := c.policy.Check()
		if (err == nil) != c.ok || err != nil && !errors.Is(err, quiesce.ErrPolicy) {
			t.Errorf("%+v: %v", c.policy, err)
		}
		spec := c.policy.Spec()
		if c.policy.Wanted() != c.wanted || (spec != nil) != c.wanted {
			t.Errorf("%+v: wanted %v, %+v", c.policy, c.policy.Wanted(), spec)
		}
		if spec != nil && (spec.Timeout != c.policy.Timeout || spec.VSS != c.policy.VSS) {
			t.Errorf("%+v became %+v", c.policy, spec)
		}
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		snapshot hypervisor.Snapshot
		clean    bool
		want     quiesce.Consistency
	}{
		{hypervisor.Snapshot{PowerState: hypervisor.PoweredOff}, false, quiesce.Crash},
		{hypervisor.Snapshot{PowerState: hypervisor.PoweredOff}, true, quiesce.Application},
		{hypervisor.Snapshot{PowerState: hypervisor.PoweredOn}, true, quiesce.Crash}, // somebody started it meanwhile
		{hypervisor.Snapshot{Memory: true, PowerState: hypervisor.PoweredOn}, false, quiesce.Memory},
		{hypervisor.Snapshot{Quiesced: true}, false, quiesce.FileSystem},
		{hypervisor.Snapshot{Quiesced: true, Application: true}, false, quiesce.Application},
		{hypervisor.Snapshot{Application: true}, false, quiesce.Crash},
	} {
		if got := quiesce.Of(c.snapshot, c.clean); got != c.want {
			t.Errorf("%+v, clean %v: %s, want %s", c.snapshot, c.clean, got, c.want)
		}
	}
}
