package provider

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// update rewrites the tables in testdata:
//
//	go test ./internal/provider -run TestDiagnostic -update
var update = flag.Bool("update", false, "rewrite the tables of diagnostics in testdata")

// A sourced is a diagnostic as the sources make it.
type sourced struct {
	warning   bool
	attribute bool   // it is, or may be, about one argument
	summary   string // constant
	detail    string // what is put in at run time is "…"
	at        string // file and line
}

// row is a diagnostic's place in the table.
func (s sourced) row() string {
	severity := "Error"
	if s.warning {
		severity = "Warning"
	}
	if s.attribute {
		severity += " about an argument"
	}
	return fmt.Sprintf("%s: %s\n  %s\n", severity, s.summary, strings.ReplaceAll(s.detail, "\n", "\n  "))
}

// A sink is a function that makes a diagnostic: which of its arguments are the summary and the detail.
type sink struct {
	warning, attribute bool
	summary, detail    int
}

// sinks are all functions that make diagnostics, by name.
var sinks = map[string]sink{
	"AddError":                      {summary: 0, detail: 1},
	"AddAttributeError":             {summary: 1, detail: 2, attribute: true},
	"AddWarning":                    {summary: 0, detail: 1, warning: true},
	"AddAttributeWarning":           {summary: 1, detail: 2, warning: true, attribute: true},
	"NewErrorDiagnostic":            {summary: 0, detail: 1},
	"NewAttributeErrorDiagnostic":   {summary: 1, detail: 2, attribute: true},
	"NewWarningDiagnostic":          {summary: 0, detail: 1, warning: true},
	"NewAttributeWarningDiagnostic": {summary: 1, detail: 2, warning: true, attribute: true},
	"warnings":                      {summary: 1, detail: 2, warning: true},
	"warn":                          {summary: 2, detail: 3, warning: true, attribute: true},
}

// forwarders are the functions of diagnostics.go that pass on the summary of their caller, who is in the table.
var forwarders = []string{"fail", "warn", "warnings"}

// A source is the sources of this package.
type source struct {
	set       *token.FileSet
	constants map[string]ast.Expr
	functions map[string]*ast.FuncDecl // by name; of methods of the same name, any
	calls     map[string][]*ast.CallExpr
}

// readSource parses all files but tests.
func readSource(t *testing.T) (*source, map[string]*ast.File) {
	t.Helper()
	s := &source{set: token.NewFileSet(), functions: map[string]*ast.FuncDecl{}, calls: map[string][]*ast.CallExpr{}, constants: map[string]ast.Expr{}}
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(s.set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = file
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				s.functions[n.Name.Name] = n
			case *ast.GenDecl:
				s.noteConstants(n)
			case *ast.CallExpr:
				s.calls[calledName(n)] = append(s.calls[calledName(n)], n)
			}
			return true
		})
	}
	return s, files
}

// diagnosticsInSource are all diagnostics that the package can give, but for those of the framework's own
// validators.
func diagnosticsInSource(t *testing.T) []sourced {
	t.Helper()
	s, files := readSource(t)
	var all []sourced
	for name, file := range files {
		for _, declaration := range file.Decls {
			function, _ := declaration.(*ast.FuncDecl)
			forwards := function != nil && name == "diagnostics.go" && slices.Contains(forwarders, function.Name.Name)
			ast.Inspect(declaration, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					if !forwards {
						all = append(all, s.diagnosticsOf(t, function, n)...)
					}
				case *ast.CompositeLit:
					all = append(all, operationsOf(s.set, n)...)
				}
				return true
			})
		}
	}
	return all
}

// noteConstants notes the constants of a declaration.
func (s *source) noteConstants(d *ast.GenDecl) {
	if d.Tok != token.CONST {
		return
	}
	for _, spec := range d.Specs {
		if v, ok := spec.(*ast.ValueSpec); ok && len(v.Names) == len(v.Values) {
			for i, name := range v.Names {
				s.constants[name.Name] = v.Values[i]
			}
		}
	}
}

// calledName is the name of what a call calls.
func calledName(call *ast.CallExpr) string {
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		return fun.Name
	case *ast.SelectorExpr:
		return fun.Sel.Name
	}
	return ""
}

// diagnosticsOf are the diagnostics that a call makes.
func (s *source) diagnosticsOf(t *testing.T, function *ast.FuncDecl, call *ast.CallExpr) []sourced {
	t.Helper()
	name := calledName(call)
	at := s.set.Position(call.Pos()).String()
	if to, ok := sinks[name]; ok && len(call.Args) > to.detail {
		summary, constant := literal(call.Args[to.summary])
		if !constant {
			t.Errorf("%s: the summary of a diagnostic must be written where it is made, for it to be in the table", at)
			return nil
		}
		var all []sourced
		for _, detail := range s.texts(function, call.Args[to.detail], 0) {
			all = append(all, sourced{to.warning, to.attribute, summary, detail, at})
		}
		return all
	}
	literals := literalsOf(call.Args)
	named, ok := operations[name]
	if !ok {
		if strings.HasSuffix(name, "Operation") && len(literals) > 0 {
			t.Errorf("%s: %s is not in operations", at, name)
		}
		return nil
	}
	if len(literals) == 0 {
		return nil
	}
	var all []sourced
	for _, o := range named(literals) {
		all = append(all, failing(o.verb, o.noun, at))
	}
	return all
}

