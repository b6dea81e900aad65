package code_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/scorer/code"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func pack(t *testing.T, parts ...code.Part) []byte {
	t.Helper()
	data, err := code.Pack(t.Context(), parts)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestPack: the same files give the same archive wherever they lie and whenever they were
// made; a node has their bytes once, and neither secrets beside them nor what links lead to.
func TestPack(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), t.TempDir()
	files := map[string]string{"code/a.py": "A", "code/sub/b.py": "B", "r.txt": "numpy"}
	write(t, one, files)
	write(t, two, files)
	write(t, two, map[string]string{"code/.git/config": "secret", "code/.env": "secret", "code/sub/__pycache__/b.pyc": "x", "outside": "secret"})
	if err := os.Symlink(filepath.Join(two, "outside"), filepath.Join(two, "code", "link")); err != nil {
		t.Fatal(err)
	}
	parts := func(dir string) []code.Part {
		return []code.Part{{Name: "code", Path: filepath.Join(dir, "code")}, {Name: "requirements", Path: filepath.Join(dir, "r.txt")}}
	}
	data := pack(t, parts(one)...)
	if !bytes.Equal(data, pack(t, parts(two)...)) {
		t.Error("the same files give another archive")
	}
	write(t, two, map[string]string{"code/a.py": "AA"})
	if bytes.Equal(data, pack(t, parts(two)...)) {
		t.Error("other files give the same archive")
	}
	var cache code.Cache
	fetched := 0
	fetch := func(context.Context) ([]byte, error) { fetched++; return data, nil }
	for range 2 {
		dir, err := cache.Folder(t.Context(), fleetscore.DigestOf(data), fetch)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"code/a.py": "A", "code/sub/b.py": "B", "requirements/r.txt": "numpy"} {
			if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != want {
				t.Errorf("%s is %q, %v", name, text, err)
			}
		}
	}
	if fetched != 1 {
		t.Errorf("the archive was fetched %d times", fetched)
	}
	if _, err := cache.Folder(t.Context(), fleetscore.DigestOf([]byte("other")), fetch); !fleetscore.Corrupt.Is(err) {
		t.Errorf("other bytes than the digest says: %v", err)
	}
	if err := cache.Close(); err != nil {
		t.Error(err)
	}
	if _, err := code.Pack(t.Context(), []code.Part{{Name: "code", Path: filepath.Join(one, "none")}}); !fleetscore.NotFound.Is(err) {
		t.Errorf("a folder that isn't there: %v", err)
	}
	write(t, one, map[string]string{"code/large": strings.Repeat("x", 65<<20)})
	if _, err := code.Pack(t.Context(), parts(one)); !fleetscore.Exhausted.Is(err) {
		t.Errorf("too large a folder: %v", err)
	}
}
