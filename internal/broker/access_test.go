package broker

import (
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// TestAccess: a lease opens its task's inputs and outputs, and only while it lasts.
func TestAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	j := w.queue("j1")
	l := w.lease("a")
	mine := "predictions/p/date=2026-11-23/hour=09/" + string(j.ID) + "-s000-031-1.parquet"
	for _, tt := range []struct {
		name  string
		write bool
		want  bool
	}{
		{"data/" + l.Dataset + "/date=2026-11-23/x.parquet", false, true},
		{"data/" + l.Dataset + "/_delta_log/", false, true},
		{"data/" + l.Dataset + "2/x", false, false},
		{"data/" + l.Dataset + "/" + string(j.ID) + "-x", true, false},
		{"models/" + l.Fleet + "/_pack/g/x", false, true},
		{"models/" + l.Fleet + "/model_1", false, false},
		{"predictions/p/_delta_log/0", false, true},
		{"predictions/other/x", false, false},
		{"logs/p/x", false, false},
		{"logs/p/" + string(j.ID) + "/timing-000-1.parquet", true, true},
		{"logs/p/" + string(j.ID) + "/timing-000-1.parquet", false, false},
		{"logs/p/" + string(j.ID) + "/timing-x/y", true, false},
		{"logs/p/" + string(j.ID) + "/000-1-stderr.txt", true, false},
		{"logs/p/another/timing-000-1.parquet", true, false},
		{"predictions/p/_output/" + string(j.ID) + "/000/1/Device=1/preds.csv", true, true},
		{"predictions/p/_output/another/000/1/preds.csv", true, false},
		{"", false, false},
		{mine, false, true},
		{mine, true, true},
		{"predictions/p/_coverage/date=2026-11-23/hour=09/" + string(j.ID) + "-x", true, true},
		{"predictions/p/date=2026-11-23/hour=09/another-x", true, false},
		{"predictions/p/_delta_log/" + string(j.ID) + "-x", true, false},
		{"predictions/p/_coverage/_delta_log/" + string(j.ID) + "-x", true, false},
	} {
		err := w.Access(t.Context(), l.ID, tt.name, tt.write)
		if (err == nil) != tt.want || err != nil && !fleetscore.Invalid.Is(err) {
			t.Errorf("%q, write %t: %v; allowed should be %t", tt.name, tt.write, err, tt.want)
		}
	}
	if err := w.Access(t.Context(), "none", mine, false); !fleetscore.NotFound.Is(err) {
		t.Errorf("no lease: %v, want kind not_found", err)
	}
	if err := w.Complete(t.Context(), l.ID, dispatch.Result{Error: "it failed"}); err != nil {
		t.Fatal(err)
	}
	if err := w.Access(t.Context(), l.ID, mine, true); !fleetscore.Conflict.Is(err) {
		t.Errorf("after the end: %v, want kind conflict", err)
	}
}
