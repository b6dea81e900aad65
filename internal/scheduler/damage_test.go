package scheduler

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// spoil overwrites every file that fits a pattern in the store, and returns what
// puts them back.
func (w *world) spoil(pattern string) (restore func()) {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.dir, "store", pattern))
	if err != nil || len(files) == 0 {
		w.t.Fatalf("%s: %v, %v", pattern, files, err)
	}
	before := map[string][]byte{}
	for _, f := range files {
		if before[f], err = os.ReadFile(f); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte("{"), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return func() {
		for f, data := range before {
			if err := os.WriteFile(f, data, 0o600); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

func (w *world) problem(part string) string {
	for _, p := range w.problems.Problems() {
		if p.Part == part {
			return p.Problem
		}
	}
	return ""
}

// TestDamagedTableAtCommit: a job whose results can't be made visible because a
// table is damaged keeps them, says which table and file, and ends once the file is
// restored.
func TestDamagedTableAtCommit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ table, pattern string }{
		{"predictions of pipeline p", "predictions/p/_delta_log/*0.json"},
		{"coverage of pipeline p", "predictions/p/_coverage/_delta_log/*0.json"},
	} {
		w := newWorld(t, fleetscore.PipelineConfig{})
		w.rows(day.Add(9 * time.Hour))
		j, err := w.Submit(t.Context(), "p", nil)
		if err != nil {
			t.Fatal(err)
		}
		l := w.lease("n1")
		r := w.score(l)
		restore := w.spoil(c.pattern)
		w.stop() // so that nothing is remembered of the table
		w.start(w.bucket())
		if err := w.broker.Complete(t.Context(), l.ID, r); err != nil {
			t.Fatal(err)
		}
		file := strings.Replace(c.pattern, "*0", "00000000000000000000", 1)
		got := w.wait(j.ID, func(j fleetscore.Job) bool {
			return j.State.Ended() || strings.Contains(j.Reason, c.table) && strings.Contains(j.Reason, file)
		})
		if got.State != fleetscore.JobCommitting {
			t.Errorf("%s: the job is %s: %s", c.table, got.State, got.Reason)
		}
		restore()
		if got := w.wait(j.ID, ended); got.State != fleetscore.JobSucceeded {
			t.Errorf("%s, restored: %s (%s)", c.table, got.State, got.Reason)
		}
	}
}

// TestDamagedFileFoundByANode: the server's health names a file that a node could
// not read, until it is whole again.
func TestDamagedFileFoundByANode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.rows(day.Add(9 * time.Hour))
	if _, err := w.Submit(t.Context(), "p", nil); err != nil {
		t.Fatal(err)
	}
	l := w.lease("n1")
	restore := w.spoil("data/readings/date=*/*/*.parquet")
	damaged := "data/readings/" + l.Files[0].Path
	if err := w.broker.Complete(t.Context(), l.ID, dispatch.Result{Error: "it can't be read", Kind: "corrupt", Damaged: damaged}); err != nil {
		t.Fatal(err)
	}
	w.waitProblem("dataset readings", damaged)
	restore()
	if _, err := w.Maintain(t.Context(), catalog.Maintenance{Dataset: "readings"}); err != nil {
		t.Fatal(err)
	}
	if got := w.problem("dataset readings"); got != "" {
		t.Errorf("restored, health says %q", got)
	}
	// A commit that this process read when it was sound: nodes and a restart need it.
	commit := "data/readings/_delta_log/00000000000000000000.json"
	restore = w.spoil(commit)
	w.catalog.Examine(t.Context(), commit)
	if _, err := w.catalog.Dataset("readings").Snapshot(t.Context()); err != nil {
		t.Fatalf("the process remembers the log: %v", err)
	}
	if got, listed := w.problem("dataset readings"), w.catalog.Dataset("readings").Damage(); !strings.Contains(got, commit) || listed != got {
		t.Errorf("health says %q and the list %q, want both to name %s", got, listed, commit)
	}
	restore()
	if _, err := w.Maintain(t.Context(), catalog.Maintenance{Dataset: "readings"}); err != nil {
		t.Fatal(err)
	}
	if got := w.problem("dataset readings"); got != "" {
		t.Errorf("restored, health says %q", got)
	}
	for _, other := range []string{"", "../x", "data/readings", "models/m/model_0", "predictions/p/none", "data/readings/date=2026-11-23/none"} {
		w.catalog.Examine(t.Context(), other) // what no table has is nobody's damage
	}
	if got := w.problems.Problems(); len(got) != 0 {
		t.Errorf("health says %v", got)
	}
}
