package lab

import (
	"strings"
	"testing"
)

func FuzzParseChangeID(f *testing.F) {
	for _, s := range []string{
		"*", "", "/", "/1", "52 2d/x", "52 2d/-1", "52 2d/1/2", newTrackingID() + "/1", newTrackingID() + "/9223372036854775807",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tracking, epoch, ok := parseChangeID(s)
		if ok && (tracking == "" || epoch < 0 || !strings.HasPrefix(s, tracking+"/")) {
			t.Errorf("%q gives %q, %d", s, tracking, epoch)
		}
	})
}

func FuzzFirstElement(f *testing.F) {
	for _, s := range []string{"", "<a>", "<a><id>1</id><id>2</id></a>", "<id><b/>x</id>", "<id>", "<id>&nope;</id>", "<x:id xmlns:x='y'>1</x:id>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := firstElement([]byte(s), "id"); got != "" && !strings.Contains(s, "id") {
			t.Errorf("%q gives %q", s, got)
		}
	})
}
