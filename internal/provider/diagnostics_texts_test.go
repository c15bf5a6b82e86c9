package provider

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestDiagnosticTexts compares every error and warning that the sources can make with testdata/diagnostic_texts.txt.
func TestDiagnosticTexts(t *testing.T) {
	t.Parallel()
	var rows []string
	for _, s := range diagnosticsInSource(t) {
		if problem := styleOf(s); problem != "" {
			t.Errorf("%s: %q: %s", s.at, s.summary, problem)
		}
		rows = append(rows, s.row())
	}
	slices.Sort(rows)
	compareGolden(t, "testdata/diagnostic_texts.txt", strings.Join(slices.Compact(rows), "\n"))
}

// compareGolden compares a text with a file, or writes it.
func compareGolden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want := readFile(t, file)
	if got == want {
		return
	}
	is, was := strings.Split(got, "\n"), strings.Split(want, "\n")
	for _, line := range is {
		if !slices.Contains(was, line) {
			t.Errorf("%s lacks: %s", file, line)
		}
	}
	for _, line := range was {
		if !slices.Contains(is, line) {
			t.Errorf("%s has what nobody says: %s", file, line)
		}
	}
	t.Errorf("%s is not what the sources say; look at what differs, and run go test ./internal/provider -run TestDiagnostic -update", file)
}

// small are the words that a title doesn't begin with a capital letter.
var small = []string{"a", "an", "and", "by", "for", "in", "not", "of", "on", "or", "the", "to", "with"}

// styleOf says what is wrong with a diagnostic's text. A summary is a title: constant, without a value, a cause
// or a full stop. A detail is sentences.
func styleOf(s sourced) string {
	words := strings.Fields(s.summary)
	if len(words) < 2 || len(words) > 9 {
		return "a summary has two to nine words"
	}
	if strings.ContainsAny(s.summary, ".:;%\"'`0123456789") {
		return "a summary has no punctuation, no value and no cause"
	}
	for i, word := range words {
		first, _ := utf8.DecodeRuneInString(word)
		if unicode.IsLower(first) && (i == 0 || !slices.Contains(small, word)) {
			return fmt.Sprintf("%q begins with a small letter", word)
		}
	}
	for _, word := range []string{"Failed", "Error", "Cannot", "Could"} {
		if slices.Contains(words, word) {
			return fmt.Sprintf("it says %q; an operation that fails is \"Unable to\" do something", word)
		}
	}
	first, _ := utf8.DecodeRuneInString(s.detail)
	switch {
	case s.detail == "":
		return "it has no detail"
	case unicode.IsLower(first):
		return "the detail doesn't begin with a capital letter"
	case !strings.HasSuffix(s.detail, ".") && !strings.HasSuffix(s.detail, "…"):
		return "the detail doesn't end with a full stop"
	case strings.Contains(strings.ToLower(s.detail), "failed to"):
		return "the detail says that something \"failed to\" be done"
	}
	return ""
}

// TestStyleOf: the rules catch what they are for.
func TestStyleOf(t *testing.T) {
	t.Parallel()
	if problem := styleOf(sourced{summary: "Unable to Take Snapshot", detail: "It is …."}); problem != "" {
		t.Errorf("a good one: %s", problem)
	}
	for _, bad := range []sourced{
		{summary: "Wrong", detail: "It is."}, {summary: "Unable to take Snapshot", detail: "It is."},
		{summary: "unable to Take Snapshot", detail: "It is."}, {summary: "Error Taking Snapshot", detail: "It is."},
		{summary: "Unable to Take Snapshot: Busy", detail: "It is."}, {summary: "Unable to Take Snapshot.", detail: "It is."},
		{summary: "Unable to Take 7 Snapshots", detail: "It is."}, {summary: "Unable to Take Snapshot"},
		{summary: "Unable to Take Snapshot", detail: "it is."}, {summary: "Unable to Take Snapshot", detail: "It is"},
		{summary: "Unable to Take Snapshot", detail: "It failed to do so."},
	} {
		if styleOf(bad) == "" {
			t.Errorf("nothing is wrong with %+v", bad)
		}
	}
}
