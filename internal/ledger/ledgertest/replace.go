package ledgertest

import (
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// testReplacedJob: a job can take the place of another. If that one has ended, nothing
// changes.
func testReplacedJob(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	plan(t, l, "j1", 2)
	replace := func(job fleetscore.Job) error {
		_, err := l.DecideSchedule(ctx, "p", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
			return ledger.ScheduleDecision{State: v.State, Job: &job, Cancel: []fleetscore.JobID{"j1"}, Canceled: "replaced", At: noon}, nil
		})
		return err
	}
	if err := replace(job("j2")); err != nil {
		t.Fatal(err)
	}
	if got := must[fleetscore.Job](t)(l.Job(ctx, "j1")); got.State != fleetscore.JobCanceled || got.Reason != "replaced" || got.Ended == nil || !got.Ended.Equal(noon) {
		t.Errorf("the replaced job is %+v", got)
	}
	for _, task := range must[[]fleetscore.Task](t)(l.Tasks(ctx, "j1")) {
		if task.State != fleetscore.TaskCanceled {
			t.Errorf("task %s of the replaced job is %s", task.ID, task.State)
		}
	}
	if err := replace(job("j3")); !fleetscore.Conflict.Is(err) {
		t.Errorf("replacing a job that has ended = %v, want kind conflict", err)
	}
	if v := must[ledger.ScheduleView](t)(l.Schedule(ctx, "p")); len(v.Active) != 1 || v.Active[0].ID != "j2" {
		t.Errorf("active are %+v, want j2", v.Active)
	}
}
