package fleet

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// holds reports whether any file below a folder holds the text.
func holds(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if bytes.Contains(data, []byte(text)) {
			found = append(found, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestKeepsNoOtherFiles: of files that are no models a pack keeps nothing, and
// symbolic links that lead out of the folder cost their sensors, and are counted.
func TestKeepsNoOtherFiles(t *testing.T) {
	t.Parallel()
	const secret = "a password that nobody may read"
	outside, in, out := t.TempDir(), t.TempDir(), t.TempDir()
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(in, name)); err != nil {
			t.Fatal(err)
		}
	}
	write(outside, "secret", secret)
	write(in, "model_0_0", string(variants(t)(1)))
	write(in, "model_0_1", "text\n"+secret)
	write(in, "model_0_2", "config\nfile\n"+secret)           // its beginning reads as a pickle's
	write(in, "model_0_3", "\x80\x04\x8c\x05hello.\n"+secret) // a pickle of something else
	link(filepath.Join(outside, "secret"), "model_0_4")
	link(outside, "model_0_5")
	link("nowhere", "model_0_6")
	link("model_0_0", "model_0_7")
	link(filepath.Join(outside, "secret"), "other")
	src, err := store.OpenFolder(in)
	if err != nil {
		t.Fatal(err)
	}
	dst, err := store.OpenDir(out)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Sync(t.Context(), src, dst, spec, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if found := holds(t, out, secret); len(found) > 0 {
		t.Errorf("%q hold what isn't a model", found)
	}
	if h := c.Generation.Health; h.Native != 2 || c.Generation.Members != 8 {
		t.Errorf("got %d of %d native, want 2 of 8: %+v", h.Native, c.Generation.Members, h.Causes)
	}
	links := int64(0)
	for _, cause := range c.Generation.Health.Causes {
		if strings.Contains(cause.Message, "symbolic link") {
			links += cause.Sensors
		}
	}
	if links != 3 || len(c.Generation.Ignored) != 1 {
		t.Errorf("got %d links in the causes and %q ignored, want 3 and [other]: %+v", links, c.Generation.Ignored, c.Generation.Health.Causes)
	}
	p := open(t, dst, c.Generation, fleetscore.AllShards, maxHeldBytes)
	for _, k := range []fleetscore.Key{"0\x1f1", "0\x1f2", "0\x1f3", "0\x1f4"} {
		if data, _, _, err := p.Original(t.Context(), k); !fleetscore.Invalid.Is(err) {
			t.Errorf("%s: the pack gives %q, %v", k, data, err)
		}
		if _, _, err := p.Model(t.Context(), k); !fleetscore.Invalid.Is(err) {
			t.Errorf("%s: got %v, want an error of kind invalid", k, err)
		}
	}
	again, err := Sync(t.Context(), src, dst, spec, Options{})
	if err != nil || again.New || again.Read != 0 {
		t.Errorf("again: new %v, %d read, %v; want no file read", again.New, again.Read, err)
	}
}

// TestLinkInList: a list of sensors can't name a file out of the folder either.
func TestLinkInList(t *testing.T) {
	t.Parallel()
	in, outside := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	for name, text := range map[string]string{outside: "secret", filepath.Join(in, "sensors.csv"): "Device,Tag,model\n0,0,linked\n0,1,gone\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(in, "linked")); err != nil {
		t.Fatal(err)
	}
	src, err := store.OpenFolder(in)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ScanSpec(t.Context(), src, Spec{Fleet: "f", KeyNames: keyNames, Sensors: "sensors.csv"})
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[fleetscore.Key]string{"0\x1f0": "symbolic link", "0\x1f1": "isn't there"} {
		if _, _, err := f.Model(t.Context(), k); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", k, err, want)
		}
	}
}

// measured counts how many bytes of large files are read at a time.
type measured struct {
	store.Bucket
	open, most chan int64
	size       int64
}

func (m measured) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	r, err := m.Bucket.Get(ctx, name, offset, length)
	n := <-m.open + m.size
	most := <-m.most
	m.open <- n
	m.most <- max(most, n)
	return &closing{r, m}, err
}

type closing struct {
	io.ReadCloser
	m measured
}

func (c *closing) Close() error {
	c.m.open <- <-c.m.open - c.m.size
	return c.ReadCloser.Close()
}

// TestLargeFilesTakeTurns: files that are read and compiled at a time stay within
// a budget however many there are, and those beyond the limit aren't read.
func TestLargeFilesTakeTurns(t *testing.T) {
	t.Parallel()
	const size = 100 << 20 // sparse files: nothing of them lies on the disk
	in := t.TempDir()
	for _, name := range []string{"model_0_0", "model_0_1"} {
		f, err := os.Create(filepath.Join(in, name))
		if err == nil {
			err = f.Truncate(size)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	src, err := store.OpenFolder(in)
	if err != nil {
		t.Fatal(err)
	}
	m := measured{Bucket: src, open: make(chan int64, 1), most: make(chan int64, 1), size: size}
	m.open <- 0
	m.most <- 0
	c, err := Sync(t.Context(), m, dir(t), spec, Options{MaxModelBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if most := <-m.most; most != 0 || c.Generation.Members != 2 || !strings.Contains(c.Generation.Health.Causes[0].Message, "more than the 67108864 allowed") {
		t.Errorf("%d bytes were read at a time of files beyond the limit: %+v", most, c.Generation.Health.Causes)
	}
	m.most <- 0
	if _, err = Sync(t.Context(), m, dir(t), spec, Options{MaxModelBytes: 512 << 20}); err != nil {
		t.Fatal(err)
	}
	if most := <-m.most; most != size {
		t.Errorf("%d MB of files were read at a time, want one file of %d MB", most>>20, size>>20)
	}
}
