package vsphere

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// The checksums of "abc" (FIPS 180-2, appendices A.1 and B.1).
const (
	abcSHA1   = "a9993e364706816aba3e25717850c26c9cd0d89d"
	abcSHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
)

// manifestCases are what a server may say about a stream of "abc".
var manifestCases = map[string]struct {
	entry             *types.HttpNfcLeaseManifestEntry
	withoutSHA256     bool // it wasn't asked for
	confirmed, refute bool
}{
	"no entry":     {},
	"nothing":      {entry: &types.HttpNfcLeaseManifestEntry{}},
	"size alone":   {entry: &types.HttpNfcLeaseManifestEntry{Size: 3}},
	"SHA-256":      {entry: &types.HttpNfcLeaseManifestEntry{ChecksumType: "sha256", Checksum: strings.ToUpper(abcSHA256), Size: 3}, confirmed: true},
	"without size": {entry: &types.HttpNfcLeaseManifestEntry{ChecksumType: "SHA256", Checksum: abcSHA256}, confirmed: true},
	"other SHA-256": {entry: &types.HttpNfcLeaseManifestEntry{
		ChecksumType: "sha256", Checksum: abcSHA256[:63] + "0", Sha1: abcSHA1, Size: 3}, refute: true},
	"other size":      {entry: &types.HttpNfcLeaseManifestEntry{ChecksumType: "sha256", Checksum: abcSHA256, Size: 4}, refute: true},
	"other size only": {entry: &types.HttpNfcLeaseManifestEntry{Size: 4}, refute: true},
	"SHA-1 instead":   {entry: &types.HttpNfcLeaseManifestEntry{Sha1: abcSHA1, Size: 3}, confirmed: true},
	"typed SHA-1":     {entry: &types.HttpNfcLeaseManifestEntry{ChecksumType: "sha1", Checksum: abcSHA1, Size: 3}, confirmed: true},
	"other SHA-1":     {entry: &types.HttpNfcLeaseManifestEntry{Sha1: "00", Size: 3}, refute: true},
	"typed other":     {entry: &types.HttpNfcLeaseManifestEntry{ChecksumType: "sha1", Checksum: "00", Size: 3}, refute: true},
	"unknown type":    {entry: &types.HttpNfcLeaseManifestEntry{ChecksumType: "md5", Checksum: "00", Size: 3}},
	"empty SHA-256":   {entry: &types.HttpNfcLeaseManifestEntry{ChecksumType: "sha256", Size: 3}},
	"old server":      {entry: &types.HttpNfcLeaseManifestEntry{Sha1: abcSHA1, Size: 3}, withoutSHA256: true, confirmed: true},
	"not asked for": {
		entry:         &types.HttpNfcLeaseManifestEntry{ChecksumType: "sha256", Checksum: abcSHA256, Size: 3},
		withoutSHA256: true,
	},
}

func TestChecksums(t *testing.T) {
	t.Parallel()
	for name, tt := range manifestCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChecksummer(!tt.withoutSHA256)
			c.add([]byte("a"))
			c.add([]byte("bc"))
			confirmed, err := c.sums().compare(tt.entry)
			if confirmed != tt.confirmed || errors.Is(err, errChecksum) != tt.refute || (err != nil) != tt.refute {
				t.Errorf("got %t and %v", confirmed, err)
			}
			// What was uploaded must be confirmed.
			err = new(restore).compare(&importedDisk{sent: c.sums()}, tt.entry)
			if errors.Is(err, errChecksum) == tt.confirmed || (err == nil) != tt.confirmed {
				t.Errorf("import: got %v", err)
			}
		})
	}
}

// TestImport_capacity has the server's entry be about a disk of another, or an unknown, capacity.
func TestImport_capacity(t *testing.T) {
	t.Parallel()
	c := newChecksummer(true)
	c.add([]byte("abc"))
	for _, tt := range []struct {
		capacity int64
		guessed  bool
		ok       bool
	}{{1 << 20, false, true}, {1 << 20, true, true}, {1 << 21, false, false}, {0, false, true}, {0, true, false}} {
		d := &importedDisk{sent: c.sums(), capacity: 1 << 20, item: leaseItem{guessed: tt.guessed}}
		err := new(restore).compare(d, &types.HttpNfcLeaseManifestEntry{Sha1: abcSHA1, Capacity: tt.capacity})
		if (err == nil) != tt.ok {
			t.Errorf("%+v: got %v", tt, err)
		}
	}
}

