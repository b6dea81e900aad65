package code_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/scorer/code"
	"github.com/fleetscore/fleetscore/internal/store"
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

// roots are the parts themselves, as "up FILE" has it.
func roots(t *testing.T, parts ...code.Part) store.Roots {
	t.Helper()
	var paths []string
	for _, p := range parts {
		paths = append(paths, p.Path)
	}
	r, err := store.FindRoots(paths)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func pack(t *testing.T, parts ...code.Part) []byte {
	t.Helper()
	data, err := code.Pack(t.Context(), roots(t, parts...), parts)
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
		dir, done, err := cache.Folder(t.Context(), fleetscore.DigestOf(data), fetch)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		for name, want := range map[string]string{"code/a.py": "A", "code/sub/b.py": "B", "requirements/r.txt": "numpy"} {
			if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != want {
				t.Errorf("%s is %q, %v", name, text, err)
			}
		}
	}
	if fetched != 1 {
		t.Errorf("the archive was fetched %d times", fetched)
	}
	if _, _, err := cache.Folder(t.Context(), fleetscore.DigestOf([]byte("other")), fetch); !fleetscore.Corrupt.Is(err) {
		t.Errorf("other bytes than the digest says: %v", err)
	}
	if err := cache.Close(); err != nil {
		t.Error(err)
	}
	if _, err := code.Pack(t.Context(), roots(t, code.Part{Path: one}), []code.Part{{Name: "code", Path: filepath.Join(one, "none")}}); !fleetscore.NotFound.Is(err) {
		t.Errorf("a folder that isn't there: %v", err)
	}
	write(t, one, map[string]string{"code/large": strings.Repeat("x", 65<<20)})
	if _, err := code.Pack(t.Context(), roots(t, parts(one)...), parts(one)); !fleetscore.Exhausted.Is(err) {
		t.Errorf("too large a folder: %v", err)
	}
}

// tenBytes fetches code of 10 bytes, in a file of its own name, through a cache.
func tenBytes(t *testing.T, cache *code.Cache, name string) (folder string, done func()) {
	t.Helper()
	from := t.TempDir()
	write(t, from, map[string]string{"code/" + name: "10 bytes, "})
	data := pack(t, code.Part{Name: "code", Path: filepath.Join(from, "code")})
	folder, done, err := cache.Folder(t.Context(), fleetscore.DigestOf(data), func(context.Context) ([]byte, error) { return data, nil })
	if err != nil {
		t.Fatal(err)
	}
	return folder, done
}

// TestCacheIsBounded: archives that no task uses make room for others, the one that was used
// least recently first, after whoever else may use them was told.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var told []string
	cache := code.Cache{Dir: dir, MostBytes: 25, Leave: func(folder string) {
		if _, err := os.Stat(folder); err != nil {
			t.Error(err)
		}
		told = append(told, folder)
	}}
	get := func(name string) (string, func()) {
		t.Helper()
		return tenBytes(t, &cache, name)
	}
	a, leaveA := get("a")
	b, leaveB := get("b")
	leaveB()
	leaveA()
	again, leaveA := get("a")
	c, leaveC := get("c") // b has to go, because a is in use
	leaveA()
	leaveC()
	d, leaveD := get("d") // now a, which was used before c
	e, leaveE := get("e") // c
	f, leaveF := get("f") // nothing can go
	if again != a || fmt.Sprint(told) != fmt.Sprint([]string{b, a, c}) {
		t.Errorf("a lies in %s and then in %s; %q made room, want %q", a, again, told, []string{b, a, c})
	}
	for folder, there := range map[string]bool{a: false, b: false, c: false, d: true, e: true, f: true} {
		if _, err := os.Stat(folder); (err == nil) != there {
			t.Errorf("%s: %v", folder, err)
		}
	}
	leaveD()
	leaveE()
	leaveF()
	if err := cache.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestFolderThatStays: a folder that can't be removed costs no task its code. It goes on counting, so that what is kept
// stays bounded, and goes as soon as it can be removed.
func TestFolderThatStays(t *testing.T) {
	t.Parallel()
	stuck, told := "", 0
	cache := code.Cache{Dir: t.TempDir(), MostBytes: 25, Stays: func(string, error) { told++ }}
	cache.SetRemove(func(folder string) error {
		if folder == stuck {
			return errors.New("busy")
		}
		return os.RemoveAll(folder)
	})
	get := func(name string) string {
		t.Helper()
		folder, done := tenBytes(t, &cache, name)
		done()
		return folder
	}
	there := func(when string, folders map[string]bool) {
		t.Helper()
		for folder, want := range folders {
			if _, err := os.Stat(folder); (err == nil) != want {
				t.Errorf("%s: %s: %v, want it there: %t", when, folder, err, want)
			}
		}
	}
	a := get("a")
	stuck = a
	b, c := get("b"), get("c") // a has to go
	there("a can't be removed", map[string]bool{a: true, b: true, c: true})
	d := get("d") // b and c make room for it
	there("a can't be removed yet", map[string]bool{a: true, b: false, c: false, d: true})
	if told < 2 {
		t.Errorf("it was told %d times that a stays", told)
	}
	stuck = ""
	e := get("e")
	there("a can be removed", map[string]bool{a: false, d: true, e: true})
	if err := cache.Close(); err != nil {
		t.Error(err)
	}
	there("at the end", map[string]bool{d: false, e: false})
}

