package verify

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestNoFalseAlarms: models of several outputs, models that write into their rows,
// and models whose columns were constant in training give the same results as a real
// scikit-learn.
func TestNoFalseAlarms(t *testing.T) {
	python := testkit.Venv(t, "scikit-learn", "skops", "pandas")
	dir := t.TempDir()
	write := exec.CommandContext(t.Context(), python, "testdata/make.py", dir)
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var files []File
	for _, e := range entries {
		files = append(files, File{e.Name(), filepath.Join(dir, e.Name())})
	}
	r, err := Run(t.Context(), Config{Python: python, Rows: 100}, files)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Equal || r.Compared != int64(len(files)) {
		for _, k := range r.Kinds {
			t.Logf("%s: %+v", k.Estimators, k.Offending)
		}
		t.Errorf("%d of %d models compared; not loadable %+v; unsupported %+v", r.Compared, len(files), r.NotLoadable, r.Unsupported)
	}
}
