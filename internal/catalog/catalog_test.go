package catalog

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// inFolder is a catalog of a store in a folder.
func inFolder(t *testing.T) (dir string, b store.Bucket, c *Catalog) {
	t.Helper()
	dir = t.TempDir()
	b, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir, b, New(b)
}

func openTemp(t *testing.T) store.Bucket {
	t.Helper()
	_, b, _ := inFolder(t)
	return b
}

// ctxOf is the context of a test or of a property's case.
func ctxOf(t any) context.Context {
	if c, ok := t.(interface{ Context() context.Context }); ok {
		return c.Context()
	}
	return context.Background()
}

// TestLayout holds what docs/formats/store.md says.
func TestLayout(t *testing.T) {
	t.Parallel()
	got := []string{DatasetFolder("readings"), PredictionsFolder("anomalies"), CoverageFolder("anomalies"), PackFolder("sensors"),
		string(LateReadings("readings", 3, 10, 12)), string(TaskLog(fleetscore.Job{Pipeline: "anomalies", ID: "anomalies-1"}, 7, 2, "stderr")),
		string(TaskLog(fleetscore.Job{Pipeline: "anomalies", ID: "anomalies-1", Config: fleetscore.PipelineConfig{Logs: fleetscore.LogsConfig{Layout: fleetscore.LogsFlat}}}, 7, 2, "stderr")),
		string(Timing("anomalies", "anomalies-1", 7, 2)), string(NodeLog("cpu", "cpu-1")), string(NodeOutput("cpu", "cpu-1")),
		string(Output("anomalies", "anomalies-1", 7, 2, "Device=1/preds.csv"))}
	want := []string{"data/readings", "predictions/anomalies", "predictions/anomalies/_coverage", "models/sensors/_pack",
		"data/readings/_late/p003-10-12.ndjson", "logs/anomalies/anomalies-1/007/2/stderr.txt", "logs/anomalies/anomalies-1/007-2-stderr.txt", "logs/anomalies/anomalies-1/timing-007-2.parquet", "logs/nodes/cpu/cpu-1.txt", "logs/nodes/cpu/cpu-1.output.txt",
		"predictions/anomalies/_output/anomalies-1/007/2/Device=1/preds.csv"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDatasets(t *testing.T) {
	t.Parallel()
	b := openTemp(t)
	for _, name := range []string{"data/b/x", "data/a/_delta_log/y", "data/stray", "data/Odd Name/x", "predictions/p/x"} {
		if err := store.WriteAll(t.Context(), b, fleetscore.BlobName(name), nil, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := New(b).Datasets(t.Context())
	if diff := cmp.Diff([]string{"a", "b"}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

// TestTablesAreShared: what one room reads of a table's log serves the others. The
// number of remembered tables is bounded, as names come from requests.
func TestTablesAreShared(t *testing.T) {
	t.Parallel()
	c := New(openTemp(t))
	first := c.Dataset("a")
	if first != c.Dataset("a") || first == c.Predictions("a").Delta || c.Coverage("a").Delta == c.Predictions("a").Delta {
		t.Error("a table isn't opened exactly once")
	}
	if one, other := c.Coverage("a"), c.Coverage("a"); one != other {
		t.Error("what is remembered of a coverage isn't shared")
	}
	for i := range maxTables + 10 {
		c.Dataset(fmt.Sprint("d", i))
	}
	if len(c.tables) > maxTables {
		t.Errorf("%d tables are remembered, at most %d may be", len(c.tables), maxTables)
	}
}

func TestCompleteUntil(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		txns map[string]int64
		want fleetscore.Micros
		ok   bool
	}{
		{map[string]int64{}, 0, false},
		{map[string]int64{"query/q/p0/complete_until": 7, "query/q/partitions": 2}, 7, false},
		{map[string]int64{"query/q/p0/complete_until": 7, "query/q/p1/complete_until": 5, "query/q/partitions": 2}, 5, true},
		{map[string]int64{"upload/complete_until": -3, "upload/abc": 9}, -3, true},
		{map[string]int64{"upload/complete_until": 1e15 + 1}, 1e15, true}, // never after now
	} {
		if got, ok := CompleteUntil(&table.Snapshot{Txns: c.txns}, time.UnixMicro(1e15)); got != c.want && c.ok || ok != c.ok {
			t.Errorf("%v: got %d, %v, want %d, %v", c.txns, got, ok, c.want, c.ok)
		}
	}
}
