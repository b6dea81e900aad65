package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// JobFilter narrows a list of jobs. The zero value means all.
type JobFilter struct {
	Pipeline string
	States   []fleetscore.JobState
	Limit    int              // 0 means no limit
	Before   fleetscore.JobID // only jobs made before this one
}

// Jobs reads jobs.
type Jobs interface {
	// Job is the job of that id; kind NotFound if there is none.
	Job(ctx context.Context, id fleetscore.JobID) (fleetscore.Job, error)
	// Jobs are the jobs that fit the filter, newest first.
	Jobs(ctx context.Context, f JobFilter) ([]fleetscore.Job, error)
	// CountJobs counts the jobs that are kept by state; states without jobs are absent.
	// It costs the same however many jobs there are.
	CountJobs(ctx context.Context) (map[fleetscore.JobState]int64, error)
}

// JobChanges carries jobs through their life. They are made by DecideSchedule.
type JobChanges interface {
	// UpdateJob changes a job by a function that sees it as it is, in one
	// transaction. An error of the function changes nothing and is returned.
	UpdateJob(ctx context.Context, id fleetscore.JobID, change func(*fleetscore.Job) error) (fleetscore.Job, error)
	// UpdateJobs changes the jobs of a pipeline that are in one of the states, in
	// one transaction. A queued or running job that names another pool afterwards
	// takes its waiting tasks there.
	UpdateJobs(ctx context.Context, pipeline string, states []fleetscore.JobState, change func(*fleetscore.Job)) error
	// PlanJob turns a waiting job into a queued one with tasks: generation,
	// expected keys and the like are taken from j. Kind Conflict if it waits no
	// more, or if its configuration is not what j was planned by.
	PlanJob(ctx context.Context, j fleetscore.Job, tasks []PlannedTask) error
	// CancelJob ends a job, its tasks and their leases. Kind Conflict if it ended,
	// or if its results are becoming visible.
	CancelJob(ctx context.Context, id fleetscore.JobID, reason string, now time.Time) (fleetscore.Job, error)
	// TimeOutJob fails the tasks of a running job that haven't ended, with the outcome
	// timed_out for their keys, and ends their leases: the job becomes committing. Kind
	// Conflict if it isn't running.
	TimeOutJob(ctx context.Context, id fleetscore.JobID, reason string, now time.Time) (fleetscore.Job, error)
}

// Input is what all attempts of a task read: those of a dataset's files that may
// hold its keys, as they were when the job was planned.
type Input struct {
	Version  int64                 `json:"version"` // of the dataset's table
	TimeName string                `json:"time_name"`
	KeyNames []string              `json:"key_names"`
	Files    []fleetscore.DataFile `json:"files"`
	// Quarantined are models of its shards that aren't scored.
	Quarantined []fleetscore.Harm `json:"quarantined,omitempty"`
	Keys        []fleetscore.Key  `json:"keys,omitempty"`        // the only keys that are scored; empty means all of the shards but Except
	Except      []fleetscore.Key  `json:"except,omitempty"`      // keys of other tasks over the same shards
	Environment int               `json:"environment,omitempty"` // of its task
	// Earlier are outcomes that stay where nothing has changed.
	Earlier dispatch.Earlier `json:"earlier,omitzero"`
	// Code is the archive with the pipeline's code; zero means that nodes have it themselves.
	Code fleetscore.Digest `json:"code,omitzero"`
}

// PlannedTask is a task and what it reads.
type PlannedTask struct {
	Task  fleetscore.Task
	Input Input
}

// decode reads the JSON of a kept value.
func decode[T any](subject, doc string) (T, error) {
	var v T
	if err := json.Unmarshal([]byte(doc), &v); err != nil {
		return v, fleetscore.Errorf(fleetscore.Corrupt, "read ledger", subject, "%w", err)
	}
	return v, nil
}

func scanDoc[T any](scan func(...any) error) (T, error) {
	var doc string
	if err := scan(&doc); err != nil {
		var zero T
		return zero, err
	}
	return decode[T]("", doc)
}

