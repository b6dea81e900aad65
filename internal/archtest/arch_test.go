package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

const module = "github.com/fleetscore/fleetscore"

// support may be imported from level 3 up, and durable from level 2; tests only is
// for _test.go files.
const (
	support   = -1
	testsOnly = -2
)

// levels says where each room stands. A room may import rooms of lower levels;
// rooms of one level are strangers. A folder below a room belongs to it.
var levels = map[string]int{
	"":                   0, // the words
	"internal/query":     1,
	"internal/window":    1,
	"internal/schedule":  1,
	"internal/dispatch":  1,
	"internal/autoscale": 1,
	"internal/simulator": 1,
	"internal/compare":   1,
	"sklearn":            1,

	"internal/store":  2,
	"internal/ledger": 2,
	"internal/hub":    2,

	"internal/table":  3,
	"internal/fleet":  3,
	"internal/scorer": 3,
	"internal/images": 3,

	"internal/catalog": 4,
	"internal/files":   4,
	"internal/sensor":  4,

	"internal/access":     5,
	"internal/config":     5, // judges what the services will be asked to do
	"internal/oneshot":    5,
	"internal/gateway":    5,
	"internal/aggregator": 5,
	"internal/scheduler":  5,
	"internal/broker":     5,
	"internal/logs":       5,
	"internal/pool":       5,
	"internal/node":       5,
	"internal/verify":     5,

	"internal/api":        6,
	"internal/client":     6,
	"internal/portal":     6,
	"internal/fileserver": 6,
	"internal/backup":     6,

	"internal/server": 7,

	"internal/cli":   8,
	"cmd/fleetscore": 9,
	"examples/fleet": 0, // embedded files only
	"python":         0, // embedded files only

	"internal/durable":   support,
	"internal/mount":     support,
	"internal/program":   support,
	"internal/sandbox":   support,
	"internal/clock":     support,
	"internal/lifecycle": support,
	"internal/obs":       support,

	"internal/testkit":  testsOnly,
	"internal/archtest": testsOnly,
	"internal/simtest":  testsOnly,
	"bench":             testsOnly,
	"bench/queue":       testsOnly,
	"bench/scale":       testsOnly,
	"bench/year":        testsOnly,
}

// lowAllowed are the modules that levels 0 and 1 may use besides the standard
// library: parsers.
var lowAllowed = []string{"golang.org/x/", "github.com/ulikunitz/xz", "github.com/pierrec/lz4/v4"}

type goFile struct {
	path string // relative to the root
	dir  string
	test bool
	ast  *ast.File
	fset *token.FileSet
}

