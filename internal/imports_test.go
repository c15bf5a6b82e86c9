package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/terraform-vm/terraform-provider-vm"

// mayImport says which packages of ours a package may import outside of its tests, by path below the
// module. Arrows point one way; DESIGN.md draws them. A package that isn't here may import nothing
// of ours, so that a new package has to be entered.
var mayImport = map[string][]string{
	".": {"internal/provider"},
	"internal/provider": {
		"internal/snapshot", "internal/backup", "internal/restore", "internal/quiesce",
		"internal/hypervisor", "internal/repository", "internal/disk", "internal/secret", "internal/progress",
		"internal/vsphere", // the composition root wires implementations together
	},
	"internal/snapshot":                  {"internal/quiesce", "internal/run", "internal/progress", "internal/hypervisor"},
	"internal/backup":                    {"internal/quiesce", "internal/run", "internal/progress", "internal/hypervisor", "internal/repository", "internal/disk"},
	"internal/backup/backuptest":         {"internal/backup", "internal/hypervisor", "internal/repository"},
	"internal/progress/progresstest":     {"internal/progress"},
	"internal/restore":                   {"internal/run", "internal/progress", "internal/hypervisor", "internal/repository", "internal/disk"},
	"internal/quiesce":                   {"internal/hypervisor"},
	"internal/hypervisor":                {"internal/disk"},
	"internal/hypervisor/hypervisortest": {"internal/hypervisor", "internal/disk"},
	"internal/repository":                {"internal/disk", "internal/secret"},
	"internal/vsphere":                   {"internal/hypervisor", "internal/disk", "internal/secret", "internal/vmdk", "internal/progress"},
	"internal/vmdk":                      {"internal/disk"},
	"internal/lab":                       {"internal/lab/diskstore", "internal/disk", "internal/vmdk"},
	"internal/lab/diskstore":             {"internal/disk"},
	"internal/lab/labtest":               {"internal/lab"},
	"internal/cmd/schemajson":            {"internal/provider"},
	"internal/cmd/profiled":              {"internal/profile", "internal/provider"},
	"cmd/vm-lab":                         {"internal/lab"},
}

// vendors says which packages may know a vendor's module.
var vendors = map[string][]string{
	"github.com/hashicorp/terraform-plugin-": {".", "internal/provider", "internal/cmd/schemajson"},
	"github.com/vmware/govmomi":              {"internal/vsphere", "internal/lab"},
	"github.com/kopia/kopia":                 {"internal/repository"},
	"github.com/Azure/azure-sdk-for-go":      {"internal/repository"},
	"github.com/minio/minio-go":              {"internal/repository", "internal/repository/storagetest"},
	"github.com/studio-b12/gowebdav":         {"internal/repository"},
	"github.com/pkg/sftp":                    {"internal/repository"},
	"gopkg.in/kothar/go-backblaze.v0":        {"internal/repository"},
}

// vendorTests are packages whose tests alone may know a vendor's module: to talk to a lab as another
// client would, and to put things into its inventory that no client can; to compare with a schema.
var vendorTests = map[string][]string{
	"github.com/vmware/govmomi":              {"cmd/vm-lab", "internal/lab/labtest", "internal/provider"},
	"github.com/hashicorp/terraform-plugin-": {"cmd/vm-demo"},
	"github.com/minio/minio-go":              {"internal/provider"},
}

// testOnly are packages that only tests may import, apart from those named here.
var testOnly = map[string][]string{
	"internal/lab":                       {"cmd/vm-lab", "internal/lab/labtest"},
	"internal/lab/labtest":               nil,
	"internal/hypervisor/hypervisortest": nil,
	"internal/backup/backuptest":         nil,
	"internal/progress/progresstest":     nil,
	"internal/repository/storagetest":    nil,
}

// TestImports reads the sources rather than asking the go command, whose answer a test cache may serve
// from before a forbidden import was written.
func TestImports(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name != "." && strings.HasPrefix(name, ".") || slices.Contains([]string{"bench", "bin", "build", "tools"}, rel) {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(file, ".go") {
			files++
			checkFile(t, file, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Errorf("saw only %d files", files)
	}
}

func checkFile(t *testing.T, file, rel string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	pkg, test := path.Dir(rel), strings.HasSuffix(rel, "_test.go")
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Error(err)
			return
		}
		for prefix, knowers := range vendors {
			known := slices.Contains(knowers, pkg) || test && slices.Contains(vendorTests[prefix], pkg)
			if strings.HasPrefix(imported, prefix) && !known {
				t.Errorf("%s imports %s, which only %v may know", rel, imported, knowers)
			}
		}
		ours, ok := strings.CutPrefix(imported, module+"/")
		if !ok || test || ours == pkg {
			continue
		}
		if !slices.Contains(mayImport[pkg], ours) {
			t.Errorf("%s imports %s: not an arrow of the design", rel, ours)
		}
		if allowed, restricted := testOnly[ours]; restricted && !slices.Contains(allowed, pkg) {
			t.Errorf("%s imports %s, which is for tests", rel, ours)
		}
	}
}
