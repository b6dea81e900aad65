package sklearn

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestAttributes: every parameter and attribute that a supported class has in any
// release since 0.19 is named by the readers, or stands among those that were found
// to change nothing after the fit. testdata/attributes.py collects the names; one
// that a new release adds fails here until somebody judges it.
func TestAttributes(t *testing.T) {
	t.Parallel()
	named := map[string]bool{}
	sources, err := filepath.Glob("internal/*/*.go")
	if err != nil || len(sources) < 20 {
		t.Fatal(sources, err)
	}
	literal := regexp.MustCompile(`"([A-Za-z_]\w*)"`)
	for _, file := range sources {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range literal.FindAllStringSubmatch(string(data), -1) {
			named[m[1]] = named[m[1]] || !strings.HasSuffix(file, "_test.go")
		}
	}
	data, err := os.ReadFile("testdata/inert.txt")
	if err != nil {
		t.Fatal(err)
	}
	inert := strings.Fields(string(data))
	if data, err = os.ReadFile("testdata/attributes.json"); err != nil {
		t.Fatal(err)
	}
	var classes map[string][]string
	if err := json.Unmarshal(data, &classes); err != nil || len(classes) < 95 {
		t.Fatalf("%d classes, %v", len(classes), err)
	}
	used := map[string]bool{}
	for class, names := range classes {
		for _, name := range names {
			used[name] = true
			if !named[name] && !slices.Contains(inert, name) {
				t.Errorf("%s.%s: nobody looks at it, and it isn't known to be inert", class, name)
			}
		}
	}
	for _, name := range inert {
		if !used[name] || named[name] {
			t.Errorf("%s is called inert, but no class has it, or a reader names it", name)
		}
	}
}
