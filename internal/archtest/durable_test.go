package archtest

import (
	"go/ast"
	"slices"
	"testing"
)

// ownWriters are files that may write to the disk past package durable, and why.
var ownWriters = map[string]string{
	"internal/hub/disk.go":                 "a lock file without content, and the segments, which partition.go syncs before it answers",
	"internal/ledger/sqlite.go":            "a lock file without content",
	"internal/oneshot/results.go":          "writes into devices and pipes, which must not be replaced",
	"internal/scorer/alone/limit_linux.go": "a setting of the kernel",
	"internal/sandbox/child_linux.go":      "a setting of the kernel",
	"internal/mount/measure.go":            "files that are there for as long as a measurement runs",
	"internal/node/cache/work.go":          "a lock file without content",
	"internal/node/command/run.go":         "what a command reads, for as long as it runs",
	"internal/fleet/folders/folders.go":    "what a command reads, for as long as it runs",
	"internal/sandbox/mounts_linux.go":     "a file system in memory, and files that are there for as long as a probe runs",
	"internal/images/upload.go":            "pieces of uploads, which a start removes; the store makes the whole durable",
	"internal/scorer/python/venv.go":       "a lock file without content",
	"internal/logs/spool.go":               "appends to logs, and syncs each piece and the folder",
	"internal/logs/nodes.go":               "appends to nodes' own logs, whose last lines a power cut may cost",
}

// TestFilesAreDurable: a file that is written without temporary, sync and rename
// can be empty after a power cut, and a start be refused for it.
func TestFilesAreDurable(t *testing.T) {
	t.Parallel()
	refused := []string{"WriteFile", "Create", "CreateTemp", "OpenFile", "Rename", "Link", "Symlink", "Truncate"}
	used := map[string]bool{}
	for _, f := range files(t) {
		if f.test || isTestHelp(f.dir) || f.dir == "internal/durable" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || !slices.Contains(refused, sel.Sel.Name) {
				return true
			}
			if id, ok := sel.X.(*ast.Ident); !ok || id.Name != "os" && id.Name != "ioutil" {
				return true
			}
			if ownWriters[f.path] != "" && sel.Sel.Name == "OpenFile" {
				used[f.path] = true
			} else {
				t.Errorf("%s uses os.%s: write files with package durable, so that a power cut leaves the old content or the new", f.fset.Position(sel.Pos()), sel.Sel.Name)
			}
			return true
		})
	}
	for path := range ownWriters {
		if !used[path] {
			t.Errorf("%s is allowed to write past package durable and doesn't: take it out of the list", path)
		}
	}
}
