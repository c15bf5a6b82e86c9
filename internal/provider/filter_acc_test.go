package provider

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestBackupFilters has two backups of one VM and one of another, and finds each by what it differs in.
func TestBackupFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	backup := func(name, more string) string {
		return fmt.Sprintf("resource \"vm_backup\" %q {\n  vm = \"web01\"\n%s\n}\n", name, more)
	}
	quiesced := backup("first", "  quiesce = { mode = \"required\" }\n  tags = { release = \"1\", stage = \"prod\" }")
	s.write(w.provider() + quiesced)
	s.must("apply", "-auto-approve")
	between := time.Now().Format(time.RFC3339Nano)
	s.write(w.provider() + quiesced + backup("second", "  tags = { release = \"2\", stage = \"prod\" }"))
	s.must("apply", "-auto-approve")
	first, second := s.id("vm_backup.first"), s.id("vm_backup.second")
	filters := map[string]struct {
		filter string
		want   []string // newest first
	}{
		"all":         {"", []string{second, first}},
		"before":      {"before = " + quote(between), []string{first}},
		"after":       {"after = " + quote(between), []string{second}},
		"neither":     {"after = " + quote(between) + "\n  before = " + quote(between), nil},
		"one_tag":     {`tags = { release = "2" }`, []string{second}},
		"shared_tag":  {`tags = { stage = "prod" }`, []string{second, first}},
		"both_tags":   {`tags = { release = "1", stage = "prod" }`, []string{first}},
		"wrong_tags":  {`tags = { release = "3", stage = "prod" }`, nil},
		"filesystem":  {`min_consistency = "filesystem"`, []string{first}},
		"crash":       {`min_consistency = "crash"`, []string{second, first}},
		"application": {`min_consistency = "application"`, nil},
		"vm_and_tag":  {"vm = \"web01\"\n  tags = { release = \"1\" }", []string{first}},
	}
	var config strings.Builder
	config.WriteString(w.provider())
	for name, f := range filters {
		fmt.Fprintf(&config, "data \"vm_backups\" %q {\n  %s\n}\n", name, f.filter)
		fmt.Fprintf(&config, "output %q {\n  value = join(\",\", data.vm_backups.%s.backups[*].id)\n}\n", name, name)
		if len(f.want) > 0 {
			fmt.Fprintf(&config, "data \"vm_backup\" %q {\n  %s\n}\n", name, f.filter)
			fmt.Fprintf(&config, "output \"%s_newest\" {\n  value = data.vm_backup.%s.id\n}\n", name, name)
		}
	}
	s.write(config.String())
	s.must("apply", "-auto-approve")
	for name, f := range filters {
		if got := s.must("output", "-raw", name); got != strings.Join(f.want, ",") {
			t.Errorf("%s: got %s, want %v; the first is %s", name, got, f.want, first)
		}
		if len(f.want) == 0 {
			continue
		}
		if got := s.must("output", "-raw", name+"_newest"); got != f.want[0] {
			t.Errorf("%s: the newest is %s, want %s", name, got, f.want[0])
		}
	}
	s.write(w.provider() + "data \"vm_backup\" \"none\" {\n  min_consistency = \"application\"\n}\n")
	s.refused([]string{"No backup matches", "holds 2 backups"}, "plan")
}

func quote(text string) string { return fmt.Sprintf("%q", text) }
