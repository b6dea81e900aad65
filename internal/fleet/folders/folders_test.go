package folders_test

import (
	"archive/zip"
	"bytes"
	"context"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet/folders"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// listed is a bucket that lists given names.
func listed(t *testing.T, names ...string) *store.Dir {
	t.Helper()
	dir := t.TempDir()
	for _, n := range names {
		path := filepath.Join(dir, filepath.FromSlash(n))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("content of "+n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, b)
	return b
}

func list(ctx context.Context, b store.Bucket) (out []store.Info, err error) {
	for i, err := range b.List(ctx, "", store.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

// TestFolded: whatever names there are, each file is listed by itself or by the outermost
// folder above it that has a manifest, in order, and once.
func TestFolded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		segment := rapid.SampledFrom([]string{"A", "M", "MLmodel", "N", "a", "1", "-"})
		paths := rapid.SliceOfNDistinct(rapid.Map(rapid.SliceOfN(segment, 1, 4), func(s []string) string { return strings.Join(s, "/") }), 0, 12, rapid.ID).Draw(rt, "names")
		var files []string // without those that are folders of others
		for _, p := range paths {
			isFolder := false
			for _, q := range paths {
				isFolder = isFolder || strings.HasPrefix(q, p+"/")
			}
			if !isFolder {
				files = append(files, p)
			}
		}
		var memory store.Bucket = &named{names: files}
		got, err := list(t.Context(), folders.Fold(memory))
		if err != nil {
			rt.Fatal(err)
		}
		var have []string
		for _, i := range got {
			have = append(have, string(i.Name))
		}
		if want := twin(files); !cmp.Equal(have, want) {
			rt.Fatalf("%q is listed as %q, want %q", files, have, want)
		}
	})
}

// twin finds the same without the order of names.
func twin(files []string) (out []string) {
	seen := map[string]bool{}
	for _, f := range files {
		seen[f] = true
	}
	once := map[string]bool{}
	for _, f := range sorted(files) {
		name := f
		for i := range f {
			if f[i] == '/' && seen[f[:i]+"/MLmodel"] {
				name = f[:i]
				break
			}
		}
		if !once[name] {
			once[name] = true
			out = append(out, name)
		}
	}
	return out
}

// TestArchive: a folder is read as an archive of the size that was listed, which is the same
// for the same files, changes with each of them, and holds them.
func TestArchive(t *testing.T) {
	t.Parallel()
	names := []string{"model_1/MLmodel", "model_1/.hidden", "model_1/code/ä.py", "model_1/model.pkl", "model_2"}
	b := listed(t, names...)
	read := func() (store.Info, []byte) {
		t.Helper()
		f := folders.Fold(b)
		all, err := list(t.Context(), f)
		if err != nil || len(all) != 2 || all[0].Name != "model_1" || all[1].Name != "model_2" {
			t.Fatalf("listed %v, %v", all, err)
		}
		data, err := store.ReadAll(t.Context(), f, all[0].Name)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(data)) != all[0].SizeBytes {
			t.Errorf("%d bytes were read, %d listed", len(data), all[0].SizeBytes)
		}
		if plain, err := store.ReadAll(t.Context(), f, "model_2"); err != nil || string(plain) != "content of model_2" || folders.Is(plain) {
			t.Errorf("another file is read as %q, %v", plain, err)
		}
		return all[0], data
	}
	was, data := read()
	if again, same := read(); !bytes.Equal(data, same) || again.ETag != was.ETag {
		t.Error("the archive of the same files isn't the same")
	}
	if !folders.Is(data) {
		t.Error("the archive isn't recognised")
	}
	dir := filepath.Join(t.TempDir(), "out")
	if err := folders.Unpack(data, dir); err != nil {
		t.Fatal(err)
	}
	for _, n := range names[:4] {
		got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(n, "model_1/"))))
		if err != nil || string(got) != "content of "+n {
			t.Errorf("%s was unpacked as %q, %v", n, got, err)
		}
	}
	if err := store.WriteAll(t.Context(), b, "model_1/code/ä.py", []byte("changed"), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if now, changed := read(); bytes.Equal(data, changed) || now.ETag == was.ETag {
		t.Error("a changed file changes neither the archive nor what is listed of it")
	}
}

// TestHostileArchive: no name of an archive leads out of the folder.
func TestHostileArchive(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"../out", "/out", "a/../../out", ""} {
		var out bytes.Buffer
		z := zip.NewWriter(&out)
		if _, err := z.Create(name); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := folders.Unpack(out.Bytes(), filepath.Join(dir, "in")); !fleetscore.Invalid.Is(err) {
			t.Errorf("the name %q: %v, want it to be refused", name, err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
			t.Errorf("the name %q left %v, %v", name, left, err)
		}
	}
}

// named is a bucket of which only the names are asked.
type named struct {
	store.Bucket
	names []string
}

func sorted(names []string) []string { return slices.Sorted(slices.Values(names)) }

func (n *named) List(_ context.Context, _ string, _ store.ListOptions) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		for _, name := range sorted(n.names) {
			if !yield(store.Info{Name: fleetscore.BlobName(name)}, nil) {
				return
			}
		}
	}
}
