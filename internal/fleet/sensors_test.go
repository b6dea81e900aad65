package fleet

import (
	"archive/zip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"pressure*", "pressure_1", true}, {"pressure*", "pressure", true}, {"pressure*", "a pressure", false},
		{"*sure*", "a pressure 1", true}, {"p?e", "pre", true}, {"p?e", "pé", false}, {"p?", "pé", true}, {"*", "", true}, {"", "", true},
		{"", "x", false}, {"*/x", "a/b/x", true}, {"a*b*c", "aXbYbZc", true}, {"a*b*c", "aXbYbZ", false}, {"**", "x", true},
	} {
		if got := fits(tt.pattern, tt.s); got != tt.want {
			t.Errorf("%q fits %q: %v", tt.pattern, tt.s, got)
		}
	}
}

// TestListOfSensors: the list says which sensors are expected; a model comes from
// its column, else from the template, else from the first default that fits.
func TestListOfSensors(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	vary := variants(t)
	for _, form := range []struct{ name, text string }{
		{"lists/sensors.csv", "Note,Tag,Device,model\nx,pressure,1,../own/special.bin\ny,pressure,2,\nz,pressure,3,\nz,speed,1,\nz,speed,2,gone\n"},
		{"lists/sensors.ndjson", `{"Device":1,"Tag":"pressure","model":"../own/special.bin"}
{"Device":2,"Tag":"pressure"}

{"Device":3,"Tag":"pressure","model":""}
{"Device":"1","Tag":"speed"}
{"Device":"2","Tag":"speed","model":"gone"}`},
	} {
		src, dst := dir(t), dir(t)
		put(t, src, form.name, []byte(form.text))
		put(t, src, "own/special.bin", vary(1))
		put(t, src, "model_2_pressure.pkl", vary(2))
		put(t, src, "model_9_pressure.pkl", vary(3)) // not listed
		put(t, src, "default_pressure", vary(4))
		spec := spec
		spec.Sensors = form.name
		spec.Defaults = []Default{{When: map[string]string{"Tag": "press*", "Device": "*"}, Model: "default_pressure"}, {When: map[string]string{"Tag": "none"}, Model: "nowhere"}}
		c, err := Sync(ctx, src, dst, spec, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(c.Generation.Ignored, []string{"model_9_pressure.pkl"}) || c.Generation.Members != 5 || c.Read != 3 {
			t.Errorf("%s: %+v", form.name, c)
		}
		p := open(t, dst, c.Generation, fleetscore.AllShards, maxHeldBytes)
		folder, err := ScanSpec(ctx, src, spec)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p.Keys(), folder.Keys()); diff != "" {
			t.Errorf("pack and folder differ: %s", diff)
		}
		for key, want := range map[fleetscore.Key][]byte{"1\x1fpressure": vary(1), "2\x1fpressure": vary(2), "3\x1fpressure": vary(4)} {
			for _, s := range []Source{p, folder} {
				if _, digest, err := s.Model(ctx, key); err != nil || digest != fleetscore.DigestOf(want) {
					t.Errorf("%s, %T, %s: %v, %v", form.name, s, key, digest, err)
				}
			}
		}
		for _, s := range []Source{p, folder} {
			if _, _, err := s.Model(ctx, "1\x1fspeed"); !fleetscore.NotFound.Is(err) {
				t.Errorf("%s, %T: a sensor without a model: %v", form.name, s, err)
			}
			if _, _, err := s.Model(ctx, "2\x1fspeed"); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), "lists/gone isn't there") {
				t.Errorf("%s, %T: a file that isn't there: %v", form.name, s, err)
			}
		}
		if again, err := Sync(ctx, src, dst, spec, Options{}); err != nil || again.New || again.Read != 0 {
			t.Errorf("%s again: %+v, %v", form.name, again, err)
		}
		put(t, src, "lists/gone", vary(5))
		if c, err := Sync(ctx, src, dst, spec, Options{}); err != nil || !c.New || c.Read != 1 || c.Changed != 1 {
			t.Errorf("%s, the file came: %+v, %v", form.name, c, err)
		}
	}
}

func TestBadLists(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"s.csv", "", "is empty"},
		{"s.csv", "Device,Name\n1,2\n", "s.csv:1: column Tag is missing"},
		{"s.csv", "Device,Tag\n1,2\n,3\n", "s.csv:3: value 1 of 2 is empty"},
		{"s.csv", "Device,Tag\n1,2\n1\n", "s.csv:3: "},
		{"s.csv", "Device,Tag\n1,2\n3,4\n1,2\n", "s.csv:4: sensor 1/2 stands in line 2 already"},
		{"s.csv", "Device,Tag,model\n1,2,/etc/passwd\n", "s.csv:2: model /etc/passwd: write a path relative"},
		{"s.csv", "Device,Tag,model\n1,2,../x\n", "s.csv:2: model ../x"},
		{"s.ndjson", "{\"Device\":1,\"Tag\":2}\nnull,\n", "s.ndjson:2: it is no JSON object"},
		{"s.ndjson", "{\"Device\":1,\"Tag\":true}", "s.ndjson:1: Tag is missing"},
		{"s.txt", "x", "isn't known"},
		{"", "", "isn't in the models' folder"},
	} {
		src := dir(t)
		if tt.name != "" {
			put(t, src, tt.name, []byte(tt.text))
		}
		spec := spec
		if spec.Sensors = tt.name; tt.name == "" {
			spec.Sensors = "other.csv"
		}
		if _, err := ScanSpec(t.Context(), src, spec); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want an error with %q", tt.text, err, tt.want)
		}
	}
}

