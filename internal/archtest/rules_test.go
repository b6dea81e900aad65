package archtest

import (
	"go/ast"
	"go/token"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// lowStandard are the packages of the standard library that levels 0 and 1 may
// import: what computes, and nothing that reaches out of the process.
var lowStandard = []string{
	"bytes", "cmp", "container/heap", "encoding/binary", "encoding/csv", "encoding/hex", "encoding/json", "errors", "fmt", "iter", "maps", "math", "math/bits", "path", "reflect",
	"regexp", "slices", "sort", "strconv", "strings", "time", "unicode", "unicode/utf16", "unicode/utf8", "unsafe",
	"hash", "hash/crc32", "hash/crc64", "hash/fnv", "hash/maphash", "crypto/sha256",
	"context", // as what a caller's interface hands on, and as a limit of time
	"sync", "sync/atomic",
}

// modelStandard are those that readers of models need besides.
var modelStandard = []string{"archive/zip", "bufio", "compress/bzip2", "compress/flate", "compress/gzip", "compress/zlib", "embed", "io", "runtime", "runtime/debug"}

// TestLowLevelsImportByList: what is not listed is refused.
func TestLowLevelsImportByList(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		room, _ := roomOf(f.dir)
		if level := levels[room]; f.test || isTestHelp(f.dir) || level != 0 && level != 1 || room == "examples/fleet" || room == "python" {
			continue
		}
		for _, imp := range f.ast.Imports {
			p := strings.Trim(imp.Path.Value, `"`)
			standard := !strings.Contains(strings.SplitN(p, "/", 2)[0], ".")
			switch {
			case !standard: // TestImportsPointDown judges it
			case slices.Contains(lowStandard, p):
			case room == "sklearn" && slices.Contains(modelStandard, p):
			case p == "io" && room != "sklearn" && levels[room] == 1, p == "io" && room == "":
			case p == "os" && f.path == "sklearn/internal/kernel/cpu.go": // FLEETSCORE_CPU, read once: which of equal kernels run
			case p == "crypto/rand" && room == "": // identifiers
			case p == "time/tzdata" && room == "internal/schedule": // the zones themselves, for machines that have none
			default:
				t.Errorf("%s imports %s, which is not in the list of what levels 0 and 1 may import", f.path, p)
			}
			if imp.Name != nil && (imp.Name.Name == "." || p == "time") {
				t.Errorf("%s imports %s as %q: decision rooms use it by its own name, so that what they use of it can be seen", f.path, p, imp.Name.Name)
			}
		}
	}
}

// clocks are the functions of package time that read a clock or wait.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}

// TestDecisionsWaitForNothing refuses clocks and timers, also as values, and
// goroutines, also through a group's Go, in decision rooms.
func TestDecisionsWaitForNothing(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		room, _ := roomOf(f.dir)
		if f.test || levels[room] != 1 {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s starts a goroutine: decisions don't", f.fset.Position(g.Pos()))
			}
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			at := f.fset.Position(s.Pos())
			if id, ok := s.X.(*ast.Ident); ok && id.Name == "time" && slices.Contains(clocks, s.Sel.Name) {
				t.Errorf("%s uses time.%s: decisions take now and wait for nothing", at, s.Sel.Name)
			}
			if s.Sel.Name == "Go" {
				t.Errorf("%s calls Go: decisions start no goroutines", at)
			}
			return true
		})
	}
}

// engines are the modules that one room alone may import, so that the rest of the
// code can't tell which engine there is.
var engines = map[string]string{
	"github.com/nats-io/":                     "internal/hub",
	"modernc.org/sqlite":                      "internal/ledger",
	"github.com/jackc/pgx":                    "internal/ledger",
	"github.com/pressly/goose":                "internal/ledger",
	"database/sql":                            "internal/ledger",
	"github.com/parquet-go/":                  "internal/table",
	"github.com/aws/":                         "internal/store",
	"github.com/Azure/":                       "internal/store",
	"google.golang.org/api":                   "internal/store",
	"github.com/danielgtaylor/huma":           "internal/api",
	"github.com/spf13/":                       "internal/cli",
	"github.com/goccy/go-yaml":                "internal/config",
	"github.com/mochi-mqtt/":                  "internal/gateway",
	"github.com/twmb/franz-go":                "internal/gateway",
	"k8s.io/":                                 "internal/pool",
	"github.com/moby/":                        "internal/pool",
	"github.com/google/go-containerregistry/": "internal/images",
	"github.com/distribution/distribution/":   "internal/images",
}

// blind are rooms that must not see another, whatever their levels.
var blind = map[string][]string{
	"internal/node":      {"internal/ledger", "internal/hub", "internal/scheduler", "internal/broker", "internal/logs", "internal/gateway", "internal/aggregator"},
	"internal/broker":    {"internal/hub", "internal/store", "internal/table"},
	"internal/logs":      {"internal/hub", "internal/table"},
	"internal/scheduler": {"internal/hub"},
	"internal/client":    {"internal/ledger", "internal/hub"},
}

