package fleet

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
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
		{"model_{Device}_{Tag}", "model_1_2.joblib", "1/2"},
		{"model_{Device}_{Tag}", "model_1_2.ONNX", "1/2"},
		{"model_{Device}_{Tag}", "model_1_2.skops", "1/2"},
		{"model_{Device}_{Tag}", "model_1_2.pkl.gz", "1/2"},
		{"model_{Device}_{Tag}", "model_1_2.xz", "1/2"},
		{"model_{Device}_{Tag}", "model_1_2.5", "1/2.5"},
		{"model_{Device}_{Tag}", "model_1_a.b.pickle", "1/a.b"},
		{"model_{Device}_{Tag}", "x/model_1_2", ""},
		{"model_{Device}_{Tag}.pkl", "model_1_2.pkl.gz", "1/2"},
		{"model_{Device}_{Tag}.pkl", "model_1_2.joblib", ""},
		{"model_{Device}_{Tag}.*", "model_1_2.whatever", "1/2"},
		{"model_{Device}_{Tag}.*", "model_1_2", "1/2"},
		{"{Device}/{Tag}/model.pkl", "a/b/model.pkl", "a/b"},
		{"**/model_{Device}_{Tag}", "model_1_2", "1/2"},
		{"**/model_{Device}_{Tag}", "x/y/model_1_2.pkl", "1/2"},
		{"**/{Device}/{Tag}.*", "x/y/1/2.m", "1/2"},
		{"**/{Device}/{Tag}.*", "1/2.m", "1/2"},
		{"**/{Device}/{Tag}.*", "2.m", ""},
	} {
		k, ok := template(t, tt.template).Match(tt.name)
		if ok != (tt.key != "") || k.String() != tt.key {
			t.Errorf("%s matches %s as %q, %v; want %q", tt.template, tt.name, k, ok, tt.key)
		}
	}
	for bad, want := range map[string]string{
		"model_{Device}": "{Tag} is missing", "{Device}{Tag}": "without a character between", "m_{Device}_{Tag}_{Tag}": "twice",
		"m_{Device}_{Tg}": "not a key column", "m_{Device_{Tag}": "not a key column", "m}_{Device}_{Tag}": "has no {", "m_{Device}_{Tag": "not closed", "*_{Device}_{Tag}": "may only stand",
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

func TestTwoModelsOneKey(t *testing.T) {
	t.Parallel()
	src := models(t, 3)
	put(t, src, "model_0_1.pkl", []byte("x"))
	f, err := Scan(t.Context(), src, template(t, "model_{Device}_{Tag}"))
	if err != nil || f.Len() != 3 {
		t.Fatalf("%d members, %v", f.Len(), err)
	}
	if _, _, err := f.Model(t.Context(), "0\x1f1"); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), "model_0_1 and model_0_1.pkl") {
		t.Errorf("got %v, want an error that names both", err)
	}
	if _, _, err := f.Model(t.Context(), "0\x1f0"); err != nil {
		t.Error(err)
	}
}
