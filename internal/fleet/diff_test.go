package fleet

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestDiff: two generations, of one fleet or of two, differ in the sensors that were
// added and removed, and in those whose model's file has another content, class or
// release.
func TestDiff(t *testing.T) {
	t.Parallel()
	ctx, b := t.Context(), dir(t)
	src, vary := models(t, 60), variants(t)
	first := syncTo(t, src, PackFolder(b, "f")).Generation
	older, err := os.ReadFile(filepath.Join(testkit.Root(t), "sklearn", "testdata", "0.24.2", "nested.p5.pickle"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, src, "model_1_0", vary(99))
	put(t, src, "model_1_1", older)
	put(t, src, "model_1_2", []byte("this is no model"))
	put(t, src, "model_new_1", vary(5))
	if err := src.Delete(ctx, "model_2_3"); err != nil {
		t.Fatal(err)
	}
	second := syncTo(t, src, PackFolder(b, "f")).Generation
	syncTo(t, src, PackFolder(b, "g"))
	key := func(values ...string) fleetscore.Key {
		k, err := fleetscore.NewKey(values...)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	diff := func(from, to Ref) (map[fleetscore.Key]MemberChange, Changes) {
		t.Helper()
		got := map[fleetscore.Key]MemberChange{}
		total, err := Diff(ctx, b, from, to, func(c MemberChange) error { got[c.Key] = c; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return got, total
	}
	for name, to := range map[string]Ref{"the fleet's own": {Fleet: "f"}, "another fleet's": {Fleet: "g"}} {
		got, total := diff(Ref{"f", first.ID}, to)
		want := Changes{A: Ref{"f", first.ID}, B: Ref{to.Fleet, total.B.Generation}, MembersA: 60, MembersB: 60, Added: 1, Removed: 1, Changed: 3, Classes: 2, Releases: 1, Same: 56}
		if d := cmp.Diff(want, total); d != "" || total.B.Generation == "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		what := map[fleetscore.Key]string{}
		for k, c := range got {
			what[k] = c.What()
		}
		if d := cmp.Diff(map[fleetscore.Key]string{key("1", "0"): "content", key("1", "1"): "class, release, content", key("1", "2"): "class, content", key("new", "1"): "added", key("2", "3"): "removed"}, what); d != "" {
			t.Errorf("%s: what differs (-want +got):\n%s", name, d)
		}
		old := got[key("1", "1")].B
		if old == nil || old.Releases != "0.24.2" || old.File != "model_1_1" || old.Digest != fleetscore.DigestOf(older) || got[key("1", "2")].B.Problem == "" {
			t.Errorf("%s: the models %+v, %+v", name, old, got[key("1", "2")].B)
		}
	}
	if got, total := diff(Ref{"f", second.ID}, Ref{Fleet: "f"}); len(got) != 0 || total.Same != 60 {
		t.Errorf("a generation differs from itself: %v, %+v", got, total)
	}
	for _, r := range []Ref{{Fleet: "none"}, {"f", "0123"}} {
		if _, err := Diff(ctx, b, Ref{Fleet: "f"}, r, nil); !fleetscore.NotFound.Is(err) {
			t.Errorf("%s: %v, want not found", r, err)
		}
	}
}
