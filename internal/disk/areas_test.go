package disk_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// TestAreas compares areas with the plain way to say the same: a flag for every unit.
func TestAreas(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		granularity := int64(1 + r.IntN(9))
		capacity := int64(1 + r.IntN(3000))
		areas, other := disk.NewAreas(capacity, granularity), disk.NewAreas(capacity, granularity)
		flags := make([]bool, (capacity-1)/granularity+1)
		for n := range r.IntN(12) {
			e := disk.Extent{Offset: r.Int64N(capacity+20) - 10, Length: r.Int64N(capacity)}
			if n%3 == 0 {
				e.Length = r.Int64N(granularity + 2)
			}
			if n%2 == 0 {
				areas.Add(e)
			} else {
				other.Add(e)
			}
			for at := max(e.Offset, 0); at < min(e.End(), capacity); at++ {
				flags[at/granularity] = true
			}
		}
		areas.AddAll(other)
		var want, got []disk.Extent
		var size int64
		for unit, set := range flags {
			start := int64(unit) * granularity
			end := min(start+granularity, capacity)
			if areas.Contains(start) != set || areas.Contains(end-1) != set {
				t.Fatalf("unit %d: want %v", unit, set)
			}
			if !set {
				continue
			}
			size += end - start
			if n := len(want); n > 0 && want[n-1].End() == start {
				want[n-1].Length += end - start
			} else {
				want = append(want, disk.Extent{Offset: start, Length: end - start})
			}
		}
		areas.Each(func(e disk.Extent) bool {
			got = append(got, e)
			return true
		})
		if !slices.Equal(got, want) || areas.Bytes() != size {
			t.Fatalf("capacity %d, granularity %d: got %v, %d bytes; want %v, %d", capacity, granularity, got, areas.Bytes(), want, size)
		}
		e := disk.Extent{Offset: r.Int64N(capacity+20) - 10, Length: r.Int64N(capacity + 20)}
		size = 0
		for at := max(e.Offset, 0); at < min(e.End(), capacity); at++ {
			if areas.Contains(at) {
				size++
			}
		}
		if got := areas.BytesWithin(e); got != size {
			t.Fatalf("%v has %d bytes within %v, got %d", want, size, e, got)
		}
	}
}

func TestAreas_outside(t *testing.T) {
	t.Parallel()
	areas := disk.NewAreas(10, 4)
	areas.Add(disk.Extent{Offset: 10, Length: 5})
	areas.Add(disk.Extent{Offset: -5, Length: 5})
	if areas.Bytes() != 0 || areas.Contains(-1) || areas.Contains(10) {
		t.Errorf("%d bytes", areas.Bytes())
	}
	areas.Add(disk.Extent{Offset: 0, Length: 10})
	calls := 0
	areas.Each(func(disk.Extent) bool {
		calls++
		return false
	})
	if areas.Bytes() != 10 || calls != 1 {
		t.Errorf("%d bytes, %d calls", areas.Bytes(), calls)
	}
}

func TestAreas_within(t *testing.T) {
	t.Parallel()
	a := disk.NewAreas(1000, 100)
	a.Add(disk.Extent{Offset: 100, Length: 150})
	a.Add(disk.Extent{Offset: 950, Length: 1})
	for _, test := range []struct {
		in   disk.Extent
		want []disk.Extent
	}{
		{disk.Extent{Offset: 0, Length: 1000}, []disk.Extent{{Offset: 100, Length: 200}, {Offset: 900, Length: 100}}},
		{disk.Extent{Offset: 150, Length: 20}, []disk.Extent{{Offset: 150, Length: 20}}},
		{disk.Extent{Offset: 299, Length: 602}, []disk.Extent{{Offset: 299, Length: 1}, {Offset: 900, Length: 1}}},
		{disk.Extent{Offset: 0, Length: 100}, nil},
		{disk.Extent{Offset: 990, Length: 100}, []disk.Extent{{Offset: 990, Length: 10}}},
		{disk.Extent{Offset: 150, Length: 0}, nil},
	} {
		var got []disk.Extent
		a.Within(test.in, func(e disk.Extent) bool { got = append(got, e); return true })
		if !slices.Equal(got, test.want) {
			t.Errorf("%v: got %v, want %v", test.in, got, test.want)
		}
	}
	calls := 0
	a.Within(disk.Extent{Length: 1000}, func(disk.Extent) bool { calls++; return false })
	if calls != 1 {
		t.Errorf("%d calls after the first said stop", calls)
	}
}

func TestAreas_Others(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	areas := disk.NewAreas(1000, 10)
	areas.Add(disk.Extent{Offset: 200, Length: 300})
	chosen := make([]int, 100)
	for range 2000 {
		others := areas.Others(7, r.Int64N)
		if others.Bytes() != 70 || others.Capacity() != 1000 || others.Granularity() != 10 {
			t.Fatalf("%d bytes of %d in units of %d", others.Bytes(), others.Capacity(), others.Granularity())
		}
		for unit := range chosen {
			if others.Contains(int64(unit) * 10) {
				chosen[unit]++
			}
		}
	}
	for unit, n := range chosen { // 200 of each are to be expected
		if in := areas.Contains(int64(unit) * 10); in && n > 0 || !in && (n < 120 || n > 280) {
			t.Errorf("unit %d was chosen %d times", unit, n)
		}
	}
	if all := areas.Others(1000, r.Int64N); all.Bytes() != 700 {
		t.Errorf("%d bytes of 700 that there are", all.Bytes())
	}
}
