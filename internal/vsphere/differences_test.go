package vsphere

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var updateGuide = flag.Bool("update-guide", false, "write the tables of the guide anew")

// TestDifferences_guide keeps the guide's tables those of the code: what it says may differ, and nothing else.
func TestDifferences_guide(t *testing.T) {
	t.Parallel()
	name := filepath.Join("..", "..", "templates", "guides", "what-is-restored.md")
	data, err := os.ReadFile(name)
	must(t, err)
	guide := string(data)
	for _, when := range []occasion{always, asked, copied} {
		begin, end := "<!-- may differ: "+string(when)+" -->\n\n", "\n<!-- end -->\n"
		before, rest, ok := strings.Cut(guide, begin)
		table, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("%s has no table between %q and %q", name, begin, end)
		}
		want := differencesTable(when)
		if table != want && !*updateGuide {
			t.Errorf("%s doesn't say what may differ %q; go test ./internal/vsphere -run Differences -update-guide writes it",
				name, when)
		}
		guide = before + begin + want + end + after
	}
	if *updateGuide {
		must(t, os.WriteFile(name, []byte(guide), 0o644)) //nolint:gosec // a page for everybody
	}
}

// TestDifferences_once keeps properties from being excused for two reasons.
func TestDifferences_once(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, d := range differences {
		for _, p := range d.properties {
			for q := p; q != ""; q = parentPath(q) {
				if seen[q] != "" {
					t.Errorf("%s: %q and %q", p, seen[q], d.why)
				}
			}
			seen[p] = d.why
		}
	}
}
