package ledgertest

import (
	"context"
	"encoding/json"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// Faulty is a ledger that fails where Fail says so. Fail is called with the name
// of the method before it is carried out, and once more with " done" after it,
// when what it did is on disk and only the answer can be lost. It is called by
// several goroutines at once.
type Faulty struct {
	ledger.Ledger
	Fail func(op string) error
}

// try carries out one call.
func try[T any](f *Faulty, op string, do func() (T, error)) (T, error) {
	var zero T
	if err := f.Fail(op); err != nil {
		return zero, err
	}
	v, err := do()
	if err != nil {
		return v, err
	}
	if err := f.Fail(op + " done"); err != nil {
		return zero, err
	}
	return v, nil
}

// only carries out one call that returns no value.
func only(f *Faulty, op string, do func() error) error {
	_, err := try(f, op, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// Config implements ledger.Configs.
func (f *Faulty) Config(ctx context.Context) (cfg fleetscore.Config, yaml string, version int64, err error) {
	err = only(f, "Config", func() (err error) {
		cfg, yaml, version, err = f.Ledger.Config(ctx)
		return err
	})
	return cfg, yaml, version, err
}

// Schedule implements ledger.Schedules.
func (f *Faulty) Schedule(ctx context.Context, pipeline string) (ledger.ScheduleView, error) {
	return try(f, "Schedule", func() (ledger.ScheduleView, error) { return f.Ledger.Schedule(ctx, pipeline) })
}

// DecideSchedule implements ledger.Schedules.
func (f *Faulty) DecideSchedule(ctx context.Context, pipeline string, decide func(ledger.ScheduleView) (ledger.ScheduleDecision, error)) (ledger.ScheduleDecision, error) {
	return try(f, "DecideSchedule", func() (ledger.ScheduleDecision, error) { return f.Ledger.DecideSchedule(ctx, pipeline, decide) })
}

// Jobs implements ledger.Jobs.
func (f *Faulty) Jobs(ctx context.Context, filter ledger.JobFilter) ([]fleetscore.Job, error) {
	return try(f, "Jobs", func() ([]fleetscore.Job, error) { return f.Ledger.Jobs(ctx, filter) })
}

// UpdateJob implements ledger.JobChanges.
func (f *Faulty) UpdateJob(ctx context.Context, id fleetscore.JobID, change func(*fleetscore.Job) error) (fleetscore.Job, error) {
	return try(f, "UpdateJob", func() (fleetscore.Job, error) { return f.Ledger.UpdateJob(ctx, id, change) })
}

// UpdateJobs implements ledger.JobChanges.
func (f *Faulty) UpdateJobs(ctx context.Context, pipeline string, states []fleetscore.JobState, change func(*fleetscore.Job)) error {
	return only(f, "UpdateJobs", func() error { return f.Ledger.UpdateJobs(ctx, pipeline, states, change) })
}

// PlanJob implements ledger.JobChanges.
func (f *Faulty) PlanJob(ctx context.Context, j fleetscore.Job, tasks []ledger.PlannedTask) error {
	return only(f, "PlanJob", func() error { return f.Ledger.PlanJob(ctx, j, tasks) })
}

// CancelJob implements ledger.JobChanges.
func (f *Faulty) CancelJob(ctx context.Context, id fleetscore.JobID, reason string, now time.Time) (fleetscore.Job, error) {
	return try(f, "CancelJob", func() (fleetscore.Job, error) { return f.Ledger.CancelJob(ctx, id, reason, now) })
}

// Tasks implements ledger.Tasks.
func (f *Faulty) Tasks(ctx context.Context, job fleetscore.JobID) ([]fleetscore.Task, error) {
	return try(f, "Tasks", func() ([]fleetscore.Task, error) { return f.Ledger.Tasks(ctx, job) })
}

// Results implements ledger.Tasks.
func (f *Faulty) Results(ctx context.Context, job fleetscore.JobID) (map[fleetscore.TaskID]json.RawMessage, error) {
	return try(f, "Results", func() (map[fleetscore.TaskID]json.RawMessage, error) { return f.Ledger.Results(ctx, job) })
}

// LeaseTasks implements ledger.Queue.
func (f *Faulty) LeaseTasks(ctx context.Context, pool string, node fleetscore.NodeID, max int, now time.Time, ttl time.Duration) ([]ledger.Leased, error) {
	return try(f, "LeaseTasks", func() ([]ledger.Leased, error) { return f.Ledger.LeaseTasks(ctx, pool, node, max, now, ttl) })
}

// EndAttempt implements ledger.Queue.
func (f *Faulty) EndAttempt(ctx context.Context, lease fleetscore.LeaseID, now time.Time, decide func(ledger.Leased) (ledger.AttemptEnd, error)) (ledger.Leased, error) {
	return try(f, "EndAttempt", func() (ledger.Leased, error) { return f.Ledger.EndAttempt(ctx, lease, now, decide) })
}

// TakeBack implements ledger.Queue.
func (f *Faulty) TakeBack(ctx context.Context, which ledger.LeaseFilter, now time.Time, decide func(ledger.Leased) (ledger.AttemptEnd, error)) ([]ledger.Leased, error) {
	return try(f, "TakeBack", func() ([]ledger.Leased, error) { return f.Ledger.TakeBack(ctx, which, now, decide) })
}

// UpdateNode implements ledger.NodeChanges.
func (f *Faulty) UpdateNode(ctx context.Context, id fleetscore.NodeID, change func(*fleetscore.Node) error) (fleetscore.Node, error) {
	return try(f, "UpdateNode", func() (fleetscore.Node, error) { return f.Ledger.UpdateNode(ctx, id, change) })
}

// SetNodeState implements ledger.NodeChanges.
func (f *Faulty) SetNodeState(ctx context.Context, id fleetscore.NodeID, state fleetscore.NodeState) error {
	return only(f, "SetNodeState", func() error { return f.Ledger.SetNodeState(ctx, id, state) })
}

// Renew implements ledger.NodeChanges.
func (f *Faulty) Renew(ctx context.Context, id fleetscore.NodeID, leases []fleetscore.LeaseID, now time.Time, ttl time.Duration) (n fleetscore.Node, revoked []fleetscore.LeaseID, err error) {
	err = only(f, "Renew", func() (err error) {
		n, revoked, err = f.Ledger.Renew(ctx, id, leases, now, ttl)
		return err
	})
	return n, revoked, err
}

// OldJobs implements ledger.History.
func (f *Faulty) OldJobs(ctx context.Context, which ledger.OldJobs) ([]fleetscore.JobID, error) {
	return try(f, "OldJobs", func() ([]fleetscore.JobID, error) { return f.Ledger.OldJobs(ctx, which) })
}

// ForgetJobs implements ledger.History.
func (f *Faulty) ForgetJobs(ctx context.Context, ids []fleetscore.JobID) error {
	return only(f, "ForgetJobs", func() error { return f.Ledger.ForgetJobs(ctx, ids) })
}

// Trim implements ledger.History.
func (f *Faulty) Trim(ctx context.Context, b ledger.Bounds) error {
	return only(f, "Trim", func() error { return f.Ledger.Trim(ctx, b) })
}