func files(t *testing.T) []goFile {
	t.Helper()
	root := testkit.Root(t)
	var out []goFile
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != root && (strings.HasPrefix(n, ".") || n == "testdata" || n == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		dir := ""
		if i := strings.LastIndexByte(rel, '/'); i >= 0 {
			dir = rel[:i]
		}
		out = append(out, goFile{rel, dir, strings.HasSuffix(p, "_test.go"), f, fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// roomOf returns the room a folder belongs to.
func roomOf(dir string) (string, bool) {
	for d := dir; ; {
		if _, ok := levels[d]; ok && (d != "" || dir == "") {
			return d, true
		}
		i := strings.LastIndexByte(d, '/')
		if i < 0 {
			return "", false
		}
		d = d[:i]
	}
}

// isTestHelp reports whether a folder serves tests only: testkit, archtest, and
// conformance suites such as internal/store/storetest.
func isTestHelp(dir string) bool {
	room, _ := roomOf(dir)
	return levels[room] == testsOnly || strings.HasSuffix(dir, "test")
}

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		room, ok := roomOf(f.dir)
		if !ok {
			t.Errorf("%s: folder %q belongs to no room; give it a level in archtest and ARCHITECTURE.md", f.path, f.dir)
			continue
		}
		if f.test || isTestHelp(f.dir) {
			continue
		}
		for _, imp := range f.ast.Imports {
			checkImport(t, f, room, strings.Trim(imp.Path.Value, `"`))
		}
	}
}

func checkImport(t *testing.T, f goFile, room, path string) {
	t.Helper()
	level := levels[room]
	if rest, ok := strings.CutPrefix(path, module); ok {
		dir := strings.TrimPrefix(rest, "/")
		target, ok := roomOf(dir)
		switch {
		case !ok:
			t.Errorf("%s imports %s, which is no room", f.path, path)
		case isTestHelp(dir):
			t.Errorf("%s imports %s, which is for tests only", f.path, path)
		case target == room:
		case levels[target] == support && (level >= 3 || level == 2 && target == "internal/durable" || level == support):
		case levels[target] == support:
			t.Errorf("%s (level %d) imports support room %s", f.path, level, target)
		case level == support && target != "":
			t.Errorf("%s (support) imports room %s", f.path, target)
		case level != support && levels[target] >= level && !(target == "" && level == 0):
			t.Errorf("%s (%s, level %d) imports %s of level %d: imports point to lower levels only", f.path, room, level, target, levels[target])
		}
		return
	}
	if level > 1 || level == support || !strings.Contains(strings.SplitN(path, "/", 2)[0], ".") {
		return
	}
	if level == 0 || !slices.ContainsFunc(lowAllowed, func(a string) bool { return strings.HasPrefix(path, a) }) {
		t.Errorf("%s (level %d) imports %s: levels 0 and 1 stay on the standard library, a parser or golang.org/x", f.path, level, path)
	}
}

// The budgets of the house style.
const (
	maxFileLines     = 600
	maxFunctionLines = 80
	maxPackageFiles  = 15
	maxDepth         = 3 // folders below internal
)

func TestBudgets(t *testing.T) {
	t.Parallel()
	root := testkit.Root(t)
	perPackage := map[string]int{}
	for _, f := range files(t) {
		if f.test {
			continue
		}
		perPackage[f.dir]++
		src, err := os.ReadFile(filepath.Join(root, f.path))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(src), "\n"); n > maxFileLines {
			t.Errorf("%s has %d lines, more than %d", f.path, n, maxFileLines)
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			if n := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1; n > maxFunctionLines {
				t.Errorf("%s: function %s has %d lines, more than %d", f.path, fn.Name.Name, n, maxFunctionLines)
			}
		}
		if rest, ok := strings.CutPrefix(f.dir, "internal/"); ok && strings.Count(rest, "/")+1 > maxDepth {
			t.Errorf("%s lies deeper than %d folders below internal", f.path, maxDepth)
		}
	}
	for dir, n := range perPackage {
		if n > maxPackageFiles {
			t.Errorf("package %s has %d files, more than %d", dir, n, maxPackageFiles)
		}
	}
}

// TestComments keeps a comment on every package and every export. A method whose
// contract stands in an interface of its own room needs none.
func TestComments(t *testing.T) {
	t.Parallel()
	documented, seen := map[string]bool{}, map[string]bool{}
	contracts := interfaceMethods(files(t))
	for _, f := range files(t) {
		if f.test {
			continue
		}
		seen[f.dir] = true
		if f.ast.Doc != nil {
			documented[f.dir] = true
		}
		for _, d := range f.ast.Decls {
			switch x := d.(type) {
			case *ast.FuncDecl:
				if x.Name.IsExported() && x.Doc == nil && exportedReceiver(x) && !(x.Recv != nil && contracts[methodOf{room(f.dir), x.Name.Name}]) {
					t.Errorf("%s: %s has no comment", f.fset.Position(x.Pos()), x.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range x.Specs {
					if ts, ok := s.(*ast.TypeSpec); ok && ts.Name.IsExported() && x.Doc == nil && ts.Doc == nil && ts.Comment == nil {
						t.Errorf("%s: type %s has no comment", f.fset.Position(ts.Pos()), ts.Name.Name)
					}
				}
			}
		}
	}
	for dir := range seen {
		if !documented[dir] {
			t.Errorf("package %s has no comment", dir)
		}
	}
}

type methodOf struct{ room, name string }

func room(dir string) string {
	r, _ := roomOf(dir)
	return r
}

// interfaceMethods finds the methods that each room's own interfaces describe.
func interfaceMethods(all []goFile) map[methodOf]bool {
	out := map[methodOf]bool{}
	for _, f := range all {
		if f.test || f.dir == "" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if i, ok := n.(*ast.InterfaceType); ok {
				for _, m := range i.Methods.List {
					for _, name := range m.Names {
						out[methodOf{room(f.dir), name.Name}] = true
					}
				}
			}
			return true
		})
	}
	return out
}

func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return true
	}
	exported := false
	ast.Inspect(f.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && !exported {
			exported = id.IsExported()
			return false
		}
		return true
	})
	return exported
}
