package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fleetscore/fleetscore"
)

func TestFolderIsOnlyRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := ReadAll(t.Context(), f, "a"); err != nil || string(data) != "x" {
		t.Errorf("got %q, %v", data, err)
	}
	if err := WriteAll(t.Context(), f, "b", nil, PutOptions{}); !fleetscore.Invalid.Is(err) {
		t.Errorf("write: got %v, want invalid", err)
	}
	if err := f.Delete(t.Context(), "a"); !fleetscore.Invalid.Is(err) {
		t.Errorf("delete: got %v, want invalid", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v; want a alone", entries, err)
	}
	if _, err := OpenFolder(filepath.Join(dir, "none")); !fleetscore.NotFound.Is(err) {
		t.Errorf("absent: got %v, want not found", err)
	}
}

// TestReadAllTakesLittleMemory: what ReadAll gives holds hardly more memory than the file is large.
func TestReadAllTakesLittleMemory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1 << 20, mostSized, mostSized * 5 / 4} {
		if err := os.WriteFile(filepath.Join(dir, "a"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, "a"), int64(size)); err != nil {
			t.Fatal(err)
		}
		if data, err := ReadAll(t.Context(), f, "a"); err != nil || len(data) != size || cap(data) > size+size/8+16<<10 {
			t.Errorf("%d bytes: got %d in memory for %d, %v", size, len(data), cap(data), err)
		}
	}
}
