package ledger

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPrivate: the ledger and the files that its engine keeps beside it are for
// their owner alone, also where an earlier one wasn't.
func TestPrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(dir, "ledger.db")
	for range 2 {
		l, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) < 3 {
			t.Fatalf("%d files, %v; want the ledger, its lock and its log", len(entries), err)
		}
		for _, e := range entries {
			i, err := e.Info()
			if err != nil || i.Mode().Perm() != 0o600 {
				t.Errorf("%s has %v, %v; want 0600", e.Name(), i.Mode(), err)
			}
		}
		if i, err := os.Stat(dir); err != nil || i.Mode().Perm() != 0o700 {
			t.Errorf("the folder has %v, %v; want 0700", i.Mode(), err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
