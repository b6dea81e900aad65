package versions

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

// files are the contents of a folder.
func files(t *testing.T, b store.Bucket) map[string]string {
	t.Helper()
	out := map[string]string{}
	for i, err := range b.List(t.Context(), "", store.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		data, err := store.ReadAll(t.Context(), b, i.Name)
		if err != nil {
			t.Fatal(err)
		}
		out[string(i.Name)] = string(data)
	}
	return out
}

func newDir(t *testing.T, content map[string]string) store.Bucket {
	t.Helper()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range content {
		if err := store.WriteAll(t.Context(), b, fleetscore.BlobName(name), []byte(text), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func push(t *testing.T, v *Versions, content map[string]string) error {
	t.Helper()
	var names []string
	for name := range content {
		names = append(names, name)
	}
	_, err := v.Push(t.Context(), newDir(t, content), names, Meta{Author: "eve", Now: time.Unix(1, 0)})
	return err
}

// TestHistory: whatever was pushed, copied into the folder by hand and rolled back, each
// version's files can be brought back.
func TestHistory(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		b := newDir(t, map[string]string{"models/f/a": "by hand", "models/f/other": "untouched"})
		v, folder := Of(b, "f", "models/f"), store.Sub(b, "models/f")
		states := []map[string]string{files(t, folder)}
		for step := range 12 {
			last := len(states) - 1
			if rng.IntN(4) == 0 {
				to := rng.IntN(len(states))
				_, err := v.Rollback(t.Context(), to, Meta{})
				if maps.Equal(states[to], states[last]) {
					if !fleetscore.Conflict.Is(err) {
						t.Fatalf("seed %d: a rollback that changes nothing: %v", seed, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				states = append(states, states[to])
			} else {
				content := map[string]string{}
				next := maps.Clone(states[last])
				for range 1 + rng.IntN(3) {
					name := string(rune('a' + rng.IntN(4)))
					content[name] = fmt.Sprint("content ", step, rng.IntN(2))
					next[name] = content[name]
				}
				if err := push(t, v, content); err != nil {
					t.Fatal(err)
				}
				states = append(states, next)
			}
			if d := cmp.Diff(states[len(states)-1], files(t, folder)); d != "" {
				t.Fatalf("seed %d, version %d:\n%s", seed, len(states)-1, d)
			}
		}
		list, err := v.List(t.Context(), 100)
		if err != nil || len(list) != len(states)-1 || list[0].Number != len(states)-1 || len(list[0].Changes) > 0 || list[0].Files == 0 {
			t.Errorf("versions: %+v, %v", list, err)
		}
	}
}

// TestInterrupted: a push that fails at any of its writes leaves the files as they were, or,
// once the version is recorded, Finish puts all of them in place.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	content := map[string]string{"a": "new a", "b": "new b", "c": "new c"}
	for n := 1; ; n++ {
		b := newDir(t, map[string]string{"models/f/a": "old a", "models/f/c": "old c"})
		folder, writes := store.Sub(b, "models/f"), 0
		before := files(t, folder)
		faulty := &storetest.Faulty{Bucket: b, Fail: func(op string, _ fleetscore.BlobName) error {
			if op == "put" {
				if writes++; writes >= n {
					return fleetscore.Errorf(fleetscore.Unavailable, op, "", "injected")
				}
			}
			return nil
		}}
		err := push(t, Of(faulty, "f", "models/f"), content)
		if err == nil {
			if n < 10 {
				t.Fatalf("only %d writes", n-1)
			}
			return
		}
		sound := Of(b, "f", "models/f")
		if err := sound.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		recorded, err := sound.List(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		want := before
		if len(recorded) > 0 {
			want = content
		}
		if d := cmp.Diff(want, files(t, folder)); d != "" {
			t.Errorf("write %d failed, %d versions are recorded:\n%s", n, len(recorded), d)
		}
	}
}

// TestBounds: the newest hundred versions are kept with their contents; what is older
// can't be brought back, and says so.
func TestBounds(t *testing.T) {
	t.Parallel()
	b := newDir(t, nil)
	v := Of(b, "f", "models/f")
	const n = Kept + 3
	for i := range n {
		if err := push(t, v, map[string]string{"a": fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := v.List(t.Context(), 1000); err != nil || len(list) != Kept {
		t.Errorf("%d versions are kept, %v", len(list), err)
	}
	if got := len(files(t, store.Sub(b, "models/_versions/f/files"))); got != Kept+1 {
		t.Errorf("%d contents are kept, want %d", got, Kept+1)
	}
	for to, want := range map[int]string{-1: "no version", n + 2: "no version", 2: "too old", 3: ""} {
		_, err := v.Rollback(t.Context(), to, Meta{})
		if want == "" && err != nil || want != "" && (!fleetscore.NotFound.Is(err) || !strings.Contains(err.Error(), want)) {
			t.Errorf("back to %d: %v, want %q", to, err, want)
		}
	}
	if got := files(t, store.Sub(b, "models/f"))["a"]; got != "2" {
		t.Errorf("after the rollback to version 3 the file is %q, want 2", got)
	}
}

// TestTwoAtOnce: of two that make the same version, one is refused.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	b := newDir(t, nil)
	var once bool
	racing := &storetest.Faulty{Bucket: b, Fail: func(op string, name fleetscore.BlobName) error {
		if op == "put" && strings.HasSuffix(string(name), ".json") && !once {
			once = true
			return push(t, Of(b, "f", "models/f"), map[string]string{"a": "the other"})
		}
		return nil
	}}
	if err := push(t, Of(racing, "f", "models/f"), map[string]string{"a": "mine"}); !fleetscore.Conflict.Is(err) {
		t.Errorf("got %v, want a conflict", err)
	}
	if got := files(t, store.Sub(b, "models/f"))["a"]; got != "the other" {
		t.Errorf("the file is %q", got)
	}
}

// restless is a folder whose file has another content each time that it is read.
type restless struct {
	store.Bucket
	reads int
}

// Get implements store.Bucket.
func (r *restless) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	r.reads++
	return io.NopCloser(strings.NewReader(fmt.Sprint("content ", r.reads))), nil
}

// TestChangedWhileRead: a file that changes while it is kept is refused, and nothing is kept
// under a digest that isn't its own.
func TestChangedWhileRead(t *testing.T) {
	t.Parallel()
	b := newDir(t, nil)
	v := Of(b, "f", "models/f")
	_, err := v.Push(t.Context(), &restless{Bucket: newDir(t, nil)}, []string{"model"}, Meta{Now: time.Unix(1, 0)})
	if !fleetscore.Unavailable.Is(err) || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("got %v", err)
	}
	if left := files(t, b); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