// TestEnginesStayInTheirRoom keeps each engine behind one room, and nodes away from
// what only the server may see.
func TestEnginesStayInTheirRoom(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		room, _ := roomOf(f.dir)
		if f.test || isTestHelp(f.dir) {
			continue
		}
		for _, imp := range f.ast.Imports {
			p := strings.Trim(imp.Path.Value, `"`)
			for prefix, home := range engines {
				if strings.HasPrefix(p, prefix) && room != home {
					t.Errorf("%s imports %s: only %s may know that engine", f.path, p, home)
				}
			}
			for _, hidden := range blind[room] {
				if p == module+"/"+hidden || strings.HasPrefix(p, module+"/"+hidden+"/") {
					t.Errorf("%s imports %s, which %s must not see", f.path, p, room)
				}
			}
		}
	}
}

// TestRoomNames refuses names that say nothing about what a room is for.
func TestRoomNames(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		switch name := path.Base(f.dir); name {
		case "util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib", "pkg", "models", "types", "core", "internals":
			t.Errorf("%s lies in a folder named %s, which doesn't say what it is for", f.path, name)
		}
	}
}

// timed are rooms that decide by the time: they are handed a clock, so that a
// server acts by the trusted time and a test can set it.
var timed = []string{"internal/scheduler", "internal/broker", "internal/logs", "internal/pool", "internal/node", "internal/scorer",
	"internal/ledger", "internal/fleet", "internal/catalog", "internal/table", "internal/hub", "internal/gateway", "internal/aggregator",
	"internal/api", "internal/portal", "internal/access", "internal/obs"}

// measuring are the files of these rooms that read the system's clock, and why.
var measuring = map[string]string{
	"internal/ledger/leader.go":       "how long a server waits for the lease",
	"internal/catalog/catalog.go":     "by how much the machine's clock was moved",
	"internal/hub/log.go":             "how long reads and writes take",
	"internal/hub/natshub/connect.go": "how long a connection is lost",
	"internal/gateway/body.go":        "how fast a body comes, and deadlines of connections",
	"internal/gateway/mqtt/mqtt.go":   "deadlines of connections, and how often the log is written",
	"internal/access/body.go":         "how fast a body comes",
	"internal/access/tls.go":          "certificates hold for other machines' clocks",
	"internal/api/blobs.go":           "deadlines of connections",
	"internal/obs/health.go":          "how old a problem is",
}

// TestTimeComesFromAClock refuses reading the system's clock in rooms that are handed
// one. They may name time.Now as what they use if they get none.
func TestTimeComesFromAClock(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		if room, _ := roomOf(f.dir); f.test || isTestHelp(f.dir) || !slices.Contains(timed, room) || measuring[f.path] != "" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			s, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if id, ok := s.X.(*ast.Ident); ok && id.Name == "time" && slices.Contains([]string{"Now", "Since", "Until"}, s.Sel.Name) {
				t.Errorf("%s calls time.%s: use the room's clock (Deps.Now)", f.fset.Position(s.Pos()), s.Sel.Name)
			}
			return true
		})
	}
}

// areas are how the names of folders in the store begin, and the names of folders in them.
var areas = []string{"data/", "models/", "predictions/", "logs/", "_coverage", "_late", "_state", "_pack", "_delta_log"}

// TestLayoutIsKnownOnce refuses paths of the store that are spelled by hand outside the
// rooms that know the layout.
func TestLayoutIsKnownOnce(t *testing.T) {
	t.Parallel()
	known := []string{"internal/catalog", "internal/table", "internal/fleet/generation.go",
		"internal/files/files.go",     // people's own Delta tables, which needn't lie in the store
		"internal/simtest/mutants.go", // faults are built in without the help of the code that they test
		"internal/simtest/record.go"}  // checks are written without the help of the code that they check
	found := 0
	for _, f := range files(t) {
		if f.test || !strings.HasPrefix(f.dir, "internal/") || f.dir == "internal/archtest" {
			continue
		}
		room, _ := roomOf(f.dir)
		ast.Inspect(f.ast, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text := strings.Trim(lit.Value, "`\"")
			if strings.ContainsAny(text, " ,") || !slices.ContainsFunc(areas, func(a string) bool { return strings.HasPrefix(strings.TrimLeft(text, "/"), a) }) {
				return true
			}
			if found++; !slices.Contains(known, room) && !slices.Contains(known, f.path) {
				t.Errorf("%s: %s: package catalog knows where things lie in the store", f.fset.Position(lit.Pos()), lit.Value)
			}
			return true
		})
	}
	if found < 8 {
		t.Errorf("only %d paths were found: this test no longer sees them", found)
	}
}

// TestDemoBuildsWithoutClouds: make demo doesn't compile what the clouds' stores need,
// nearly half of all packages.
func TestDemoBuildsWithoutClouds(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", "noclouds", "./cmd/fleetscore")
	cmd.Dir = testkit.Root(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		for _, cloud := range []string{"github.com/aws/", "github.com/Azure/", "google.golang.org/api", "cloud.google.com/", "google.golang.org/grpc"} {
			if strings.HasPrefix(line, cloud) {
				t.Errorf("it needs %s", line)
			}
		}
	}
}