// failing is what an operation that fails gives: any of the errors in testdata/diagnostics.txt.
func failing(verb, noun, at string) sourced {
	return sourced{attribute: true, summary: "Unable to " + verb + " " + noun, detail: "…", at: at}
}

// operationsOf is the operation that is written out as a literal.
func operationsOf(set *token.FileSet, lit *ast.CompositeLit) []sourced {
	if name, ok := lit.Type.(*ast.Ident); ok && name.Name == "operation" {
		if literals := literalsOf(lit.Elts); len(literals) == 2 {
			return []sourced{failing(literals[0], literals[1], set.Position(lit.Pos()).String())}
		}
	}
	return nil
}

// literal is the value of a constant string.
func literal(e ast.Expr) (string, bool) {
	if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
		s, err := strconv.Unquote(lit.Value)
		return s, err == nil
	}
	return "", false
}

var verbs = regexp.MustCompile(`%[-+# 0]*[0-9]*(?:\.[0-9]+)?[a-zA-Z]`)

// inserted is what of a text comes at run time.
const inserted = "…"

// texts are what an expression may be, as far as the sources say: it follows variables to what they are set to,
// parameters to what callers give, and functions to what they return.
func (s *source) texts(in *ast.FuncDecl, e ast.Expr, depth int) []string {
	if depth > 6 {
		return []string{inserted}
	}
	depth++
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, ok := literal(e); ok {
			return []string{text}
		}
	case *ast.ParenExpr:
		return s.texts(in, e.X, depth)
	case *ast.BinaryExpr:
		var all []string
		for _, x := range s.texts(in, e.X, depth) {
			for _, y := range s.texts(in, e.Y, depth) {
				all = append(all, strings.ReplaceAll(x+y, inserted+inserted, inserted))
			}
		}
		return all
	case *ast.Ident:
		if value, ok := s.constants[e.Name]; ok {
			return s.texts(nil, value, depth)
		}
		if in != nil {
			return s.variable(in, e, depth)
		}
	case *ast.CallExpr:
		switch name := calledName(e); {
		case name == "Sprintf" && len(e.Args) > 0:
			var all []string
			for _, format := range s.texts(in, e.Args[0], depth) {
				all = append(all, strings.ReplaceAll(verbs.ReplaceAllString(format, inserted), "%%", "%"))
			}
			return all
		case name == "sentence" && len(e.Args) == 1:
			return s.texts(in, e.Args[0], depth)
		case s.functions[name] != nil:
			return s.returned(s.functions[name], depth)
		}
	}
	return []string{inserted}
}

// returned are what a function with one result may return.
func (s *source) returned(f *ast.FuncDecl, depth int) []string {
	if f.Body == nil || f.Type.Results == nil || f.Type.Results.NumFields() != 1 {
		return []string{inserted}
	}
	if result, ok := f.Type.Results.List[0].Type.(*ast.Ident); !ok || result.Name != "string" {
		return []string{inserted}
	}
	var all []string
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) == 1 {
			all = append(all, s.texts(f, r.Results[0], depth)...)
		}
		_, inner := n.(*ast.FuncLit)
		return !inner
	})
	return orInserted(all)
}

// variable are what a variable of a function may be set to, or a parameter of it or of a function within it.
func (s *source) variable(in *ast.FuncDecl, name *ast.Ident, depth int) []string {
	var all []string
	added := ""
	ast.Inspect(in, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				if l, ok := left.(*ast.Ident); ok && l.Name == name.Name && len(n.Lhs) == len(n.Rhs) {
					if n.Tok == token.ADD_ASSIGN {
						added = inserted
						continue
					}
					all = append(all, s.texts(in, n.Rhs[i], depth)...)
				}
				if f, ok := right(n, i).(*ast.FuncLit); ok {
					if l, ok := left.(*ast.Ident); ok {
						all = append(all, s.argument(in, l.Name, f.Type, name.Name, depth)...)
					}
				}
			}
		case *ast.FuncDecl:
			all = append(all, s.argument(nil, n.Name.Name, n.Type, name.Name, depth)...)
		}
		return true
	})
	for i := range all {
		all[i] = strings.ReplaceAll(all[i]+added, inserted+inserted, inserted)
	}
	return orInserted(all)
}

// right is what the i-th variable of an assignment is set to, nil if that isn't one expression.
func right(n *ast.AssignStmt, i int) ast.Expr {
	if len(n.Lhs) != len(n.Rhs) {
		return nil
	}
	return n.Rhs[i]
}

// argument are what callers give for a parameter of a function. in is where they are, nil for anywhere.
func (s *source) argument(in *ast.FuncDecl, function string, f *ast.FuncType, parameter string, depth int) []string {
	position := 0
	for _, field := range f.Params.List {
		for _, n := range field.Names {
			if n.Name != parameter {
				position++
				continue
			}
			var all []string
			for _, call := range s.calls[function] {
				within := in == nil || in.Pos() <= call.Pos() && call.End() <= in.End()
				if within && position < len(call.Args) {
					all = append(all, s.texts(in, call.Args[position], depth)...)
				}
			}
			return all
		}
	}
	return nil
}

func orInserted(all []string) []string {
	all = slices.DeleteFunc(all, func(text string) bool { return text == "" })
	if len(all) == 0 {
		return []string{inserted}
	}
	return all
}
