package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

func openDir(t *testing.T, path string) *store.Dir {
	t.Helper()
	d, err := store.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDir(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Client {
		dir := t.TempDir()
		return func(t *testing.T) store.Bucket { return openDir(t, dir) }
	})
}

func TestSub(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Client {
		dir := t.TempDir()
		return func(t *testing.T) store.Bucket { return store.Sub(openDir(t, dir), "a/b") }
	})
}

func TestDirSweepsOldTemporaries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openDir(t, dir)
	old, young := filepath.Join(dir, ".fleetscore-tmp", "old"), filepath.Join(dir, ".fleetscore-tmp", "young")
	for _, f := range []string{old, young} {
		if err := os.WriteFile(f, []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	openDir(t, dir)
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the old temporary is still there: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("the young temporary, perhaps being written, is gone: %v", err)
	}
}

func TestDirLinksOutsideAreNotFollowed(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := openDir(t, dir)
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if data, err := store.ReadAll(t.Context(), b, "link"); err == nil {
		t.Errorf("read %q through a link that leads out", data)
	}
	for i, err := range b.List(t.Context(), "", store.ListOptions{}) {
		t.Errorf("listed %v, %v", i, err)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := store.Open(t.Context(), openDir(t, dir).URL())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.WriteAll(t.Context(), b, "x", nil, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err != nil {
		t.Error(err)
	}
	if _, err := store.Open(t.Context(), "ftp://x"); !fleetscore.Invalid.Is(err) {
		t.Errorf("got %v, want kind invalid", err)
	}
}

// TestTagsDiffer: a blob that is put again has another tag, even if this happens soon
// and the size is the same.
func TestTagsDiffer(t *testing.T) {
	t.Parallel()
	d, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for i := range 50 {
		if err := store.WriteAll(t.Context(), d, "model", []byte{byte(i)}, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		st, err := d.Stat(t.Context(), "model")
		if err != nil || st.ETag == last {
			t.Fatalf("put %d: tag %s, %v", i, st.ETag, err)
		}
		last = st.ETag
		for l, err := range d.List(t.Context(), "", store.ListOptions{}) {
			if err != nil || l.ETag != last {
				t.Fatalf("put %d: listed with tag %s, not %s; %v", i, l.ETag, last, err)
			}
		}
	}
}

// TestEmptyFolders: deleting the last blob also removes its folders, but not a link
// that a user put there, and a writer that puts blobs into them at the same time
// loses none.
func TestEmptyFolders(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), t.TempDir()
	d, other := openDir(t, dir), openDir(t, dir)
	put := func(d *store.Dir, name fleetscore.BlobName) {
		t.Helper()
		if err := store.WriteAll(t.Context(), d, name, []byte("x"), store.PutOptions{}); err != nil {
			t.Error(err)
		}
	}
	put(d, "a/b/c/x")
	put(d, "a/y")
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"inside": "real", "outside": elsewhere} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	put(d, "inside/x")
	for _, name := range []fleetscore.BlobName{"a/b/c/x", "a/b/c/none", "inside/x"} {
		if err := d.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for name, there := range map[string]bool{"a/b": false, "a/y": true, "inside": true, "outside": true, ".fleetscore-tmp": true} {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != there {
			t.Errorf("%s: %v", name, err)
		}
	}
	var all sync.WaitGroup
	for i := range 2 { // each deletes its own blob, after which the folder may be empty
		all.Go(func() {
			mine := []*store.Dir{d, other}[i]
			for n := range 200 {
				name := fleetscore.BlobName(fmt.Sprintf("p/q/%d-%d", i, n))
				put(mine, name)
				if _, err := mine.Stat(t.Context(), name); err != nil {
					t.Error(err)
				}
				if err := mine.Delete(t.Context(), name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
