package sklearn

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/sklearn/internal/tree"
)

var update = flag.Bool("update", false, "rewrite the table of docs/sklearn.md")

const (
	supportDoc = "../docs/sklearn.md"
	tableStart = "<!-- the table is made from sklearn/support.go: go test ./sklearn -run TestSupportTable -update -->\n"
	tableEnd   = "<!-- end of the table -->\n"
)

func supportTable() string {
	var b strings.Builder
	b.WriteString("| class | from | methods | limits |\n|---|---|---|---|\n")
	for _, s := range Supported() {
		var methods []string
		for _, m := range s.Methods {
			methods = append(methods, m.String())
		}
		list := strings.Join(methods, ", ")
		if s.Methods == nil {
			list = "the methods of the estimator in it"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", s.Class, s.Since, list, s.Limits)
	}
	return b.String()
}

// TestSupportTable: the documentation's table lists exactly what the package reads.
func TestSupportTable(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(supportDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), tableStart)
	table, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatal("the table's marks are missing")
	}
	want := supportTable()
	if *update {
		if err := os.WriteFile(supportDoc, []byte(before+tableStart+want+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != want {
		t.Error("the table isn't what support.go says; rewrite it with go test ./sklearn -run TestSupportTable -update")
	}
}

// TestSupported: models of all classes have exactly the methods of the table.
func TestSupported(t *testing.T) {
	t.Parallel()
	listed := map[string]Support{}
	for _, s := range Supported() {
		if _, twice := listed[s.Class]; twice {
			t.Errorf("%s is listed twice", s.Class)
		}
		listed[s.Class] = s
	}
	seen := map[string][]Method{}
	files := fixtureFiles(t)
	for name, data := range files {
		if filepath.Ext(name) == ".json" {
			continue
		}
		m, err := Load(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, step := range m.Info().Steps {
			step.Class = strings.TrimSuffix(step.Class, tree.Several)
			if _, ok := listed[step.Class]; !ok {
				t.Errorf("%s is read, but isn't listed", step.Class)
			}
			if _, ok := seen[step.Class]; !ok {
				seen[step.Class] = nil
			}
		}
		class := strings.TrimSuffix(m.last.Class(), tree.Several)
		seen[class] = append(seen[class], m.Methods()...)
	}
	for class, methods := range seen {
		for _, m := range methods {
			if !slices.Contains(listed[class].Methods, m) {
				t.Errorf("%s has %s, which isn't listed", class, m)
			}
		}
		for _, m := range listed[class].Methods {
			if len(methods) > 0 && !slices.Contains(methods, m) {
				t.Errorf("%s should have %s, but no model has it", class, m)
			}
		}
	}
	if len(seen) < 70 {
		t.Errorf("there are models of %d classes instead of %d", len(seen), len(listed))
	}
}
