package sklearn

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/sklearn/internal/archive"
	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// looked returns, for each class in a file, the attributes that the reader reads.
func looked(t testing.TB, data []byte, found map[string]map[string]bool) {
	t.Helper()
	none := budget.New(context.Background(), budget.Limits{}, len(data), false)
	if archive.Compressed(data) {
		plain, _, err := archive.Decompress(data, &none)
		if err != nil {
			t.Fatal(err)
		}
		data = plain
	}
	g, root, err := pickle.Parse(data, names, budget.New(context.Background(), budget.Limits{}, len(data), false))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Release()
	b := estimator.NewBuilder(g, fileClasses)
	defer b.Release()
	b.Looked = func(class, name string) {
		if found[class] == nil {
			found[class] = map[string]bool{}
		}
		found[class][name] = true
	}
	_, _ = b.Build(root, "") // an error doesn't matter: the attributes were read before
}

// TestAttributes: for every parameter and attribute that a class has in any release
// since 0.19, either the reader of that class reads it, or testdata/inert.txt lists it
// as having no effect after the fit. Each line of that file has a name; the classes
// follow if the readers of other classes read the name. testdata/attributes.py collects
// the names. A name that a new release adds is refused until it is collected, and then
// this test fails until someone decides which of the two it is.
func TestAttributes(t *testing.T) {
	t.Parallel()
	found := map[string]map[string]bool{}
	for name, data := range fixtureFiles(t) {
		if filepath.Ext(name) != ".skops" {
			looked(t, data, found)
		}
	}
	changed, err := filepath.Glob("testdata/changed/*.zip")
	small, err2 := filepath.Glob("testdata/small/*.zip")
	if err != nil || err2 != nil || len(changed) < 4 || len(small) < 2 {
		t.Fatal(changed, small, err, err2)
	}
	for _, data := range archived(t, append(changed, small...)) {
		looked(t, data, found)
	}
	data, err := os.ReadFile("testdata/inert.txt")
	if err != nil {
		t.Fatal(err)
	}
	inert, of := map[string]bool{}, map[string]bool{} // in all classes, and in some, as Class.name
	for line := range strings.Lines(string(data)) {
		name, classes, some := strings.Cut(strings.TrimSpace(line), ": ")
		inert[name] = !some
		for class := range strings.FieldsSeq(classes) {
			of[class+"."+name] = true
		}
	}
	used := map[string]bool{}
	for class, names := range estimator.KnownAttributes() {
		var nobody []string
		for _, name := range names {
			used[name], used[class+"."+name] = true, true
			if !found[class][name] && !inert[name] && !of[class+"."+name] {
				nobody = append(nobody, name)
			}
		}
		if len(nobody) > 0 {
			slices.Sort(nobody)
			t.Errorf("%s: no reader reads %s, and testdata/inert.txt doesn't list it", class, strings.Join(nobody, " "))
		}
	}
	for _, names := range []map[string]bool{inert, of} {
		for name := range names {
			if !used[name] {
				t.Errorf("testdata/inert.txt lists %s, but no class has it", name)
			}
			if class, attribute, _ := strings.Cut(name, "."); found[class][attribute] {
				t.Errorf("testdata/inert.txt lists %s, but a reader reads it", name)
			}
		}
	}
	for class, names := range found {
		for name := range names {
			if inert[name] {
				t.Errorf("testdata/inert.txt lists %s for all classes, but the reader of %s reads it", name, class)
			}
		}
	}
}