func (t *tx) insertJob(j fleetscore.Job) error {
	doc, err := json.Marshal(j)
	if err != nil {
		return err
	}
	t.event(JobsTopic(j.Pipeline), JobTopic(j.ID))
	if err := t.exec(`INSERT INTO jobs (id, pipeline, state, ended, doc) VALUES (?, ?, ?, ?, ?)`, string(j.ID), j.Pipeline, string(j.State), endedAt(j), string(doc)); err != nil || !j.State.Ended() {
		return err
	}
	return t.exec(sizeEnded, string(j.ID))
}

// endedAt is when a job ended, as it is kept: never 0 for one that has ended, so that
// it is forgotten some day.
func endedAt(j fleetscore.Job) int64 {
	switch {
	case !j.State.Ended():
		return 0
	case j.Ended == nil:
		return max(1, micros(j.Created))
	}
	return max(1, micros(*j.Ended))
}

const (
	selectJob = `SELECT seq, doc FROM jobs WHERE id = ?`
	lockJob   = selectJob + ` FOR UPDATE`
)

// job reads a job and locks it until the transaction ends.
func (t *tx) job(id fleetscore.JobID) (j fleetscore.Job, seq int64, err error) {
	var doc string
	if err := t.row(lockJob, string(id)).Scan(&seq, &doc); err != nil {
		return j, 0, err
	}
	j, err = decode[fleetscore.Job](string(id), doc)
	return j, seq, err
}

// putJob keeps a job that was have before. What only matters while it runs goes
// when it ends.
func (t *tx) putJob(have, j fleetscore.Job) error {
	doc, err := json.Marshal(j)
	if err != nil {
		return err
	}
	t.event(JobTopic(j.ID))
	if have.State != j.State || have.Reason != j.Reason {
		t.event(JobsTopic(j.Pipeline))
	}
	if err := t.exec(`UPDATE jobs SET state = ?, ended = ?, doc = ? WHERE id = ?`, string(j.State), endedAt(j), string(doc), string(j.ID)); err != nil {
		return err
	}
	if !j.State.Ended() {
		return nil
	}
	if !have.State.Ended() {
		for _, q := range []string{countEnded, sizeEnded} {
			if err := t.exec(q, string(j.ID)); err != nil {
				return err
			}
		}
	}
	if err := t.exec(`DELETE FROM inputs WHERE job = ?`, string(j.ID)); err != nil {
		return err
	}
	return t.exec(`DELETE FROM results WHERE job = ?`, string(j.ID))
}

// Job implements Jobs.
func (l *core) Job(ctx context.Context, id fleetscore.JobID) (fleetscore.Job, error) {
	j, err := scanDoc[fleetscore.Job](l.row(ctx, `SELECT doc FROM jobs WHERE id = ?`, string(id)).Scan)
	return j, l.problem("find job", string(id), err)
}

// jobsQuery lists jobs. The jobs of each state come from an index in the order of
// their making, so that a page costs what it shows, however many jobs there are.
func jobsQuery(f JobFilter) (text string, args []any) {
	limit := f.Limit
	if limit <= 0 {
		limit = math.MaxInt
	}
	one := func(state string) string {
		where := []string{}
		if f.Pipeline != "" {
			where, args = append(where, "pipeline = ?"), append(args, f.Pipeline)
		}
		if state != "" {
			where, args = append(where, "state = ?"), append(args, state)
		}
		if f.Before != "" {
			where, args = append(where, "seq < (SELECT seq FROM jobs WHERE id = ?)"), append(args, string(f.Before))
		}
		text := `SELECT seq, doc FROM jobs`
		if len(where) > 0 {
			text += ` WHERE ` + strings.Join(where, " AND ")
		}
		args = append(args, limit)
		return text + ` ORDER BY seq DESC LIMIT ?`
	}
	if len(f.States) == 0 {
		return `SELECT doc FROM (` + one("") + `) AS page`, args
	}
	var parts []string
	for _, s := range slices.Compact(slices.Sorted(slices.Values(f.States))) {
		parts = append(parts, `SELECT seq, doc FROM (`+one(string(s))+`) AS part`)
	}
	args = append(args, limit)
	return `SELECT doc FROM (` + strings.Join(parts, ` UNION ALL `) + `) AS page ORDER BY seq DESC LIMIT ?`, args
}

