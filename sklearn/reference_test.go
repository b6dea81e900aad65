package sklearn

import (
	"encoding/csv"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// referenceRow is a row of the reference fleet's expected predictions.
type referenceRow struct {
	value, prediction, decision float64
}

// readReference returns the rows of each model, by the model's file name.
func readReference(t testing.TB, dir string) map[string][]referenceRow {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "expected_predictions.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	number := func(s string) float64 {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	out := map[string][]referenceRow{}
	for _, r := range records[1:] {
		name := "model_" + r[1] + "_" + r[2]
		out[name] = append(out[name], referenceRow{number(r[3]), number(r[4]), number(r[5])})
	}
	return out
}

// TestReferenceFleet is the acceptance test: the 15 models of the reference
// architecture give its labels on its data.
func TestReferenceFleet(t *testing.T) {
	t.Parallel()
	dir := testkit.Reference(t)
	fleet := readReference(t, dir)
	if len(fleet) != 15 {
		t.Fatalf("%d models in the expected predictions, want 15", len(fleet))
	}
	rows, anomalies, everything := 0, 0, 0
	worst := 0.0
	var scratch Scratch
	for name, want := range fleet {
		data, err := os.ReadFile(filepath.Join(dir, "models", name))
		if err != nil {
			t.Fatal(err)
		}
		m, err := Load(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		x := make([]float64, len(want))
		for i, r := range want {
			x[i] = r.value
		}
		prediction, score := make([]float64, len(x)), make([]float64, len(x))
		if err := m.PredictInto(x, len(x), prediction, score, &scratch); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		flagged := 0
		for i, r := range want {
			// The file has 1 for an anomaly where scikit-learn has -1.
			got := 0.0
			if prediction[i] == -1 {
				got = 1
				flagged++
			}
			if got != r.prediction {
				t.Errorf("%s row %d (%v): label %v, want %v; decision %v, want %v", name, i, r.value, got, r.prediction, score[i], r.decision)
			}
			worst = max(worst, math.Abs(score[i]-r.decision))
		}
		rows += len(x)
		anomalies += flagged
		info := m.Info()
		if info.Chain() != "StandardScaler → OneClassSVM" || info.Features != 1 || info.Protocol != 3 || !m.OutlierDetector() {
			t.Errorf("%s: unexpected info %+v", name, info)
		}
		if info.Degenerate() {
			everything++
		}
		if info.Degenerate() != (flagged == len(x)) {
			t.Errorf("%s: degenerate %v, but %d of %d rows are flagged", name, info.Degenerate(), flagged, len(x))
		}
	}
	if rows != 17768 || anomalies != 6757 || everything != 4 {
		t.Errorf("%d rows, %d anomalies, %d models that flag everything; want 17768, 6757, 4", rows, anomalies, everything)
	}
	if worst > 1e-15 {
		t.Errorf("largest difference of a decision %g, want at most 1e-15", worst)
	}
	t.Logf("%d rows, %d anomalies, largest difference of a decision %g", rows, anomalies, worst)
}
