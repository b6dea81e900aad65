package scheduler

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// TestHistoryFromTheStore: when the ledger is gone and the store isn't, the jobs are
// listed with what the tables tell of them, and the next due job begins where the last
// one ended: each row has one prediction, and none is left out.
func TestHistoryFromTheStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{Schedule: fleetscore.ScheduleConfig{Cron: "0 * * * *", CatchUp: "all"}})
	w.created("p")
	w.rows(day.Add(11 * time.Hour))
	w.set(day.Add(11*time.Hour + time.Minute))
	finish := func() fleetscore.Job {
		t.Helper()
		l := w.lease("n1")
		if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
			t.Fatal(err)
		}
		return w.wait(l.Job, ended)
	}
	first := finish()
	w.rows(day.Add(12 * time.Hour))
	w.set(day.Add(12*time.Hour + time.Minute))
	second := finish()
	cfg, text, _, err := w.ledger.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := w.visible()
	w.stop()
	for _, name := range []string{"ledger.db", "ledger.db-wal", "ledger.db-shm"} {
		if err := os.RemoveAll(filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	w.open()
	if _, err := w.ledger.PutConfig(t.Context(), time.Now(), text, cfg); err != nil {
		t.Fatal(err)
	}
	w.rows(day.Add(13 * time.Hour))
	w.set(day.Add(13*time.Hour + time.Minute))
	w.run(w.bucket())
	third := finish()
	if !third.Interval.From.Equal(second.Interval.To) || !third.Interval.To.Equal(day.Add(13*time.Hour)) {
		t.Errorf("the next job is over %s, the last one was over %s", third.Interval, second.Interval)
	}
	got, err := w.ledger.Jobs(t.Context(), ledger.JobFilter{Pipeline: "p"})
	if err != nil {
		t.Fatal(err)
	}
	// Scores of this test count no anomalies of single sensors.
	told := cmpopts.IgnoreFields(fleetscore.Job{}, "Anomalies", "Due", "Config", "Generation", "Content", "Tasks", "TasksEnded", "Created", "Planned", "Started", "Ended")
	if diff := cmp.Diff([]fleetscore.Job{third, second, first}, got, told); diff != "" {
		t.Errorf("the jobs differ (-before +after):\n%s", diff)
	}
	for _, j := range got[1:] {
		if j.Ended == nil || !j.Ended.Equal(j.Interval.To) {
			t.Errorf("job %s ended at %v", j.ID, j.Ended)
		}
	}
	if after := w.visible(); len(after) != len(before)/2*3 {
		t.Errorf("%d rows are predicted, before %d:\n%v", len(after), len(before), after)
	}
	occurrences, err := w.ledger.Occurrences(t.Context(), "p", 10)
	if err != nil || len(occurrences) != 1 || occurrences[0].Job != third.ID {
		t.Errorf("due times %+v, %v", occurrences, err)
	}
}
