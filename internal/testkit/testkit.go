// Package testkit holds helpers for the tests of several rooms: the reference data, and
// the rule that an engine may be missing only on a laptop. Only tests import it, and it
// keeps no state.
package testkit

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// All reports whether every engine must be present (FLEETSCORE_TEST_ALL=1), as in
// continuous integration.
func All() bool { return os.Getenv("FLEETSCORE_TEST_ALL") == "1" }

// Missing skips the test because an engine that it needs is missing. With
// FLEETSCORE_TEST_ALL=1 the test fails.
func Missing(t testing.TB, engine, howToGet string) {
	t.Helper()
	if All() {
		t.Fatalf("%s is missing and FLEETSCORE_TEST_ALL=1: %s", engine, howToGet)
	}
	t.Skipf("SKIPPED: %s is missing: %s", engine, howToGet)
}

// Root returns the repository's root folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if text, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.HasPrefix(string(text), "module github.com/fleetscore/fleetscore\n") {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("the test doesn't run in a folder of the repository")
		}
	}
}

// Reference returns the folder of the reference architecture's own models, data
// and expected predictions: FLEETSCORE_REFERENCE, or ../shared/reference beside
// the repository.
func Reference(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("FLEETSCORE_REFERENCE")
	if dir == "" {
		dir = filepath.Join(Root(t), "..", "shared", "reference")
	}
	if _, err := os.Stat(filepath.Join(dir, "expected_predictions.csv")); err != nil {
		Missing(t, "the reference fleet", "set FLEETSCORE_REFERENCE to the folder that holds expected_predictions.csv")
	}
	return dir
}

// Venv returns the interpreter of a Python virtual environment with packages. The
// environment is made once and kept in the user's cache folder. If a package has no
// version, the environment is made again every day. Without Python or a package index
// the test is skipped, or fails with FLEETSCORE_TEST_ALL=1.
func Venv(t testing.TB, packages ...string) (python string) {
	t.Helper()
	return VenvOf(t, "python3", packages...)
}

// ModelsVenv is a virtual environment with every library that the tests' models need.
func ModelsVenv(t testing.TB) (python string) {
	t.Helper()
	return Venv(t, "numpy==2.4.6", "pandas==3.1.1", "pyarrow==26.0.1", "scikit-learn==1.9.1", "xgboost-cpu==3.2.0", "lightgbm==4.7.0",
		"onnxruntime==1.32.0", "skl2onnx==1.20.0", "pyod==3.6.7", "skops==0.16.0", "mlflow-skinny==3.17.2")
}

// OldPackages are an environment with an older release of scikit-learn.
var OldPackages = []string{"numpy==1.26.4", "pandas==2.2.3", "pyarrow==17.0.0", "scikit-learn==1.4.2"}

// VenvOf is Venv with an interpreter of the caller's choice.
func VenvOf(t testing.TB, interpreter string, packages ...string) (python string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	what := strings.Join(packages, "\n")
	if interpreter != "python3" {
		what = interpreter + "\n" + what
	}
	sum := sha256.Sum256([]byte(what))
	dir := filepath.Join(cache, "fleetscore-test", fmt.Sprintf("venv-%x", sum[:6]))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	defer Lock(t, dir+".lock")() // tests of other packages may need the environment at the same time
	pinned := !slices.ContainsFunc(packages, func(p string) bool { return !strings.Contains(p, "==") })
	python, ready := filepath.Join(dir, "bin", "python"), filepath.Join(dir, "ready")
	if s, err := os.Stat(ready); err == nil && (pinned || time.Since(s.ModTime()) < 24*time.Hour) {
		return python
	}
	for _, args := range [][]string{{interpreter, "-m", "venv", "--clear", dir},
		append([]string{python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"}, packages...)} {
		if out, err := Command(t, args[0], args[1:]...).CombinedOutput(); err != nil {
			Missing(t, "Python with "+strings.Join(packages, ", "), fmt.Sprintf("install Python 3 with venv (%s: %v: %s)", strings.Join(args, " "), err, out))
		}
	}
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return python
}

// GoProgram builds a program of another project once, from the Go module proxy, and keeps
// it in the user's cache folder. What it names is a package, with @ and its version.
func GoProgram(t testing.TB, what string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	name, version, _ := strings.Cut(what, "@")
	dir := filepath.Join(cache, "fleetscore-test", strings.ReplaceAll(name, "/", "-")+"-"+version)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	defer Lock(t, dir+".lock")()
	program := filepath.Join(dir, filepath.Base(name))
	if _, err := os.Stat(program); err == nil {
		return program
	}
	cmd := Command(t, "go", "install", what)
	cmd.Dir = os.TempDir() // outside of the repository, whose go.mod stays as it is
	cmd.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		Missing(t, what, "it comes with the Go module proxy: "+err.Error()+": "+string(out))
	}
	return program
}

// Pythons finds interpreters by their versions, such as 3.8, in PATH and in pyenv's folder.
func Pythons() map[string]string {
	found := map[string]string{}
	home, _ := os.UserHomeDir()
	for minor := 6; minor <= 20; minor++ {
		v := "3." + strconv.Itoa(minor)
		candidates, _ := filepath.Glob(filepath.Join(home, ".pyenv", "versions", v+".*", "bin", "python"))
		if p, err := exec.LookPath("python" + v); err == nil {
			candidates = append(candidates, p)
		}
		candidates = append(candidates, "python3")
		for _, c := range candidates {
			if out, err := exec.Command(c, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])").Output(); err == nil && strings.TrimSpace(string(out)) == v {
				found[v] = c
				break
			}
		}
	}
	return found
}

// Command returns a program that is ended with the test, and after five minutes at the
// latest.
func Command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	return command(t, 5*time.Minute, name, args)
}

// LongCommand is Command with a limit of half an hour.
func LongCommand(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	return command(t, 30*time.Minute, name, args)
}

func command(t testing.TB, limit time.Duration, name string, args []string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, name, args...)
}

// CloseLater closes what a test has opened when the test ends.
func CloseLater(t testing.TB, c io.Closer) {
	t.Helper()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Lock waits until no other process holds the lock of that file, and takes it.
func Lock(t testing.TB, name string) (unlock func()) {
	t.Helper()
	lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = unix.Flock(int(lock.Fd()), unix.LOCK_UN) // a process being forked just now holds the file for a moment longer
		lock.Close()                                 // it was only locked
	}
}
