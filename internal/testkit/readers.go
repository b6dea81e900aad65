package testkit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
)

// Seen is what a foreign program reads in a table: how many rows, the sum of one
// column, the first and last stamp in microseconds, and how many sensors.
type Seen struct{ Rows, Sum, First, Last, Sensors float64 }

// ReadDelta reads a table's folder with delta-rs and with DuckDB, by name of the
// reader. They are installed into a virtual environment of their own, once.
func ReadDelta(t testing.TB, folder, column string) map[string]Seen {
	t.Helper()
	scripts := filepath.Join(Root(t), "internal", "testkit", "readers")
	python := Readers(t)
	out, err := exec.CommandContext(t.Context(), python, filepath.Join(scripts, "readers.py"), folder, column).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%s: %v\n%s", folder, err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var raw map[string][5]float64
	if err := json.Unmarshal(out, &raw); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	seen := map[string]Seen{}
	for reader, v := range raw {
		seen[reader] = Seen{v[0], v[1], v[2], v[3], v[4]}
	}
	if len(seen) != 2 {
		t.Fatalf("%s was read by %v", folder, seen)
	}
	return seen
}

// Readers is a Python with delta-rs, DuckDB and pyarrow, installed once into a virtual
// environment of its own.
func Readers(t testing.TB) (python string) {
	t.Helper()
	return venv(t, "deltalake and DuckDB", filepath.Join(Root(t), "internal", "testkit", "readers", "requirements.txt"))
}

// venv is a Python with what the file lists; it is made once and kept in the
// user's cache folder.
func venv(t testing.TB, engine, list string) string {
	t.Helper()
	pins, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		Missing(t, engine, err.Error())
	}
	dir := filepath.Join(cache, "fleetscore-test", "readers-"+fleetscore.DigestOf(pins).Short())
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644) // tests of other packages may want it too
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Flock(int(lock.Fd()), unix.LOCK_UN) }() // it ends with the process too
	python := filepath.Join(dir, "bin", "python")
	if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
		return python
	}
	for _, args := range [][]string{{"python3", "-m", "venv", "--clear", dir}, {python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", list}} {
		if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), args[0], args[1:]...).CombinedOutput(); err != nil {
			Missing(t, engine, fmt.Sprintf("%s: %v\n%s", strings.Join(args, " "), err, out))
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return python
}