// Jobs implements Jobs.
func (l *core) Jobs(ctx context.Context, f JobFilter) ([]fleetscore.Job, error) {
	text, args := jobsQuery(f)
	return query(ctx, l, "list jobs", f.Pipeline, scanDoc[fleetscore.Job], text, args...)
}

const selectCounts = `SELECT state, n FROM job_counts WHERE n > 0`

// CountJobs implements Jobs.
func (l *core) CountJobs(ctx context.Context) (map[fleetscore.JobState]int64, error) {
	type count struct {
		state fleetscore.JobState
		n     int64
	}
	counts, err := query(ctx, l, "count jobs", "", func(scan func(...any) error) (count, error) {
		var c count
		return c, scan(&c.state, &c.n)
	}, selectCounts)
	out := map[fleetscore.JobState]int64{}
	for _, c := range counts {
		out[c.state] = c.n
	}
	return out, err
}

// UpdateJob implements JobChanges.
func (l *core) UpdateJob(ctx context.Context, id fleetscore.JobID, change func(*fleetscore.Job) error) (fleetscore.Job, error) {
	var j fleetscore.Job
	err := l.update(ctx, "change job", string(id), func(t *tx) (err error) {
		if j, _, err = t.job(id); err != nil {
			return err
		}
		have := j
		if err := change(&j); err != nil {
			return err
		}
		return t.putJob(have, j)
	})
	return j, err
}

