package cache

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// TestWork: each process has a folder of its own; what killed processes left is removed by the
// next one, and what others still use isn't, nor what was in the folder before.
func TestWork(t *testing.T) {
	t.Parallel()
	base := filepath.Join(t.TempDir(), "nodes")
	for _, name := range []string{"0", "models"} { // a user's, who names a folder that has other files too
		if err := os.MkdirAll(filepath.Join(base, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, name, "precious"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open := func() *Work {
		t.Helper()
		w, err := OpenWork(base, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	leave := func(w *Work) string {
		t.Helper()
		file := filepath.Join(w.Dir, "code", "a.py")
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	there := func(file string) bool { _, err := os.Stat(file); return err == nil }
	one, two, three := open(), open(), open()
	ofOne, ofTwo, ofThree := leave(one), leave(two), leave(three)
	if one.Dir == two.Dir || two.Dir == three.Dir {
		t.Fatalf("folders: %s, %s, %s", one.Dir, two.Dir, three.Dir)
	}
	for _, w := range []*Work{one, three} { // as if they were killed
		if err := w.lock.Close(); err != nil {
			t.Fatal(err)
		}
	}
	next := open()
	if next.Dir != one.Dir || there(ofOne) || !there(ofTwo) || there(ofThree) {
		t.Errorf("the next one has %s; left of the killed: %v, of the killed with another folder: %v, of one that lives: %v", next.Dir, there(ofOne), there(ofThree), there(ofTwo))
	}
	if err := two.Close(); err != nil || there(ofTwo) {
		t.Errorf("after its end a file is there: %v, %v", there(ofTwo), err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"0", "models"} {
		if entries, err := os.ReadDir(filepath.Join(base, name)); err != nil || len(entries) != 1 || entries[0].Name() != "precious" {
			t.Errorf("folder %s that was there before has %v, %v", name, entries, err)
		}
	}
	if err := os.Chmod(base, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWork(base, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a folder is taken in which other users may write")
	}
}

// TestWorkFolderIsALink: the folder that the user names may be a link; the one below it, which this program makes, may not.
func TestWorkFolderIsALink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(real, 0o700), os.Symlink(real, link)); err != nil {
		t.Fatal(err)
	}
	w, err := OpenWork(link, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(real, ours, filepath.Base(w.Dir))); err != nil {
		t.Errorf("the folder is %s: %v", w.Dir, err)
	}
	if err := errors.Join(w.Close(), os.Rename(filepath.Join(real, ours), filepath.Join(real, "other")), os.Symlink("other", filepath.Join(real, ours))); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWork(link, slog.New(slog.DiscardHandler)); !fleetscore.Invalid.Is(err) {
		t.Errorf("a link below the folder is followed: %v", err)
	}
}
