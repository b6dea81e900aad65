package ledger

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

// JobFilter narrows a list of jobs. The zero value means all.
type JobFilter struct {
	Pipeline string
	States   []fleetscore.JobState
	Limit    int              // 0 means no limit
	Before   fleetscore.JobID // only jobs made before this one
}

// Input is what all attempts of a job read: a dataset's files as they were when
// the job was planned.
type Input struct {
	Version  int64                 `json:"version"` // of the dataset's table
	TimeName string                `json:"time_name"`
	KeyNames []string              `json:"key_names"`
	Files    []fleetscore.DataFile `json:"files"`
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

// InsertJob keeps a new job; kind Conflict if its id is taken.
func (l *Ledger) InsertJob(ctx context.Context, j fleetscore.Job) error {
	return l.update(ctx, "store job", string(j.ID), func(t *tx) error { return t.insertJob(j) })
}

func (t *tx) insertJob(j fleetscore.Job) error {
	doc, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return t.exec(`INSERT INTO jobs (id, pipeline, state, doc) VALUES (?, ?, ?, ?)`, string(j.ID), j.Pipeline, string(j.State), string(doc))
}

func (t *tx) job(id fleetscore.JobID) (j fleetscore.Job, seq int64, err error) {
	var doc string
	if err := t.row(`SELECT seq, doc FROM jobs WHERE id = ?`, string(id)).Scan(&seq, &doc); err != nil {
		return j, 0, err
	}
	j, err = decode[fleetscore.Job](string(id), doc)
	return j, seq, err
}

// putJob keeps a changed job. What only matters while it runs goes when it ends.
func (t *tx) putJob(j fleetscore.Job) error {
	doc, err := json.Marshal(j)
	if err != nil {
		return err
	}
	if err := t.exec(`UPDATE jobs SET state = ?, doc = ? WHERE id = ?`, string(j.State), string(doc), string(j.ID)); err != nil {
		return err
	}
	if !j.State.Ended() {
		return nil
	}
	if err := t.exec(`DELETE FROM inputs WHERE job = ?`, string(j.ID)); err != nil {
		return err
	}
	return t.exec(`DELETE FROM results WHERE job = ?`, string(j.ID))
}

// Job is the job of that id; kind NotFound if there is none.
func (l *Ledger) Job(ctx context.Context, id fleetscore.JobID) (fleetscore.Job, error) {
	j, err := scanDoc[fleetscore.Job](l.read.QueryRowContext(ctx, `SELECT doc FROM jobs WHERE id = ?`, string(id)).Scan)
	return j, problem("find job", string(id), err)
}

// Jobs are the jobs that fit the filter, newest first.
func (l *Ledger) Jobs(ctx context.Context, f JobFilter) ([]fleetscore.Job, error) {
	where, args := []string{"1"}, []any{}
	if f.Pipeline != "" {
		where, args = append(where, "pipeline = ?"), append(args, f.Pipeline)
	}
	if len(f.States) > 0 {
		where = append(where, "state IN ("+marks(len(f.States))+")")
		for _, s := range f.States {
			args = append(args, string(s))
		}
	}
	if f.Before != "" {
		where, args = append(where, "seq < (SELECT seq FROM jobs WHERE id = ?)"), append(args, string(f.Before))
	}
	limit := f.Limit
	if limit <= 0 {
		limit = -1
	}
	return query(ctx, l, "list jobs", f.Pipeline, scanDoc[fleetscore.Job],
		`SELECT doc FROM jobs WHERE `+strings.Join(where, " AND ")+` ORDER BY seq DESC LIMIT ?`, append(args, limit)...)
}

// CountJobs counts all jobs by state; states without jobs are absent.
func (l *Ledger) CountJobs(ctx context.Context) (map[fleetscore.JobState]int64, error) {
	type count struct {
		state fleetscore.JobState
		n     int64
	}
	counts, err := query(ctx, l, "count jobs", "", func(scan func(...any) error) (count, error) {
		var c count
		return c, scan(&c.state, &c.n)
	}, `SELECT state, COUNT(*) FROM jobs GROUP BY state`)
	out := map[fleetscore.JobState]int64{}
	for _, c := range counts {
		out[c.state] = c.n
	}
	return out, err
}

// UpdateJob changes a job by a function that sees it as it is, in one
// transaction. An error of the function changes nothing and is returned.
func (l *Ledger) UpdateJob(ctx context.Context, id fleetscore.JobID, change func(*fleetscore.Job) error) (fleetscore.Job, error) {
	var j fleetscore.Job
	err := l.update(ctx, "change job", string(id), func(t *tx) (err error) {
		if j, _, err = t.job(id); err != nil {
			return err
		}
		if err := change(&j); err != nil {
			return err
		}
		return t.putJob(j)
	})
	return j, err
}

// PlanJob turns a waiting job into a queued one with tasks: generation, expected
// keys and the like are taken from j. Kind Conflict if it waits no more.
func (l *Ledger) PlanJob(ctx context.Context, j fleetscore.Job, tasks []fleetscore.Task, in Input) error {
	return l.update(ctx, "plan job", string(j.ID), func(t *tx) error {
		have, seq, err := t.job(j.ID)
		if err != nil {
			return err
		}
		if have.State != fleetscore.JobWaiting {
			return fleetscore.Errorf(fleetscore.Conflict, "plan job", string(j.ID), "it is %s, not waiting", have.State)
		}
		j.State, j.Tasks, j.TasksEnded = fleetscore.JobQueued, len(tasks), 0
		if err := t.putJob(j); err != nil {
			return err
		}
		doc, err := json.Marshal(in)
		if err != nil {
			return err
		}
		if err := t.exec(`INSERT INTO inputs (job, doc) VALUES (?, ?)`, string(j.ID), string(doc)); err != nil {
			return err
		}
		for _, task := range tasks {
			doc, err := json.Marshal(task)
			if err != nil {
				return err
			}
			if err := t.exec(`INSERT INTO tasks (id, job, job_seq, idx, pool, state, not_before, doc) VALUES (?, ?, ?, ?, ?, ?, 0, ?)`,
				string(task.ID), string(j.ID), seq, task.Index, j.Config.Pool, string(task.State), string(doc)); err != nil {
				return err
			}
		}
		return nil
	})
}

// CancelJob ends a job, its tasks and their leases. Kind Conflict if it ended, or
// if its results are becoming visible.
func (l *Ledger) CancelJob(ctx context.Context, id fleetscore.JobID, reason string, now time.Time) (fleetscore.Job, error) {
	var j fleetscore.Job
	err := l.update(ctx, "cancel job", string(id), func(t *tx) (err error) {
		if j, _, err = t.job(id); err != nil {
			return err
		}
		if j.State.Ended() || j.State == fleetscore.JobCommitting {
			return fleetscore.Errorf(fleetscore.Conflict, "cancel job", string(id), "it is %s", j.State).
				WithHint("only jobs that wait, are queued or run can be canceled")
		}
		tasks, err := t.tasks(id)
		if err != nil {
			return err
		}
		ended := now.UTC()
		for _, task := range tasks {
			if task.State.Ended() {
				continue
			}
			task.State, task.Reason, task.Ended = fleetscore.TaskCanceled, reason, &ended
			if err := t.putTask(task, time.Time{}); err != nil {
				return err
			}
		}
		rows, err := t.QueryContext(t.ctx, selectAttempts+` WHERE state = 'leased' AND job = ?`, string(id))
		if err != nil {
			return err
		}
		attempts, err := collect(rows, scanAttempt)
		if err != nil {
			return err
		}
		for _, a := range attempts {
			if err := t.exec(`UPDATE attempts SET state = 'canceled', reason = ?, ended = ? WHERE lease = ?`, reason, micros(now), string(a.Lease)); err != nil {
				return err
			}
			if err := t.idle(a.Node, now); err != nil {
				return err
			}
		}
		j.State, j.Reason, j.Ended, j.TasksEnded = fleetscore.JobCanceled, reason, &ended, len(tasks)
		return t.putJob(j)
	})
	return j, err
}
