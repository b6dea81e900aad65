package sklearn

import (
	"archive/zip"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestHealth: a model's faults are named, and a model without faults has none. A model
// that is said to predict the same for every row does so.
func TestHealth(t *testing.T) {
	t.Parallel()
	z, err := zip.OpenReader("testdata/health.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Load(data)
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		want, _, _ := strings.Cut(f.Name, ".")
		for _, m := range []*Model{m, viaRecord(t, m)} {
			got := []string{}
			for _, h := range m.Info().Health {
				got = append(got, string(h.Code))
				if !strings.Contains(h.Message, "because") {
					t.Errorf("%s: %s gives no reason", f.Name, h.Message)
				}
			}
			if s := strings.Join(got, " "); s != want && (want != "well" || s != "") {
				t.Errorf("%s: health %q", f.Name, s)
			}
			if m.Degenerate() != (want != "well") {
				t.Errorf("%s: degenerate %v", f.Name, m.Degenerate())
			}
		}
		const rows = 400
		rng := rand.New(rand.NewPCG(1, 1))
		x, prediction := make([]float64, 0, 2*rows), make([]float64, rows)
		for i := range rows {
			scale := []float64{0.1, 1, 3, 100}[i%4]
			x = append(x, rng.NormFloat64()*scale, rng.NormFloat64()*scale)
		}
		if err := m.Call(Predict, x, rows, prediction, nil); err != nil {
			t.Fatal(err)
		}
		same := true
		for _, p := range prediction {
			same = same && p == prediction[0]
		}
		if same != (want != "well") {
			t.Errorf("%s: all predictions are the same: %v", f.Name, same)
		}
		if want == "flags_everything" && prediction[0] != -1 || want == "flags_nothing" && prediction[0] != 1 {
			t.Errorf("%s predicts %v", f.Name, prediction[0])
		}
	}
}