// TestSharedModel: a model that many sensors have is stored once, and followed
// when it changes.
func TestSharedModel(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	src, dst, vary := dir(t), dir(t), variants(t)
	const n = 5000
	text := "Device,Tag\n"
	for i := range n {
		text += fmt.Sprintf("%d,a\n", i)
	}
	put(t, src, "sensors.csv", []byte(text))
	put(t, src, "default", vary(1))
	put(t, src, "model_7_a", vary(2))
	spec := spec
	spec.Sensors, spec.Defaults = "sensors.csv", []Default{{Model: "default"}}
	check := func(c *Change, read, changed int64, isNew bool, want []byte) {
		t.Helper()
		if c.Read != read || c.Changed != changed || c.New != isNew || c.Generation.Shared == nil {
			t.Fatalf("%+v", c)
		}
		for _, how := range []int64{maxHeldBytes, 0} {
			p := open(t, dst, c.Generation, fleetscore.AllShards, how)
			for _, k := range p.Keys() {
				_, digest, err := p.Model(ctx, k)
				if wanted := fleetscore.DigestOf(want); err != nil || digest != wanted && k != "7\x1fa" {
					t.Fatalf("%s: %v, %v", k, digest, err)
				}
			}
			if _, digest, err := p.Model(ctx, "7\x1fa"); err != nil || digest != fleetscore.DigestOf(vary(2)) {
				t.Errorf("own model: %v, %v", digest, err)
			}
		}
		var bodies int64
		for _, s := range append(c.Generation.Segments, *c.Generation.Shared) {
			bodies += s.SizeBytes - s.IndexBytes
		}
		if m, _, _ := open(t, dst, c.Generation, fleetscore.AllShards, maxHeldBytes).Model(ctx, "7\x1fa"); bodies != 2*int64(len(m)) {
			t.Errorf("bodies take %d bytes, a record %d", bodies, len(m))
		}
	}
	sync := func() *Change {
		t.Helper()
		c, err := Sync(ctx, src, dst, spec, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	check(sync(), 2, 0, true, vary(1))
	check(sync(), 0, 0, false, vary(1))
	put(t, src, "default", vary(3))
	check(sync(), 1, n-1, true, vary(3))
	check(sync(), 0, 0, false, vary(3))
}

// TestHealthOfReference: exactly four of the reference's models flag every row,
// and all are too old for a current scikit-learn.
func TestHealthOfReference(t *testing.T) {
	t.Parallel()
	dst := dir(t)
	src := dir(t)
	models := filepath.Join(testkit.Reference(t), "models")
	files, err := os.ReadDir(models)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(models, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		put(t, src, f.Name(), data)
	}
	h := syncTo(t, src, dst).Generation.Health
	if len(h.Kinds) != 1 || h.Kinds[0].Estimators != "StandardScaler → OneClassSVM" || h.Kinds[0].Releases != "0.19.2" || h.Kinds[0].Models != 15 || h.Kinds[0].Features != 1 {
		t.Errorf("kinds: %+v", h.Kinds)
	}
	if len(h.Causes) != 2 || h.Causes[0].Code != FlagsEveryRow || h.Causes[1].Code != TooOldModel || h.Causes[1].Sensors != 15 {
		t.Fatalf("causes: %+v", h.Causes)
	}
	var names []string
	for _, m := range h.Causes[0].Members {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	if want := []string{"model_1_2", "model_1_5", "model_2_5", "model_3_4"}; !slices.Equal(names, want) {
		t.Errorf("%v flag every row, want %v", names, want)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	src, dst, vary := models(t, 10), dir(t), variants(t)
	put(t, src, "model_5_0", []byte("cos\nsystem\n."))
	put(t, src, "model_5_1", []byte("cos\nsystem\n.x"))
	put(t, src, "model_5_2", []byte("\x80\x04]"))
	put(t, src, "model_5_3", []byte("\x80\x04]]]"))
	for i, class := range []string{"xgboost.sklearn\nXGBClassifier", "lightgbm.sklearn\nLGBMClassifier", "pyod.models.knn\nKNN"} {
		put(t, src, fmt.Sprintf("model_5_%d", 4+i), []byte("c"+class+"\n)\x81}b."))
	}
	put(t, src, "model_6_0", vary(0)) // as model_0_0
	put(t, src, "model_6_1", vary(77))
	put(t, src, "model_6_1.pkl", vary(78))
	put(t, src, "model_7_0", constantModel(t))
	g := syncTo(t, src, dst).Generation
	var got []string
	for _, c := range g.Health.Causes {
		got = append(got, fmt.Sprint(c.Code, " ", c.Sensors))
	}
	if want := []string{"holds_code 2", "unreadable 2", "unreadable 1", "unsupported 1", "unsupported 1", "unsupported 1", "constant 1", "duplicate 2"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v: %+v", got, want, g.Health.Causes)
	}
	if h, i := g.Health.Against("pipeline p", []string{"a", "b", "c"}, ""), 6; h.Causes[i].Code != WrongFeatures || h.Causes[i].Sensors < 11 || !strings.Contains(h.Causes[i].Message, "takes 1 features, pipeline p has 3") {
		t.Errorf("%+v", h.Causes)
	}
	if h := g.Health.Against("pipeline p", []string{"a"}, ""); len(h.Causes) != len(g.Health.Causes) {
		t.Errorf("%+v", h.Causes)
	}
}

// constantModel is a classifier that knows one class.
func constantModel(t *testing.T) []byte {
	t.Helper()
	z, err := zip.OpenReader(filepath.Join(testkit.Root(t), "sklearn", "testdata", "random", "0.24.2.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	f, err := z.Open("dummy_7.pickle")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
