package fleet

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var keyNames = []string{"Device", "Tag"}

func template(t *testing.T, s string) Template {
	t.Helper()
	out, err := ParseTemplate(s, keyNames)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ template, name, key string }{
		{"model_{Device}_{Tag}", "model_1_2", "1/2"},
		{"model_{Device}_{Tag}", "model_1_2.pkl", "1/2"},
		{"model_{Tag}_{Device}.pkl", "model_1_2.pkl", "2/1"},
		{"{Device}/m-{Tag}.bin", "a/m-b.bin", "a/b"},
		{"model_{Device}_{Tag}", "model_a%2Fb_c", "a/b/c"},
		{"model_{Device}_{Tag}", "model_1_2_3", ""}, // two ways
		{"model_{Device}_{Tag}", "model_1", ""},
		{"model_{Device}_{Tag}", "model__2", ""},
		{"model_{Device}_{Tag}", "README", ""},
		{"{Device}_x_{Tag}_y", "1_x_2_y", "1/2"},
	} {
		k, ok := template(t, tt.template).Match(tt.name)
		if ok != (tt.key != "") || k.String() != tt.key {
			t.Errorf("%s matches %s as %q, %v; want %q", tt.template, tt.name, k, ok, tt.key)
		}
	}
	for bad, want := range map[string]string{
		"model_{Device}": "{Tag} is missing", "{Device}{Tag}": "without a character between", "m_{Device}_{Tag}_{Tag}": "twice",
		"m_{Device}_{Tg}": "not a key column", "m_{Device_{Tag}": "not a key column", "m}_{Device}_{Tag}": "has no {", "m_{Device}_{Tag": "not closed",
	} {
		if _, err := ParseTemplate(bad, keyNames); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", bad, err, want)
		}
	}
}

// TestNameMatch: a key's name is never another key's, and always a sound blob
// name.
func TestNameMatch(t *testing.T) {
	t.Parallel()
	tmpl := template(t, "m_{Device}_{Tag}")
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.StringMatching(`[a-z_./\\% é]{1,8}`)
		k, err := fleetscore.NewKey(value.Draw(rt, "device"), value.Draw(rt, "tag"))
		if err != nil {
			rt.Fatal(err)
		}
		name := tmpl.Name(k)
		if err := store.CheckName(fleetscore.BlobName(name)); err != nil {
			rt.Fatal(err)
		}
		if got, ok := tmpl.Match(name); ok && got != k {
			rt.Fatalf("%q has the name %q, which matches %q", k, name, got)
		}
	})
}

func models(t *testing.T, n int) (store.Bucket, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "m")
	b, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		put(t, b, fmt.Sprintf("model_%d_%d", i/7, i%7), fmt.Sprint("bytes of ", i))
	}
	return b, dir
}

func put(t *testing.T, b store.Bucket, name, text string) {
	t.Helper()
	if err := store.WriteAll(t.Context(), b, fleetscore.BlobName(name), []byte(text), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestGenerations(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	src, _ := models(t, 100)
	put(t, src, "README.md", "hello")
	dst, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tmpl := template(t, "model_{Device}_{Tag}")
	if _, err := Current(ctx, dst, "f"); !fleetscore.NotFound.Is(err) {
		t.Errorf("before: got %v, want not found", err)
	}
	first, changed, err := Sync(ctx, src, dst, "f", tmpl)
	if err != nil || !changed || first.Members != 100 || !slices.Equal(first.Ignored, []string{"README.md"}) {
		t.Fatalf("first: %+v, %v, %v", first, changed, err)
	}
	if again, changed, err := Sync(ctx, src, dst, "f", tmpl); err != nil || changed || again.ID != first.ID {
		t.Errorf("again: %+v, %v, %v", again, changed, err)
	}
	put(t, src, "model_0_0", "new bytes, longer")
	second, changed, err := Sync(ctx, src, dst, "f", tmpl)
	if err != nil || !changed || second.ID == first.ID {
		t.Fatalf("second: %+v, %v, %v", second, changed, err)
	}
	if cur, err := Current(ctx, dst, "f"); err != nil || cur.ID != second.ID {
		t.Errorf("current: %+v, %v", cur, err)
	}
	seen := 0
	for _, r := range fleetscore.SplitShards(5) { // not the segments' ranges
		p, err := OpenPack(ctx, dst, "f", first.ID, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range p.Keys() {
			data, digest, err := p.Model(ctx, k)
			v := k.Values()
			var dev, tag int
			if _, e := fmt.Sscan(v[0]+" "+v[1], &dev, &tag); e != nil {
				t.Fatal(e)
			}
			if want := fmt.Sprint("bytes of ", dev*7+tag); err != nil || string(data) != want || digest != fleetscore.DigestOf(data) || !r.Contains(k.Shard()) {
				t.Errorf("%s: %q, %v, %v; want %q", k, data, digest, err, want)
			}
			seen++
		}
		if _, _, err := p.Model(ctx, "9\x1fx"); !fleetscore.NotFound.Is(err) {
			t.Errorf("unknown key: got %v, want not found", err)
		}
	}
	if seen != 100 {
		t.Errorf("the ranges hold %d models, want 100", seen)
	}
}

func TestTwoModelsOneKey(t *testing.T) {
	t.Parallel()
	src, _ := models(t, 3)
	put(t, src, "model_0_1.pkl", "x")
	_, err := Scan(t.Context(), src, template(t, "model_{Device}_{Tag}"))
	if !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), "model_0_1 and model_0_1.pkl") {
		t.Errorf("got %v, want a conflict that names both", err)
	}
}

// TestSyncFaults lets each write fail in turn: the old generation stays current
// and whole, and the next Sync succeeds.
func TestSyncFaults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	tmpl := template(t, "model_{Device}_{Tag}")
	for nth := 1; ; nth++ {
		src, _ := models(t, 20)
		inner, err := store.OpenDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		first, _, err := Sync(ctx, src, inner, "f", tmpl)
		if err != nil {
			t.Fatal(err)
		}
		put(t, src, "model_9_9", "another")
		puts := 0
		faulty := &storetest.Faulty{Bucket: inner, Fail: func(op string, name fleetscore.BlobName) error {
			if op == "put" {
				if puts++; puts == nth {
					return fleetscore.Errorf(fleetscore.Unavailable, op, string(name), "injected")
				}
			}
			return nil
		}}
		if _, _, err = Sync(ctx, src, faulty, "f", tmpl); err == nil {
			if nth < 2*segments {
				t.Fatalf("the fault of put %d never struck", nth)
			}
			return
		}
		cur, e := Current(ctx, inner, "f")
		if e != nil || cur.ID != first.ID {
			t.Fatalf("after fault %d (%v): current is %v, %v; want %s", nth, err, cur, e, first.ID)
		}
		if g, changed, err := Sync(ctx, src, inner, "f", tmpl); err != nil || !changed || g.Members != 21 {
			t.Fatalf("after fault %d: %+v, %v, %v", nth, g, changed, err)
		}
	}
}
