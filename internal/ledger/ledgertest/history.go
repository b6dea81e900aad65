package ledgertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// endJob ends a job so many hours after noon.
func endJob(t *testing.T, l ledger.Ledger, id fleetscore.JobID, hours int) {
	t.Helper()
	at := noon.Add(time.Duration(hours) * time.Hour)
	must[fleetscore.Job](t)(l.UpdateJob(t.Context(), id, func(j *fleetscore.Job) error {
		j.State, j.Ended = fleetscore.JobSucceeded, &at
		return nil
	}))
}

func testHistory(t *testing.T, open Open) {
	t.Helper()
	ctx, l := t.Context(), open(t)
	ids := func(ids ...fleetscore.JobID) []fleetscore.JobID { return ids }
	n := node(t, l, "n1")
	for i := range 5 {
		plan(t, l, fmt.Sprint("j", i), 2)
	}
	other := job("o0")
	other.Pipeline = "other"
	if err := Insert(ctx, l, other); err != nil {
		t.Fatal(err)
	}
	ls := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n, 2, noon, time.Minute))
	for _, one := range ls {
		must[ledger.Leased](t)(l.EndAttempt(ctx, one.Attempt.Lease, noon, succeed("{}")))
	}
	for i, id := range ids("j2", "j0", "j1", "j3") { // in this order; j4 still waits
		endJob(t, l, id, i)
	}
	old := func(before time.Time, keep, limit int) []fleetscore.JobID {
		t.Helper()
		return must[[]fleetscore.JobID](t)(l.OldJobs(ctx, ledger.OldJobs{Pipeline: "p", Before: before, Keep: keep, Limit: limit}))
	}
	for _, c := range []struct {
		before      time.Time
		keep, limit int
		want        []fleetscore.JobID
	}{
		{noon, 0, 9, nil}, {noon.Add(2 * time.Hour), 0, 9, ids("j2", "j0")}, {noon.Add(99 * time.Hour), 0, 3, ids("j2", "j0", "j1")},
		{noon, 2, 9, ids("j0", "j1", "j2")}, {noon.Add(time.Hour), 4, 9, ids("j2", "j0")}, {noon, 9, 9, nil},
	} {
		if diff := cmp.Diff(c.want, old(c.before, c.keep, c.limit)); diff != "" {
			t.Errorf("older than %s, beyond %d, %d at most: %s", c.before, c.keep, c.limit, diff)
		}
	}
	bySize := func(bytes int64, limit int) []fleetscore.JobID {
		t.Helper()
		return must[[]fleetscore.JobID](t)(l.OldJobs(ctx, ledger.OldJobs{Bytes: bytes, Limit: limit}))
	}
	if diff := cmp.Diff(ids("j2", "j0", "j1", "j3"), bySize(1, 9)); diff != "" {
		t.Errorf("all that has ended is too much: %s", diff)
	}
	if diff := cmp.Diff(ids("j2", "j0"), bySize(1, 2)); diff != "" {
		t.Errorf("two at most: %s", diff)
	}
	sizes := map[int]int64{} // the most bytes with which so many jobs have to go
	for bytes := int64(100); len(bySize(bytes, 9)) > 0; bytes += 100 {
		sizes[len(bySize(bytes, 9))] = bytes
	}
	if s := sizes; len(s) != 4 || s[1]-s[2] < 800 || s[1]-s[2] > 2500 { // a job with two tasks
		t.Errorf("so many of the jobs have to go, as long as so many bytes are kept: %v", s)
	}
	for range 2 { // a crash may have come before the answer
		if err := l.ForgetJobs(ctx, ids("j0", "j4", "o0", "none")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Job(ctx, "j0"); !fleetscore.NotFound.Is(err) {
		t.Errorf("a forgotten job: %v", err)
	}
	if _, _, err := l.Attempt(ctx, ls[0].Attempt.Lease); !fleetscore.NotFound.Is(err) {
		t.Errorf("an attempt of a forgotten job: %v", err)
	}
	for id, tasks := range map[fleetscore.JobID]int{"j0": 0, "j1": 2, "j4": 2} {
		if got := must[[]fleetscore.Task](t)(l.Tasks(ctx, id)); len(got) != tasks {
			t.Errorf("%s has %d tasks, want %d", id, len(got), tasks)
		}
	}
	if diff := cmp.Diff(map[fleetscore.JobState]int64{fleetscore.JobSucceeded: 3, fleetscore.JobQueued: 1, fleetscore.JobWaiting: 1}, must[map[fleetscore.JobState]int64](t)(l.CountJobs(ctx))); diff != "" {
		t.Errorf("counts: %s", diff)
	}
	if diff := cmp.Diff(ids("j0", "none"), must[[]fleetscore.JobID](t)(l.UnknownJobs(ctx, ids("j0", "j1", "j4", "none")))); diff != "" {
		t.Errorf("unknown: %s", diff)
	}
	testTrim(t, l)
	if diff := cmp.Diff([]string{"other", "p", "q"}, must[[]string](t)(l.HistoryPipelines(ctx))); diff != "" {
		t.Errorf("pipelines: %s", diff)
	}
}

func testTrim(t *testing.T, l ledger.Ledger) {
	t.Helper()
	ctx := t.Context()
	for _, p := range []string{"p", "q"} {
		_, err := l.DecideSchedule(ctx, p, func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
			d := ledger.ScheduleDecision{State: v.State}
			for i := range 5 {
				d.Occurrences = append(d.Occurrences, fleetscore.Occurrence{Pipeline: p, Due: noon.Add(time.Duration(i) * time.Minute), State: "ran"})
			}
			return d, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 6 {
		if err := l.Audit(ctx, ledger.AuditEntry{At: noon, Who: "me", What: "submit", Subject: fmt.Sprint("a", i)}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.PutConfig(ctx, noon, fmt.Sprint("# ", i), fleetscore.Config{}); err != nil {
			t.Fatal(err)
		}
	}
	b := ledger.Bounds{Occurrences: map[string]time.Time{"p": noon.Add(99 * time.Hour), "q": noon.Add(2 * time.Minute)}, Entries: 4, Configs: 2}
	for range 2 {
		if err := l.Trim(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	for p, want := range map[string]int{"p": 1, "q": 3} { // the newest always stays: nothing is decided twice
		got := must[[]fleetscore.Occurrence](t)(l.Occurrences(ctx, p, 9))
		if len(got) != want || !got[0].Due.Equal(noon.Add(4*time.Minute)) {
			t.Errorf("due times of %s: %+v", p, got)
		}
	}
	if v := must[ledger.ScheduleView](t)(l.Schedule(ctx, "p")); len(v.Active) == 0 {
		t.Error("jobs that wait are gone")
	}
	if got := must[[]ledger.AuditEntry](t)(l.AuditLog(ctx, 99)); len(got) != 4 || got[0].Subject != "a5" {
		t.Errorf("audit: %+v", got)
	}
	if _, yaml, _, err := l.Config(ctx); err != nil || yaml != "# 5" {
		t.Errorf("configuration in force: %q, %v", yaml, err)
	}
	if v, err := l.PutConfig(ctx, noon, "# 6", fleetscore.Config{}); err != nil || v != 7 {
		t.Errorf("the next version is %d, %v", v, err)
	}
	b.Audit = noon.Add(time.Second)
	if err := l.Trim(ctx, b); err != nil {
		t.Fatal(err)
	}
	if got := must[[]ledger.AuditEntry](t)(l.AuditLog(ctx, 99)); len(got) != 0 {
		t.Errorf("old entries of the audit: %+v", got)
	}
}

// testConfigVersions finds the two configurations that were applied.
func testConfigVersions(t *testing.T, l ledger.Ledger, cfg fleetscore.Config) {
	t.Helper()
	if all := must[[]ledger.ConfigVersion](t)(l.ConfigVersions(t.Context(), 1)); len(all) != 1 || all[0].Version != 2 {
		t.Errorf("ConfigVersions of at most 1 = %+v", all)
	}
	all := must[[]ledger.ConfigVersion](t)(l.ConfigVersions(t.Context(), 9))
	if len(all) != 2 || all[0].Version != 2 || all[1].Version != 1 || !all[0].Applied.Equal(noon.Add(2*time.Minute)) || !all[1].Applied.Equal(noon) {
		t.Errorf("ConfigVersions = %+v, want 2 and 1", all)
	}
	first := must[ledger.ConfigVersion](t)(l.ConfigVersion(t.Context(), 1))
	if d := cmp.Diff(cfg, first.Config); d != "" || first.YAML != "a: 1" || !first.Applied.Equal(all[1].Applied) {
		t.Errorf("ConfigVersion 1 = %+v (-want +got):\n%s", first, d)
	}
	if _, err := l.ConfigVersion(t.Context(), 3); !fleetscore.NotFound.Is(err) {
		t.Errorf("ConfigVersion 3 = %v, want kind not_found", err)
	}
}
