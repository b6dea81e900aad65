package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
)

// TestRoots: a folder opens only if it is in a root, and no symbolic link in its path
// leads out of the root.
func TestRoots(t *testing.T) {
	t.Parallel()
	root, other := t.TempDir(), t.TempDir()
	for _, d := range []string{root + "/models/a", other + "/a", root + "-beside"} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Remove(root + "-beside") })
	for from, to := range map[string]string{root + "/out": other, root + "/in": "models", root + "/up": "../", other + "/root": root} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		roots, dir string
		kind       fleetscore.Kind // 0 if it opens
		says       string
	}{
		{root, root, 0, ""},
		{root, root + "/models/a", 0, ""},
		{root, root + "/in/a", 0, ""},
		{other + "/root", root + "/models", 0, ""}, // the root is a link
		{other + "/root", other + "/root/models", 0, ""},
		{root + " " + other, other + "/a", 0, ""},
		{root, root + "/none", fleetscore.NotFound, ""},
		{root, other + "/a", fleetscore.Invalid, "--models-root"},
		{"", root, fleetscore.Invalid, "--models-root"},
		{root, root + "-beside", fleetscore.Invalid, "--models-root"},
		{root, filepath.Dir(root), fleetscore.Invalid, "--models-root"},
		{root, root + "/../" + filepath.Base(other), fleetscore.Invalid, "--models-root"},
		{root, root + "/out/a", fleetscore.Invalid, "symbolic link"},
		{root, root + "/out", fleetscore.Invalid, "symbolic link"},
		{root, root + "/up", fleetscore.Invalid, "symbolic link"},
	} {
		f, err := find(t, strings.Fields(tt.roots)...).OpenFolder(tt.dir)
		if tt.kind == 0 {
			if err != nil {
				t.Errorf("%s in %q: %v", tt.dir, tt.roots, err)
				continue
			}
			f.Close()
			continue
		}
		if fleetscore.KindOf(err) != tt.kind || err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s in %q: got %v, want kind %v, %q", tt.dir, tt.roots, err, tt.kind, tt.says)
		}
	}
}

func find(t *testing.T, dirs ...string) Roots {
	t.Helper()
	r, err := FindRoots(dirs)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRootBecomesLink: a root that is replaced by a symbolic link later, or whose
// parent is, can't be read; a root that is replaced by another folder can.
func TestRootBecomesLink(t *testing.T) {
	t.Parallel()
	for _, lookup := range []func(string) (os.FileInfo, error){statWithoutLinks, lstatParts} {
		if _, err := lookup("/"); err != nil {
			t.Error(err)
		}
	}
	const secret = "a password"
	for name, tt := range map[string]struct {
		replace string // what becomes a link to target, below the test's folder
		target  string
	}{
		"the root":        {"above/models", "outside/above/models"},
		"a folder above":  {"above", "outside/above"},
		"a link that was": {"link", "outside/above"}, // the root was given by the link's name
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{"above/models/sub/m": "model", "outside/above/models/sub/m": secret} {
				if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			named := filepath.Join(dir, "above/models")
			if tt.replace == "link" {
				if err := os.Symlink("above", filepath.Join(dir, "link")); err != nil {
					t.Fatal(err)
				}
				named = filepath.Join(dir, "link/models")
			}
			roots := find(t, named)
			read := func() (string, error) {
				f, err := roots.OpenFolder(filepath.Join(named, "sub"))
				if err != nil {
					return "", err
				}
				defer f.Close()
				data, err := ReadAll(t.Context(), f, "m")
				return string(data), err
			}
			if got, err := read(); got != "model" || err != nil {
				t.Fatalf("before: %q, %v", got, err)
			}
			moved := filepath.Join(dir, tt.replace)
			if err := os.Rename(moved, moved+".was"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(dir, tt.target), moved); err != nil {
				t.Fatal(err)
			}
			got, err := read()
			if tt.replace == "link" {
				if got != "model" || err != nil {
					t.Errorf("a root that was named by a link: %q, %v; want what the link led to at first", got, err)
				}
				return
			}
			if !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), "was replaced by a symbolic link") {
				t.Errorf("through the link: %q, %v", got, err)
			}
			if err := os.Remove(moved); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(moved+".was", moved); err != nil {
				t.Fatal(err)
			}
			if got, err := read(); got != "model" || err != nil {
				t.Errorf("with the folder again: %q, %v", got, err)
			}
		})
	}
}

// TestRootThatComesLater: a root needn't exist when FindRoots is called.
func TestRootThatComesLater(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	roots := find(t, dir)
	if _, err := roots.OpenFolder(dir); !fleetscore.NotFound.Is(err) {
		t.Errorf("got %v, want kind not found", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := roots.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestRootThatCannotBeRead: a root that can't be read, such as a mount whose file server doesn't answer, keeps no other root
// from being found. It is opened once it can be read.
func TestRootThatCannotBeRead(t *testing.T) {
	t.Parallel()
	good, bad := t.TempDir(), filepath.Join(t.TempDir(), "circle")
	if err := os.Symlink(bad, bad); err != nil {
		t.Fatal(err)
	}
	roots := find(t, bad, good)
	if _, err := roots.OpenFolder(bad); err == nil {
		t.Error("a link to itself was opened")
	}
	for range 2 {
		f, err := roots.OpenFolder(good)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := errors.Join(os.Remove(bad), os.Mkdir(bad, 0o700)); err != nil {
			t.Fatal(err)
		}
		good = bad
	}
}

// TestPipe: a pipe in a folder isn't a blob, and reading doesn't wait for its writer.
func TestPipe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data, err := ReadAll(t.Context(), f, "pipe"); !fleetscore.NotFound.Is(err) {
		t.Errorf("got %q, %v; want kind not found", data, err)
	}
}
