package fileserver_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore/internal/fileserver"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestLibnfs: a foreign client lists and reads a large folder, of 100,000 files with
// make nfs, and names that are unusual, and can't write.
func TestLibnfs(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "nfs-ls", "libnfs-utils")
	testkit.Tool(t, "python3", "python3")
	dir := t.TempDir()
	folder := filepath.Join(dir, "models", "many")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	var want []string
	put := func(name string, content []byte) {
		t.Helper()
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%x /%s", sha256.Sum256(content), strings.TrimPrefix(name, "models/")))
	}
	n := 10_000 // each file takes five requests
	if os.Getenv("FLEETSCORE_NFS") == "full" {
		n = 100_000
	}
	for i := range n {
		put(fmt.Sprintf("models/many/model_%d_%d", i%1000, i), fmt.Appendf(nil, "model %d", i))
	}
	if err := os.MkdirAll(filepath.Join(dir, "models", "ähnlich", strings.Repeat("long-", 40)), 0o755); err != nil {
		t.Fatal(err)
	}
	large := make([]byte, 5<<20+17)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range large {
		large[i] = byte(rng.Uint32())
	}
	put("models/ähnlich/"+strings.Repeat("long-", 40)+"/"+strings.Repeat("x", 250), large)
	put("models/ähnlich/with space", nil)
	put("models/many.txt", []byte("a file whose name begins as the folder's"))

	at := serveFolder(t, dir, fileserver.Config{Areas: []string{"models"}})
	out, err := testkit.LongCommand(t, "python3", "testdata/copy.py", at.url("/models")).Output()
	if err != nil {
		t.Fatalf("%v\n%.2000s", err, out)
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("got %d files, want %d; the difference begins with\n%.2000s", len(got), len(want), cmp.Diff(want[:min(len(want), 1000)], got[:min(len(got), 1000)]))
	}
	list, err := testkit.LongCommand(t, "nfs-ls", at.url("/models/many")).Output()
	if err != nil || bytes.Count(list, []byte("\n")) != n || !bytes.Contains(list, []byte("-r--r--r--")) {
		t.Errorf("nfs-ls: %v, %d lines\n%.300s", err, bytes.Count(list, []byte("\n")), list)
	}
	local := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(local, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/models/new", "/models/many/model_1_1"} {
		if text, err := testkit.Command(t, "nfs-cp", local, at.url(target)).CombinedOutput(); err == nil || !bytes.Contains(text, []byte("ROFS")) {
			t.Errorf("writing %s: %v, %s", target, err, text)
		}
	}
	for _, target := range []string{"/", "/predictions", "/models/none", "/models/../predictions", "/models/many.txt"} {
		if text, err := testkit.Command(t, "nfs-ls", at.url(target)).CombinedOutput(); err == nil {
			t.Errorf("%s can be listed: %.300s", target, text)
		}
	}
}

// serveFolder exports a folder by a file server until the test ends.
func serveFolder(t *testing.T, dir string, cfg fileserver.Config) address {
	t.Helper()
	b, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return serveStore(t, b, cfg)
}