// TestEvictionHoldsNobody: while a folder is made free, which may take seconds until processes have ended, tasks get other
// archives, and also the one that has to go, in another folder.
func TestEvictionHoldsNobody(t *testing.T) {
	t.Parallel()
	leaves, goOn := make(chan string), make(chan struct{})
	late := time.AfterFunc(time.Minute, func() { t.Error("tasks waited for the folder that has to go"); close(goOn) })
	cache := code.Cache{Dir: t.TempDir(), MostBytes: 25, Leave: func(folder string) {
		leaves <- folder
		<-goOn
	}}
	get := func(name string) (string, func()) {
		from := t.TempDir()
		write(t, from, map[string]string{"code/" + name: "10 bytes, "})
		data := pack(t, code.Part{Name: "code", Path: filepath.Join(from, "code")})
		folder, done, err := cache.Folder(t.Context(), fleetscore.DigestOf(data), func(context.Context) ([]byte, error) { return data, nil })
		if err != nil {
			t.Error(err)
		}
		return folder, done
	}
	a, leaveA := get("a")
	leaveA()
	b, _ := get("b")
	made := make(chan string)
	go func() {
		c, _ := get("c") // a has to go
		made <- c
	}()
	if leaving := <-leaves; leaving != a {
		t.Errorf("%s has to go, want %s", leaving, a)
	}
	again, _ := get("b")
	d, _ := get("d")
	newA, _ := get("a")
	if late.Stop() {
		close(goOn)
	}
	c := <-made
	if again != b || newA == a {
		t.Errorf("b lies in %s and then in %s; a, which has to go, in %s and then in %s", b, again, a, newA)
	}
	for folder, there := range map[string]bool{a: false, b: true, c: true, d: true, newA: true} {
		if _, err := os.Stat(folder); (err == nil) != there {
			t.Errorf("%s: %v, want it there: %v", folder, err, there)
		}
	}
	if err := cache.Close(); err != nil {
		t.Error(err)
	}
}

// TestFailedFetch: a task that waits for an archive which another task can't get tries it itself.
func TestFailedFetch(t *testing.T) {
	t.Parallel()
	from := t.TempDir()
	write(t, from, map[string]string{"code/a": "10 bytes, "})
	data := pack(t, code.Part{Name: "code", Path: filepath.Join(from, "code")})
	cache := code.Cache{Dir: t.TempDir()}
	synctest.Test(t, func(t *testing.T) {
		fail := make(chan struct{})
		go func() {
			_, _, err := cache.Folder(t.Context(), fleetscore.DigestOf(data), func(context.Context) ([]byte, error) {
				<-fail
				return nil, context.Canceled
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the first task: %v", err)
			}
		}()
		synctest.Wait()
		go func() {
			if _, _, err := cache.Folder(t.Context(), fleetscore.DigestOf(data), func(context.Context) ([]byte, error) { return data, nil }); err != nil {
				t.Errorf("the second task: %v", err)
			}
		}()
		synctest.Wait()
		close(fail)
		synctest.Wait()
	})
	if err := cache.Close(); err != nil {
		t.Error(err)
	}
}

// TestRoots: only what lies in a root is packed, so that nobody can have the server hand out
// other files by naming them as code.
func TestRoots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"project/code/a.py": "A", "project/run.py": "R", "project/secret": "s", "other/b.py": "B"})
	if err := os.Symlink(filepath.Join(dir, "other"), filepath.Join(dir, "project", "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "project", "code", "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	allowed, err := store.FindRoots([]string{filepath.Join(dir, "project", "code"), filepath.Join(dir, "project", "run.py")})
	if err != nil {
		t.Fatal(err)
	}
	for path, ok := range map[string]bool{"project/code": true, "project/code/a.py": true, "project/run.py": true,
		"project": false, "project/secret": false, "project/link": false, "project/link/b.py": false, "other": false, "project/code/../secret": false} {
		parts := []code.Part{{Name: "code", Path: filepath.Join(dir, path)}}
		_, err := code.Pack(t.Context(), allowed, parts)
		if check := code.Check(allowed, parts); ok && (err != nil || check != nil) || !ok && (!fleetscore.Invalid.Is(err) || check == nil) {
			t.Errorf("%s: %v, and by Check %v; want it packed: %v", path, err, check, ok)
		}
	}
	if _, err := code.Pack(t.Context(), allowed, []code.Part{{Name: "code", Path: filepath.Join(dir, "project", "code", "pipe")}}); !fleetscore.Invalid.Is(err) {
		t.Errorf("a pipe: %v", err)
	}
	if err := code.Check(allowed, []code.Part{{Name: "code", Path: filepath.Join(dir, "none")}}); err != nil {
		t.Errorf("what this machine doesn't have may lie on the nodes: %v", err)
	}
}
