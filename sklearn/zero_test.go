package sklearn

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// TestZeroModel: a zero Model returns errors, and never panics.
func TestZeroModel(t *testing.T) {
	t.Parallel()
	var m Model
	if m.NumFeatures() != 0 || m.OutlierDetector() || m.Classes() != nil || m.Methods() != nil || m.Outputs(Predict) != 0 || m.Degenerate() || m.FeatureNames() != nil || m.Named() || !m.HasFeatureNames(nil) || m.Label(2) != "2" {
		t.Error("the zero Model has content")
	}
	if i := m.Info(); len(i.Steps) != 0 || len(i.Health) != 0 || i.Chain() != "" || i.Degenerate() {
		t.Errorf("%+v", i)
	}
	_, _, err := m.Predict([][]float64{{1}})
	_, err2 := m.AppendRecord(nil)
	for what, err := range map[string]error{
		"Predict": err, "AppendRecord": err2,
		"PredictInto":    m.PredictInto([]float64{1}, 1, make([]float64, 1), nil, nil),
		"PredictColumns": m.PredictColumns([][]float64{{1}}, make([]float64, 1), nil, nil),
		"Call":           m.Call(Transform, []float64{1}, 1, make([]float64, 1), nil),
	} {
		if !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), "empty") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestFailedRead: after a failed Read, the model of the earlier Read is empty.
func TestFailedRead(t *testing.T) {
	t.Parallel()
	record := benchModels(t, "ref_1")[0].record
	var records RecordReader
	m, err := records.Read(record)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := records.Read(record[:len(record)-8]); !fleetscore.Corrupt.Is(err) {
		t.Errorf("a cut record: %v", err)
	}
	if err := m.PredictInto([]float64{1}, 1, make([]float64, 1), nil, nil); !fleetscore.Invalid.Is(err) {
		t.Errorf("the model before: %v", err)
	}
	if _, err := records.Read(record); err != nil {
		t.Error(err)
	}
}

// TestDependencies: a program that imports this package gets no web server and no
// database with it.
func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 30 {
		t.Fatalf("only %d packages", len(deps))
	}
	for _, no := range []string{"net", "net/http", "os/exec", "database/sql", "log/slog"} {
		if slices.Contains(deps, no) {
			t.Errorf("it depends on %s", no)
		}
	}
}
