package vsphere

import (
	"slices"
	"testing"

	"github.com/vmware/govmomi/vim25/types"
)

func TestGuestAddresses(t *testing.T) {
	t.Parallel()
	guest := &types.GuestInfo{IpAddress: "192.0.2.7", Net: []types.GuestNicInfo{
		{IpAddress: []string{"fe80::1", "2001:db8::7", "192.0.2.7"}},
		{IpAddress: []string{"127.0.0.1", "169.254.1.1", "", "garbage", "198.51.100.7"}},
	}}
	if got, want := guestAddresses(guest), []string{"192.0.2.7", "2001:db8::7", "198.51.100.7"}; !slices.Equal(got, want) {
		t.Errorf("addresses %q, want %q", got, want)
	}
	if got := guestAddresses(&types.GuestInfo{}); got != nil {
		t.Errorf("addresses %q of a guest without any", got)
	}
}
