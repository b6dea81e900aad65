package ledgertest

import (
	"context"
	"encoding/json"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// Faulty is a ledger that fails where Fail says so. Fail is called with the name of
// the method and what it is about before it is carried out, and once more with
// " done" after it, when what it did is on disk and only the answer can be lost.
// It is called by several goroutines at once, and may wait. Events, tokens, the
// audit and the last time pass.
type Faulty struct {
	ledger.Ledger
	Fail func(ctx context.Context, op, subject string) error
}

// try carries out one call.
func try[T any](ctx context.Context, f *Faulty, op, subject string, do func() (T, error)) (T, error) {
	var zero T
	if err := f.Fail(ctx, op, subject); err != nil {
		return zero, err
	}
	v, err := do()
	if err != nil {
		return v, err
	}
	if err := f.Fail(ctx, op+" done", subject); err != nil {
		return zero, err
	}
	return v, nil
}

// only carries out one call that returns no value, or puts its values elsewhere.
func only(ctx context.Context, f *Faulty, op, subject string, do func() error) error {
	_, err := try(ctx, f, op, subject, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// PutConfig implements ledger.Configs.
func (f *Faulty) PutConfig(ctx context.Context, at time.Time, yaml string, cfg fleetscore.Config) (int64, error) {
	return try(ctx, f, "PutConfig", "", func() (int64, error) { return f.Ledger.PutConfig(ctx, at, yaml, cfg) })
}

// Config implements ledger.Configs.
func (f *Faulty) Config(ctx context.Context) (cfg fleetscore.Config, yaml string, version int64, err error) {
	err = only(ctx, f, "Config", "", func() (err error) {
		cfg, yaml, version, err = f.Ledger.Config(ctx)
		return err
	})
	return cfg, yaml, version, err
}

// Schedule implements ledger.Schedules.
func (f *Faulty) Schedule(ctx context.Context, pipeline string) (ledger.ScheduleView, error) {
	return try(ctx, f, "Schedule", pipeline, func() (ledger.ScheduleView, error) { return f.Ledger.Schedule(ctx, pipeline) })
}

// DecideSchedule implements ledger.Schedules.
func (f *Faulty) DecideSchedule(ctx context.Context, pipeline string, decide func(ledger.ScheduleView) (ledger.ScheduleDecision, error)) (ledger.ScheduleDecision, error) {
	return try(ctx, f, "DecideSchedule", pipeline, func() (ledger.ScheduleDecision, error) { return f.Ledger.DecideSchedule(ctx, pipeline, decide) })
}

// Occurrences implements ledger.Schedules.
func (f *Faulty) Occurrences(ctx context.Context, pipeline string, limit int) ([]fleetscore.Occurrence, error) {
	return try(ctx, f, "Occurrences", pipeline, func() ([]fleetscore.Occurrence, error) { return f.Ledger.Occurrences(ctx, pipeline, limit) })
}

// Job implements ledger.Jobs.
func (f *Faulty) Job(ctx context.Context, id fleetscore.JobID) (fleetscore.Job, error) {
	return try(ctx, f, "Job", string(id), func() (fleetscore.Job, error) { return f.Ledger.Job(ctx, id) })
}

// Jobs implements ledger.Jobs.
func (f *Faulty) Jobs(ctx context.Context, filter ledger.JobFilter) ([]fleetscore.Job, error) {
	return try(ctx, f, "Jobs", filter.Pipeline, func() ([]fleetscore.Job, error) { return f.Ledger.Jobs(ctx, filter) })
}

// CountJobs implements ledger.Jobs.
func (f *Faulty) CountJobs(ctx context.Context) (map[fleetscore.JobState]int64, error) {
	return try(ctx, f, "CountJobs", "", func() (map[fleetscore.JobState]int64, error) { return f.Ledger.CountJobs(ctx) })
}

// UpdateJob implements ledger.JobChanges.
func (f *Faulty) UpdateJob(ctx context.Context, id fleetscore.JobID, change func(*fleetscore.Job) error) (fleetscore.Job, error) {
	return try(ctx, f, "UpdateJob", string(id), func() (fleetscore.Job, error) { return f.Ledger.UpdateJob(ctx, id, change) })
}

// UpdateJobs implements ledger.JobChanges.
func (f *Faulty) UpdateJobs(ctx context.Context, pipeline string, states []fleetscore.JobState, change func(*fleetscore.Job)) error {
	return only(ctx, f, "UpdateJobs", pipeline, func() error { return f.Ledger.UpdateJobs(ctx, pipeline, states, change) })
}

// PlanJob implements ledger.JobChanges.
func (f *Faulty) PlanJob(ctx context.Context, j fleetscore.Job, tasks []ledger.PlannedTask) error {
	return only(ctx, f, "PlanJob", string(j.ID), func() error { return f.Ledger.PlanJob(ctx, j, tasks) })
}

// CancelJob implements ledger.JobChanges.
func (f *Faulty) CancelJob(ctx context.Context, id fleetscore.JobID, reason string, now time.Time) (fleetscore.Job, error) {
	return try(ctx, f, "CancelJob", string(id), func() (fleetscore.Job, error) { return f.Ledger.CancelJob(ctx, id, reason, now) })
}

// TimeOutJob implements ledger.JobChanges.
func (f *Faulty) TimeOutJob(ctx context.Context, id fleetscore.JobID, reason string, now time.Time) (fleetscore.Job, error) {
	return try(ctx, f, "TimeOutJob", string(id), func() (fleetscore.Job, error) { return f.Ledger.TimeOutJob(ctx, id, reason, now) })
}

// Tasks implements ledger.Tasks.
func (f *Faulty) Tasks(ctx context.Context, job fleetscore.JobID) ([]fleetscore.Task, error) {
	return try(ctx, f, "Tasks", string(job), func() ([]fleetscore.Task, error) { return f.Ledger.Tasks(ctx, job) })
}

// Attempts implements ledger.Tasks.
func (f *Faulty) Attempts(ctx context.Context, task fleetscore.TaskID) ([]fleetscore.Attempt, error) {
	return try(ctx, f, "Attempts", string(task), func() ([]fleetscore.Attempt, error) { return f.Ledger.Attempts(ctx, task) })
}

// Inputs implements ledger.Tasks.
func (f *Faulty) Inputs(ctx context.Context, job fleetscore.JobID) ([]ledger.Input, error) {
	return try(ctx, f, "Inputs", string(job), func() ([]ledger.Input, error) { return f.Ledger.Inputs(ctx, job) })
}

// Results implements ledger.Tasks.
func (f *Faulty) Results(ctx context.Context, job fleetscore.JobID) (map[fleetscore.TaskID]json.RawMessage, error) {
	return try(ctx, f, "Results", string(job), func() (map[fleetscore.TaskID]json.RawMessage, error) { return f.Ledger.Results(ctx, job) })
}

// Attempt implements ledger.Tasks.
func (f *Faulty) Attempt(ctx context.Context, lease fleetscore.LeaseID) (a fleetscore.Attempt, job fleetscore.JobID, err error) {
	err = only(ctx, f, "Attempt", string(lease), func() (err error) {
		a, job, err = f.Ledger.Attempt(ctx, lease)
		return err
	})
	return a, job, err
}

// TasksDue implements ledger.Queue.
func (f *Faulty) TasksDue(ctx context.Context, pool string, most int, now time.Time) (int, error) {
	return try(ctx, f, "TasksDue", pool, func() (int, error) { return f.Ledger.TasksDue(ctx, pool, most, now) })
}

// NextRetry implements ledger.Queue.
func (f *Faulty) NextRetry(ctx context.Context, pool string, now time.Time) (time.Time, error) {
	return try(ctx, f, "NextRetry", pool, func() (time.Time, error) { return f.Ledger.NextRetry(ctx, pool, now) })
}

// QueuedImages implements ledger.Queue.
func (f *Faulty) QueuedImages(ctx context.Context, pool string) ([]ledger.QueuedImage, error) {
	return try(ctx, f, "QueuedImages", pool, func() ([]ledger.QueuedImage, error) { return f.Ledger.QueuedImages(ctx, pool) })
}

// LeaseTasks implements ledger.Queue.
func (f *Faulty) LeaseTasks(ctx context.Context, pool string, node fleetscore.NodeID, max int, now time.Time, ttl time.Duration) ([]ledger.Leased, error) {
	return try(ctx, f, "LeaseTasks", string(node), func() ([]ledger.Leased, error) { return f.Ledger.LeaseTasks(ctx, pool, node, max, now, ttl) })
}

// EndAttempt implements ledger.Queue.
func (f *Faulty) EndAttempt(ctx context.Context, lease fleetscore.LeaseID, now time.Time, decide func(ledger.Leased) (ledger.AttemptEnd, error)) (ledger.Leased, error) {
	return try(ctx, f, "EndAttempt", string(lease), func() (ledger.Leased, error) { return f.Ledger.EndAttempt(ctx, lease, now, decide) })
}

// TakeBack implements ledger.Queue.
func (f *Faulty) TakeBack(ctx context.Context, which ledger.LeaseFilter, now time.Time, decide func(ledger.Leased) (ledger.AttemptEnd, error)) ([]ledger.Leased, error) {
	return try(ctx, f, "TakeBack", string(which.Node), func() ([]ledger.Leased, error) { return f.Ledger.TakeBack(ctx, which, now, decide) })
}

// QueueDepth implements ledger.Queue.
func (f *Faulty) QueueDepth(ctx context.Context, pool string) (queued, running int64, err error) {
	err = only(ctx, f, "QueueDepth", pool, func() (err error) {
		queued, running, err = f.Ledger.QueueDepth(ctx, pool)
		return err
	})
	return queued, running, err
}

// Node implements ledger.Nodes.
func (f *Faulty) Node(ctx context.Context, id fleetscore.NodeID) (fleetscore.Node, error) {
	return try(ctx, f, "Node", string(id), func() (fleetscore.Node, error) { return f.Ledger.Node(ctx, id) })
}

// Nodes implements ledger.Nodes.
func (f *Faulty) Nodes(ctx context.Context, pool string) ([]fleetscore.Node, error) {
	return try(ctx, f, "Nodes", pool, func() ([]fleetscore.Node, error) { return f.Ledger.Nodes(ctx, pool) })
}

// Neglected implements ledger.Nodes.
func (f *Faulty) Neglected(ctx context.Context, silent, old time.Time) ([]fleetscore.Node, error) {
	return try(ctx, f, "Neglected", "", func() ([]fleetscore.Node, error) { return f.Ledger.Neglected(ctx, silent, old) })
}

// Strays implements ledger.Nodes.
func (f *Faulty) Strays(ctx context.Context, pools []string) ([]fleetscore.Node, error) {
	return try(ctx, f, "Strays", "", func() ([]fleetscore.Node, error) { return f.Ledger.Strays(ctx, pools) })
}

// LoseNodes implements ledger.NodeChanges.
func (f *Faulty) LoseNodes(ctx context.Context, ids []fleetscore.NodeID, before time.Time) ([]fleetscore.Node, error) {
	return try(ctx, f, "LoseNodes", "", func() ([]fleetscore.Node, error) { return f.Ledger.LoseNodes(ctx, ids, before) })
}

// UpdateNode implements ledger.NodeChanges.
func (f *Faulty) UpdateNode(ctx context.Context, id fleetscore.NodeID, change func(*fleetscore.Node) error) (fleetscore.Node, error) {
	return try(ctx, f, "UpdateNode", string(id), func() (fleetscore.Node, error) { return f.Ledger.UpdateNode(ctx, id, change) })
}

// SetNodeState implements ledger.NodeChanges.
func (f *Faulty) SetNodeState(ctx context.Context, id fleetscore.NodeID, state fleetscore.NodeState) error {
	return only(ctx, f, "SetNodeState", string(id), func() error { return f.Ledger.SetNodeState(ctx, id, state) })
}

// ForgetNodes implements ledger.NodeChanges.
func (f *Faulty) ForgetNodes(ctx context.Context, before time.Time) error {
	return only(ctx, f, "ForgetNodes", "", func() error { return f.Ledger.ForgetNodes(ctx, before) })
}

// Renew implements ledger.NodeChanges.
func (f *Faulty) Renew(ctx context.Context, id fleetscore.NodeID, leases []fleetscore.LeaseID, load *fleetscore.NodeLoad, now time.Time, ttl time.Duration) (n fleetscore.Node, revoked []fleetscore.LeaseID, err error) {
	err = only(ctx, f, "Renew", string(id), func() (err error) {
		n, revoked, err = f.Ledger.Renew(ctx, id, leases, load, now, ttl)
		return err
	})
	return n, revoked, err
}

// OldJobs implements ledger.History.
func (f *Faulty) OldJobs(ctx context.Context, which ledger.OldJobs) ([]fleetscore.JobID, error) {
	return try(ctx, f, "OldJobs", "", func() ([]fleetscore.JobID, error) { return f.Ledger.OldJobs(ctx, which) })
}

// ForgetJobs implements ledger.History.
func (f *Faulty) ForgetJobs(ctx context.Context, ids []fleetscore.JobID) error {
	return only(ctx, f, "ForgetJobs", "", func() error { return f.Ledger.ForgetJobs(ctx, ids) })
}

// Trim implements ledger.History.
func (f *Faulty) Trim(ctx context.Context, b ledger.Bounds) error {
	return only(ctx, f, "Trim", "", func() error { return f.Ledger.Trim(ctx, b) })
}

// AddSample implements ledger.Scales.
func (f *Faulty) AddSample(ctx context.Context, pool string, s autoscale.Sample, keep time.Time) error {
	return only(ctx, f, "AddSample", pool, func() error { return f.Ledger.AddSample(ctx, pool, s, keep) })
}

// Samples implements ledger.Scales.
func (f *Faulty) Samples(ctx context.Context, pool string, since time.Time) ([]autoscale.Sample, error) {
	return try(ctx, f, "Samples", pool, func() ([]autoscale.Sample, error) { return f.Ledger.Samples(ctx, pool, since) })
}

// AddEvaluation implements ledger.Scales.
func (f *Faulty) AddEvaluation(ctx context.Context, pool string, e autoscale.Evaluation) error {
	return only(ctx, f, "AddEvaluation", pool, func() error { return f.Ledger.AddEvaluation(ctx, pool, e) })
}

// Evaluations implements ledger.Scales.
func (f *Faulty) Evaluations(ctx context.Context, pool string, limit int) ([]autoscale.Evaluation, error) {
	return try(ctx, f, "Evaluations", pool, func() ([]autoscale.Evaluation, error) { return f.Ledger.Evaluations(ctx, pool, limit) })
}

// TasksEnded implements ledger.Scales.
func (f *Faulty) TasksEnded(ctx context.Context, pool string) (succeeded, failed int64, err error) {
	err = only(ctx, f, "TasksEnded", pool, func() (err error) {
		succeeded, failed, err = f.Ledger.TasksEnded(ctx, pool)
		return err
	})
	return succeeded, failed, err
}

// Harms implements ledger.Harms.
func (f *Faulty) Harms(ctx context.Context, fleet string) ([]fleetscore.Harm, error) {
	return try(ctx, f, "Harms", fleet, func() ([]fleetscore.Harm, error) { return f.Ledger.Harms(ctx, fleet) })
}

// ChangeHarms implements ledger.Harms.
func (f *Faulty) ChangeHarms(ctx context.Context, fleet string, change func([]fleetscore.Harm) (put, remove []fleetscore.Harm)) error {
	return only(ctx, f, "ChangeHarms", fleet, func() error { return f.Ledger.ChangeHarms(ctx, fleet, change) })
}

// Costs implements ledger.Costs.
func (f *Faulty) Costs(ctx context.Context, pipeline string) (dispatch.Measured, error) {
	return try(ctx, f, "Costs", pipeline, func() (dispatch.Measured, error) { return f.Ledger.Costs(ctx, pipeline) })
}

// PutCosts implements ledger.Costs.
func (f *Faulty) PutCosts(ctx context.Context, pipeline string, m dispatch.Measured) error {
	return only(ctx, f, "PutCosts", pipeline, func() error { return f.Ledger.PutCosts(ctx, pipeline, m) })
}

// PutRejected implements ledger.Rejects.
func (f *Faulty) PutRejected(ctx context.Context, list []ledger.Rejected, bound ledger.RejectsBound) error {
	return only(ctx, f, "PutRejected", "", func() error { return f.Ledger.PutRejected(ctx, list, bound) })
}
