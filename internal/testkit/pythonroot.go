package testkit

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// PythonRoot writes an archive of a root file system with the Python of this machine's
// Debian and the libraries that it and wheels need: a base for images that no test has to
// fetch from a registry.
func PythonRoot(t testing.TB) (archive string) {
	t.Helper()
	program, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		Missing(t, "Debian's Python", "install the package python3")
	}
	release := filepath.Base(program)
	archive = filepath.Join(t.TempDir(), "python.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for _, link := range [][2]string{{"lib", "usr/lib"}, {"lib64", "usr/lib64"}, {"bin", "usr/bin"}, {"usr/bin/python3", release}, {"usr/bin/sh", "dash"}} {
		if err := w.WriteHeader(&tar.Header{Name: link[0], Linkname: link[1], Typeflag: tar.TypeSymlink, Mode: 0o777}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteHeader(&tar.Header{Name: "usr/lib/python3/dist-packages/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil { // there is none in it, but it is Debian's mark
		t.Fatal(err)
	}
	add := func(file string) {
		t.Helper()
		if err := addFile(w, file, strings.TrimPrefix(file, "/")); err != nil {
			t.Fatal(err)
		}
	}
	add(program)
	add("/usr/bin/dash")
	add("/usr/bin/cat")
	for _, library := range libraries(t, program) {
		add(library)
	}
	err = filepath.WalkDir(filepath.Join("/usr/lib", release), func(file string, d fs.DirEntry, err error) error {
		name := filepath.Base(file)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains([]string{"test", "__pycache__", "idlelib", "ensurepip", "tkinter", "lib2to3", "pydoc_data"}, name) || strings.HasPrefix(name, "config-")):
			return fs.SkipDir
		case !d.IsDir():
			return addFile(w, file, strings.TrimPrefix(file, "/"))
		}
		return nil
	})
	if err := errors.Join(err, w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return archive
}

// libraries are the libraries that programs of this machine need, below /usr: those of
// Python, of its modules, and of wheels in C++.
func libraries(t testing.TB, program string) (out []string) {
	t.Helper()
	modules, err := filepath.Glob(filepath.Join("/usr/lib", filepath.Base(program), "lib-dynload", "*.so"))
	if err != nil {
		t.Fatal(err)
	}
	var more []string // what wheels need besides: C++, and libraries that are part of the C library today
	for _, name := range []string{"stdc++", "gcc_s", "pthread", "dl", "rt", "util"} {
		found, err := filepath.Glob("/usr/lib/*-linux-gnu/lib" + name + ".so.[0-9]")
		if err != nil {
			t.Fatal(err)
		}
		more = append(more, found...)
	}
	text, err := Command(t, "ldd", append([]string{program}, append(modules, more...)...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, word := range append(strings.Fields(string(text)), more...) {
		if !strings.HasPrefix(word, "/") || strings.HasSuffix(word, ":") {
			continue
		}
		if !strings.HasPrefix(word, "/usr/") {
			word = "/usr" + word
		}
		if !seen[word] {
			seen[word] = true
			out = append(out, word)
		}
	}
	return out
}

// addFile adds a file, or what a link leads to, with the same time always.
func addFile(w *tar.Writer, file, name string) error {
	st, err := os.Stat(file)
	if err != nil {
		if os.IsNotExist(err) {
			return nil // a link to nothing
		}
		return err
	}
	if !st.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644 | int64(st.Mode()&0o111), Size: st.Size(), ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

// Wheels returns the files of Python packages with all that they need, for this machine's
// Debian Python. They are fetched once and kept in the user's cache folder.
func Wheels(t testing.TB, packages ...string) (files []string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	program, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		Missing(t, "Debian's Python", "install the package python3")
	}
	minor := strings.TrimPrefix(filepath.Base(program), "python")
	sum := sha256.Sum256([]byte(minor + "\n" + strings.Join(packages, "\n")))
	dir := filepath.Join(cache, "fleetscore-test", fmt.Sprintf("wheels-%x", sum[:6]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer Lock(t, dir+".lock")()
	ready := filepath.Join(dir, "ready")
	if _, err := os.Stat(ready); err != nil {
		args := append([]string{"-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--python-version", minor, "-d", dir}, packages...)
		if out, err := Command(t, Venv(t, "pip==25.3"), args...).CombinedOutput(); err != nil {
			Missing(t, "wheels of "+strings.Join(packages, ", "), fmt.Sprintf("%v: %s", err, out))
		}
		if err := os.WriteFile(ready, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if files, err = filepath.Glob(filepath.Join(dir, "*.whl")); err != nil || len(files) == 0 {
		t.Fatalf("no wheels in %s: %v", dir, err)
	}
	return files
}