// A manifestEditor stands between a client and its server, and changes what that says about streams.
type manifestEditor struct {
	next soap.RoundTripper
	edit func([]types.HttpNfcLeaseManifestEntry) []types.HttpNfcLeaseManifestEntry
}

func (m *manifestEditor) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	err := m.next.RoundTrip(ctx, req, res)
	if body, ok := res.(*methods.HttpNfcLeaseGetManifestBody); ok && err == nil {
		body.Res.Returnval = m.edit(body.Res.Returnval)
	}
	return err
}

// TestExport_unconfirmed has a server that doesn't say what it sent.
func TestExport_unconfirmed(t *testing.T) {
	t.Parallel()
	isFirst := func(e types.HttpNfcLeaseManifestEntry) bool { return strings.HasSuffix(e.Key, ":0") }
	type entries = []types.HttpNfcLeaseManifestEntry
	for name, tt := range map[string]struct {
		edit  func(all entries, asked int) entries
		fails bool
		warns bool
	}{
		"as it is": {edit: func(all entries, _ int) entries { return all }},
		"nothing":  {edit: func(entries, int) entries { return nil }, warns: true},
		"a bit late": {edit: func(all entries, asked int) entries {
			if asked == 1 {
				return slices.DeleteFunc(all, isFirst)
			}
			return all
		}},
		"not of this disk": {edit: func(all entries, _ int) entries { return slices.DeleteFunc(all, isFirst) }, fails: true},
		"no checksum": {edit: func(all entries, _ int) entries {
			for i := range all {
				all[i].Sha1, all[i].Checksum = "", ""
			}
			return all
		}, warns: true},
		"another checksum": {edit: func(all entries, _ int) entries {
			for i := range all {
				all[i].Checksum = abcSHA256
			}
			return all
		}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 1<<20, 2<<20)
			point, err := b.client.OpenPointInTime(t.Context(), b.vm.ID, hypervisor.PointInTimeSpec{Name: "tf-backup-1"})
			if err != nil {
				t.Fatal(err)
			}
			before := point.Config().Warnings
			read := func(n int) error {
				src, err := point.OpenDisk(t.Context(), b.vm.Disks[n].Key, hypervisor.DiskRequest{})
				if err != nil {
					t.Fatal(err)
				}
				return src.Extents(t.Context(), func(int64, []byte) error { return nil })
			}
			if err := read(1); err != nil {
				t.Fatal(err)
			}
			asked := 0
			b.client.vim.RoundTripper = &manifestEditor{next: b.client.vim.RoundTripper, edit: func(all entries) entries {
				asked++
				return tt.edit(all, asked)
			}}
			if err := read(0); errors.Is(err, errChecksum) != tt.fails || (err != nil) != tt.fails {
				t.Errorf("got %v", err)
			}
			added := point.Config().Warnings[len(before):]
			if (len(added) == 1 && strings.Contains(added[0], b.vm.Disks[0].Label)) != tt.warns || len(added) > 1 {
				t.Errorf("got the warnings %q", added)
			}
			if err := point.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLease_agreeOnChecksum has a server that lets one choose, one that refuses SHA-1, and one that knows no choice.
func TestLease_agreeOnChecksum(t *testing.T) {
	t.Parallel()
	for refused, want := range []bool{false, true, false} {
		b := newBench(t, 1<<20)
		p, ok := b.open(hypervisor.PointInTimeSpec{}).(*pointInTime)
		if !ok {
			t.Fatal("no point in time")
		}
		if refused > 0 {
			b.lab.Fault(lab.Fault{Method: "HttpNfcLeaseSetManifestChecksumType", Fault: "NotSupported", Count: refused})
		}
		before := b.lab.Calls()["HttpNfcLeaseSetManifestChecksumType"]
		if _, _, err := p.openLease(t.Context()); err != nil {
			t.Fatal(err)
		}
		if asked := b.lab.Calls()["HttpNfcLeaseSetManifestChecksumType"] - before; p.sha256 != want || asked != min(refused+1, 2) {
			t.Errorf("refused %d times: SHA-256 %t after %d calls", refused, p.sha256, asked)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
