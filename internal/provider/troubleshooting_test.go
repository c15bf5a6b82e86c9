package provider

import (
	"go/ast"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

const troubleshooting = "../../templates/guides/troubleshooting.md"

// operations make the operations that the sources name, from the literals in their arguments.
var operations = map[string]func(literals []string) []operation{
	"snapshotOperation":    func(s []string) []operation { return []operation{snapshotOperation(s[0], "")} },
	"setOperation":         func(s []string) []operation { return []operation{setOperation(s[0], "")} },
	"consolidateOperation": func(s []string) []operation { return []operation{consolidateOperation(s[0])} },
	"pruneOperation":       func(s []string) []operation { return []operation{pruneOperation(s[0])} },
	"backupOperation":      func(s []string) []operation { return []operation{backupOperation(s[0], "")} },
	"restoreOperation":     func(s []string) []operation { return []operation{restoreOperation(s[0], s[1], "")} },
	"inPlaceOperation":     func(s []string) []operation { return []operation{inPlaceOperation(s[0], s[1], "")} },
	"restoreTestOperation": func(s []string) []operation { return []operation{restoreTestOperation(s[0], s[1])} },
	"operation":            func(s []string) []operation { return []operation{inPlaceOperation(s[0], s[1], "")} },
	"revertOperation": func(s []string) []operation {
		several := types.ListValueMust(types.StringType, []attr.Value{types.StringValue("x")})
		both := []operation{revertOperation(s[0], "", &restoreModel{}), revertOperation(s[0], "", &restoreModel{SnapshotIDs: several})}
		if s[0] == "Plan" {
			both[0].noun, both[1].noun = "Revert", "Revert"
		}
		return both
	},
}

// summaries are the summaries of all errors and warnings, as the sources of this package have them.
func summaries(t *testing.T) (errors, warnings map[string]bool) {
	t.Helper()
	errors, warnings = map[string]bool{}, map[string]bool{}
	for _, s := range diagnosticsInSource(t) {
		if s.warning {
			warnings[s.summary] = true
		} else {
			errors[s.summary] = true
		}
	}
	return errors, warnings
}

// literalsOf are the strings that stand in a list as they are.
func literalsOf(list []ast.Expr) []string {
	var literals []string
	for _, e := range list {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			e = pair.Value
		}
		if s, ok := literal(e); ok {
			literals = append(literals, s)
		}
	}
	return literals
}

// section is the part of a page below a heading of the second level.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, text, ok := strings.Cut(page, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("the page has no section %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// TestTroubleshootingSummaries compares the tables of the troubleshooting page with the sources.
func TestTroubleshootingSummaries(t *testing.T) {
	t.Parallel()
	page := readFile(t, troubleshooting)
	errors, warnings := summaries(t)
	if len(errors) < 30 || len(warnings) < 15 {
		t.Errorf("found only %d errors and %d warnings", len(errors), len(warnings))
	}
	row := regexp.MustCompile("(?m)^\\| `([^`]+)`")
	for heading, want := range map[string]map[string]bool{"Errors by summary": errors, "Warnings": warnings} {
		for _, match := range row.FindAllStringSubmatch(section(t, page, heading), -1) {
			if !want[match[1]] {
				t.Errorf("%s: %q has a row for %q, which the provider doesn't say", troubleshooting, heading, match[1])
			}
			delete(want, match[1])
		}
		for _, summary := range slices.Sorted(maps.Keys(want)) {
			t.Errorf("%s: %q has no row for %q: add one, and run make generate", troubleshooting, heading, summary)
		}
	}
}

// TestTroubleshootingCauses compares the headings of the troubleshooting page with the errors in
// testdata/diagnostics.txt: each has one heading, of constant words with … between them.
func TestTroubleshootingCauses(t *testing.T) {
	t.Parallel()
	causes := section(t, readFile(t, troubleshooting), "Causes")
	headings := map[string]*regexp.Regexp{}
	for _, match := range regexp.MustCompile(`(?m)^#### (.+)$`).FindAllStringSubmatch(causes, -1) {
		parts := strings.Split(match[1], "…")
		for i, part := range parts {
			parts[i] = regexp.QuoteMeta(part)
		}
		headings[match[1]] = regexp.MustCompile(`(?is)` + strings.Join(parts, ".+"))
	}
	hit := map[string]bool{}
	for _, entry := range strings.Split(readFile(t, "testdata/diagnostics.txt"), "---\n") {
		_, text, ok := strings.Cut(entry, "\n")
		if !ok {
			continue
		}
		text, _, _ = strings.Cut(text, "\n\n")
		best := ""
		for heading, pattern := range headings {
			if pattern.MatchString(text) && len(heading) > len(best) { // the one that says most
				best = heading
			}
		}
		if hit[best] = true; best == "" {
			t.Errorf("%s: no heading below Causes for %q: add one, and run make generate", troubleshooting, text)
		}
	}
	for heading := range headings {
		if !hit[heading] {
			t.Errorf("%s: the heading %q is no error in testdata/diagnostics.txt", troubleshooting, heading)
		}
	}
}

// TestDocumentationLinks follows the links between the pages of docs/. The first page leads to every guide.
func TestDocumentationLinks(t *testing.T) {
	t.Parallel()
	const docs = "../../docs"
	link, heading := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]+))?\)`), regexp.MustCompile(`(?m)^#+ (.+)$`)
	notInAnchors := regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	anchors := func(page string) (all []string) {
		for _, match := range heading.FindAllStringSubmatch(page, -1) {
			all = append(all, strings.ReplaceAll(notInAnchors.ReplaceAllString(strings.ToLower(match[1]), ""), " ", "-"))
		}
		for _, match := range regexp.MustCompile(`<a id="([^"]+)">`).FindAllStringSubmatch(page, -1) {
			all = append(all, match[1])
		}
		return all
	}
	files, err := filepath.Glob(filepath.Join(docs, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	below, err := filepath.Glob(filepath.Join(docs, "*", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	links, guides := 0, filepath.Join(docs, "guides")
	front := readFile(t, filepath.Join(docs, "index.md"))
	for _, file := range append(files, below...) {
		if name := filepath.Base(file); filepath.Dir(file) == guides && !strings.Contains(front, "](guides/"+name+")") {
			t.Errorf("the first page has no link to the guide %s", name)
		}
		for _, match := range link.FindAllStringSubmatch(readFile(t, file), -1) {
			links++
			target := file
			if match[1] != "" {
				target = filepath.Join(filepath.Dir(file), match[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s has a link to %s: %v", file, match[0], err)
				continue
			}
			if match[2] != "" && !slices.Contains(anchors(readFile(t, target)), match[2]) {
				t.Errorf("%s has a link to %s, which has no such heading", file, match[0])
			}
		}
	}
	if links < 20 {
		t.Errorf("found only %d links", links)
	}
}
