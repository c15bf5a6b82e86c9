package internal_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pinned is an action that can't be moved, as a tag can: a commit, or what is here.
var pinned = regexp.MustCompile(`^(\./.*|[\w./-]+@[0-9a-f]{40})$`)

// TestWorkflows: what runs with the key that signs releases is what was looked at.
func TestWorkflows(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../.github/workflows/*.yml")
	if err != nil || len(files) < 2 {
		t.Fatalf("found %v (%v)", files, err)
	}
	uses := regexp.MustCompile(`(?m)^\s*(?:- )?uses: (\S+)`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range uses.FindAllStringSubmatch(string(text), -1) {
			if !pinned.MatchString(match[1]) {
				t.Errorf("%s uses %s, which is not pinned to a commit", file, match[1])
			}
		}
		if !strings.Contains(string(text), "\npermissions:\n  contents: read\n") {
			t.Errorf("%s doesn't begin with permissions to read alone", file)
		}
	}
}

// TestReleaseNotes runs the script that takes them from the changelog.
func TestReleaseNotes(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash (Debian package bash)")
	}
	changelog := filepath.Join(t.TempDir(), "CHANGELOG.md")
	text := "# Changelog\n\n## Unreleased\n\n- new\n\n## 1.2.0 (2026-03-01)\n\n### Fixed\n\n- this\n\n## 1.1.0\n\n- old\n\n## 1.0.0\n"
	if err := os.WriteFile(changelog, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{
		"v1.2.0": "### Fixed\n\n- this\n", "v1.1.0": "- old\n", "v1.0.0": "", "v1.2": "", "v9.9.9": "",
	} {
		out, err := exec.CommandContext(t.Context(), "bash", "../tools/release-notes", version, changelog).Output()
		if string(out) != want || (err != nil) != (want == "") {
			t.Errorf("%s: got %q (%v), want %q", version, out, err, want)
		}
	}
}
