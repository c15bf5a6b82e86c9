package vsphere

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

type loggerKey struct{}

// contextLog counts messages as a handler does that takes the logger from the context: without one in
// there, a message is lost.
type contextLog struct {
	slog.Handler
	mu   sync.Mutex
	kept map[string]int
	lost []string
}

func (h *contextLog) Enabled(context.Context, slog.Level) bool { return true }

func (h *contextLog) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Value(loggerKey{}) == nil {
		h.lost = append(h.lost, r.Message)
	} else {
		h.kept[r.Message]++
	}
	return nil
}

func TestLog_context(t *testing.T) {
	t.Parallel()
	ctx := context.WithValue(t.Context(), loggerKey{}, true)
	l := labtest.Start(t, lab.Options{})
	if err := l.AddVM(t.Context(), lab.VMSpec{Name: "web01", Disks: []string{labtest.RawDisk(t, 1<<20, 1)}}); err != nil {
		t.Fatal(err)
	}
	h := &contextLog{Handler: slog.DiscardHandler, kept: make(map[string]int)}
	c, err := Connect(ctx, labConfig(l), slog.New(h))
	if err != nil {
		t.Fatal(err)
	}
	sessionKiller(t, l)()
	l.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "503", Count: 1, After: 1})
	l.Fault(lab.Fault{Method: "CreateFilter", Fault: "503", Count: 1})
	vm, err := c.FindVM(ctx, "web01")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.PowerOff(ctx, vm.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"the vSphere session has ended, logging in again", "repeating a read", "watching again with a new property collector",
	} {
		if h.kept[want] == 0 {
			t.Errorf("nothing was logged of %q", want)
		}
	}
	if len(h.lost) > 0 {
		t.Errorf("logged without the context: %q", h.lost)
	}
}

// TestLog_everywhere reads the sources, since most messages are about what seldom happens.
func TestLog_everywhere(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if ok && slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, method.Sel.Name) && len(call.Args) > 0 {
				t.Errorf("%s: %s without a context", set.Position(call.Pos()), method.Sel.Name)
			}
			return true
		})
	}
}