// UpdateJobs implements JobChanges.
func (l *core) UpdateJobs(ctx context.Context, pipeline string, states []fleetscore.JobState, change func(*fleetscore.Job)) error {
	return l.update(ctx, "change jobs", pipeline, func(t *tx) error {
		text, args := jobsQuery(JobFilter{Pipeline: pipeline, States: states})
		jobs, err := list(t, scanDoc[fleetscore.Job], text, args...)
		if err != nil {
			return err
		}
		slices.Reverse(jobs) // the oldest first, as everywhere where several are locked
		for _, seen := range jobs {
			have, _, err := t.job(seen.ID)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			if err != nil || len(states) > 0 && !slices.Contains(states, have.State) {
				continue // it went on before it was locked
			}
			j := have
			change(&j)
			if have.Config.Pool != j.Config.Pool {
				if have.State != fleetscore.JobQueued { // tasks have run, and their results name these images
					j.FormerImages = have.Images()
				}
				j.Image, j.Environments = "", nil // the other pool has its own
			}
			same, err := equal(have, j)
			if err != nil {
				return err
			}
			if same {
				continue
			}
			if err := t.putJob(have, j); err != nil {
				return err
			}
			if have.Config.Pool != j.Config.Pool {
				if err := t.moveTasks(j); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// moveTasks takes the tasks of a job that haven't ended to the pool that the job names now. Those that run go
// on where they are.
func (t *tx) moveTasks(j fleetscore.Job) error {
	t.event(QueueTopic(j.Config.Pool))
	tasks, err := t.tasks(j.ID)
	if err != nil {
		return err
	}
	for _, task := range tasks {
		if task.State != fleetscore.TaskQueued || task.Image == "" {
			continue
		}
		task.Image = ""
		doc, err := json.Marshal(task)
		if err != nil {
			return err
		}
		if err := t.exec(`UPDATE tasks SET doc = ? WHERE id = ?`, string(doc), string(task.ID)); err != nil {
			return err
		}
	}
	return t.exec(`UPDATE tasks SET pool = ?, image = '' WHERE job = ? AND state IN ('queued', 'leased')`, j.Config.Pool, string(j.ID))
}

// equal reports whether two values are kept as the same text.
func equal(a, b any) (bool, error) {
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return string(x) == string(y), errors.Join(err, err2)
}

// PlanJob implements JobChanges.
func (l *core) PlanJob(ctx context.Context, j fleetscore.Job, tasks []PlannedTask) error {
	return l.update(ctx, "plan job", string(j.ID), func(t *tx) error {
		have, seq, err := t.job(j.ID)
		if err != nil {
			return err
		}
		if have.State != fleetscore.JobWaiting {
			return fleetscore.Errorf(fleetscore.Conflict, "plan job", string(j.ID), "it is %s, not waiting", have.State)
		}
		if same, err := equal(have.Config, j.Config); err != nil {
			return err
		} else if !same {
			return fleetscore.Errorf(fleetscore.Conflict, "plan job", string(j.ID), "its configuration changed meanwhile")
		}
		j.State, j.Tasks, j.TasksEnded = fleetscore.JobQueued, len(tasks), 0
		t.event(QueueTopic(j.Config.Pool))
		if err := t.putJob(have, j); err != nil {
			return err
		}
		for _, p := range tasks {
			if err := t.insertTask(p, seq, j); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *tx) insertTask(p PlannedTask, seq int64, j fleetscore.Job) error {
	doc, err := json.Marshal(p.Task)
	if err != nil {
		return err
	}
	in, err := json.Marshal(p.Input)
	if err != nil {
		return err
	}
	if err := t.exec(`INSERT INTO inputs (task, job, doc) VALUES (?, ?, ?)`, string(p.Task.ID), string(j.ID), string(in)); err != nil {
		return err
	}
	return t.exec(`INSERT INTO tasks (id, job, job_seq, idx, pool, priority, state, not_before, image, doc) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)`,
		string(p.Task.ID), string(j.ID), seq, p.Task.Index, j.Config.Pool, j.Priority.Rank(), string(p.Task.State), cmp.Or(p.Task.Image, j.Image), string(doc))
}

// CancelJob implements JobChanges.
func (l *core) CancelJob(ctx context.Context, id fleetscore.JobID, reason string, now time.Time) (j fleetscore.Job, err error) {
	err = l.update(ctx, "cancel job", string(id), func(t *tx) (err error) {
		j, err = t.cancelJob(id, reason, now)
		return err
	})
	return j, err
}

func (t *tx) cancelJob(id fleetscore.JobID, reason string, now time.Time) (fleetscore.Job, error) {
	j, _, err := t.job(id)
	if err != nil {
		return j, err
	}
	if j.State.Ended() || j.State == fleetscore.JobCommitting {
		return j, fleetscore.Errorf(fleetscore.Conflict, "cancel job", string(id), "it is %s", j.State).
			WithHint("only jobs that wait, are queued or run can be canceled")
	}
	tasks, err := t.tasks(id)
	if err != nil {
		return j, err
	}
	ended := now.UTC()
	for _, task := range tasks {
		if task.State.Ended() {
			continue
		}
		task.State, task.Reason, task.Ended = fleetscore.TaskCanceled, reason, &ended
		if err := t.putTask(task, time.Time{}); err != nil {
			return j, err
		}
	}
	attempts, err := list(t, scanAttempt, selectLeasedOfJob, string(id))
	if err != nil {
		return j, err
	}
	for _, a := range attempts {
		if err := t.exec(`UPDATE attempts SET state = 'canceled', reason = ?, ended = ? WHERE lease = ?`, reason, micros(now), string(a.Lease)); err != nil {
			return j, err
		}
		if err := t.idle(a.Node, now); err != nil {
			return j, err
		}
		t.event(AttemptsTopic)
	}
	have := j
	j.State, j.Reason, j.Ended, j.TasksEnded = fleetscore.JobCanceled, reason, &ended, len(tasks)
	return j, t.putJob(have, j)
}

// TimeOutJob implements JobChanges.
func (l *core) TimeOutJob(ctx context.Context, id fleetscore.JobID, reason string, now time.Time) (fleetscore.Job, error) {
	var j fleetscore.Job
	err := l.update(ctx, "end job", string(id), func(t *tx) (err error) {
		if j, _, err = t.job(id); err != nil {
			return err
		}
		if j.State != fleetscore.JobRunning {
			return fleetscore.Errorf(fleetscore.Conflict, "end job", string(id), "it is %s, not running", j.State)
		}
		if err := t.endTasks(id, reason, now, fleetscore.TaskFailed, fleetscore.TimedOut); err != nil {
			return err
		}
		have := j
		j.State, j.TasksEnded = fleetscore.JobCommitting, j.Tasks
		return t.putJob(have, j)
	})
	return j, err
}

// endTasks ends the tasks of a job that haven't ended, and their leases.
func (t *tx) endTasks(id fleetscore.JobID, reason string, now time.Time, state fleetscore.TaskState, outcome fleetscore.Outcome) error {
	tasks, err := t.tasks(id)
	if err != nil {
		return err
	}
	ended := now.UTC()
	for _, task := range tasks {
		if task.State.Ended() {
			continue
		}
		task.State, task.Reason, task.Outcome, task.Ended = state, reason, outcome, &ended
		if err := t.putTask(task, time.Time{}); err != nil {
			return err
		}
	}
	attempts, err := list(t, scanAttempt, selectLeasedOfJob, string(id))
	if err != nil {
		return err
	}
	for _, a := range attempts {
		if err := t.exec(`UPDATE attempts SET state = ?, reason = ?, ended = ? WHERE lease = ?`, cmp.Or(string(outcome), "canceled"), reason, micros(now), string(a.Lease)); err != nil {
			return err
		}
		if err := t.idle(a.Node, now); err != nil {
			return err
		}
		t.event(AttemptsTopic)
	}
	return nil
}

// Harms keeps what models did to the processes that scored them.
type Harms interface {
	// Harms are those of a fleet's sensors, by pipeline and key; of all fleets if fleet is empty.
	Harms(ctx context.Context, fleet string) ([]fleetscore.Harm, error)
	// ChangeHarms changes those of a fleet's sensors. The function sees them as they are,
	// in the transaction, and returns those that are new or changed and those that are to be
	// removed.
	ChangeHarms(ctx context.Context, fleet string, change func([]fleetscore.Harm) (put, remove []fleetscore.Harm)) error
}

const (
	selectHarms    = `SELECT doc FROM harms WHERE fleet = ? ORDER BY pipeline, sensor`
	selectAllHarms = `SELECT doc FROM harms ORDER BY fleet, pipeline, sensor`
)

// Harms implements the role Harms.
func (l *core) Harms(ctx context.Context, fleet string) ([]fleetscore.Harm, error) {
	if fleet == "" {
		return query(ctx, l, "read harm", "", scanDoc[fleetscore.Harm], selectAllHarms)
	}
	return query(ctx, l, "read harm", fleet, scanDoc[fleetscore.Harm], selectHarms, fleet)
}

// ChangeHarms implements the role Harms.
func (l *core) ChangeHarms(ctx context.Context, fleet string, change func([]fleetscore.Harm) (put, remove []fleetscore.Harm)) error {
	return l.update(ctx, "change harm", fleet, func(t *tx) error {
		if err := t.lock("fleet " + fleet); err != nil {
			return err
		}
		have, err := list(t, scanDoc[fleetscore.Harm], selectHarms, fleet)
		if err != nil {
			return err
		}
		put, remove := change(have)
		for _, h := range remove {
			if err := t.exec(`DELETE FROM harms WHERE fleet = ? AND pipeline = ? AND sensor = ?`, fleet, h.Pipeline, string(h.Key)); err != nil {
				return err
			}
		}
		for _, h := range put {
			h.Fleet = fleet
			doc, err := json.Marshal(h)
			if err != nil {
				return err
			}
			if err := t.exec(`INSERT INTO harms (fleet, pipeline, sensor, doc) VALUES (?, ?, ?, ?) ON CONFLICT (fleet, pipeline, sensor) DO UPDATE SET doc = excluded.doc`, fleet, h.Pipeline, string(h.Key), string(doc)); err != nil {
				return err
			}
		}
		return nil
	})
}
