package ledger

import (
	"context"
	"encoding/json"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Tasks reads tasks, their attempts and results.
type Tasks interface {
	// Tasks are a job's, by index.
	Tasks(ctx context.Context, job fleetscore.JobID) ([]fleetscore.Task, error)
	// Attempts are a task's, in order.
	Attempts(ctx context.Context, task fleetscore.TaskID) ([]fleetscore.Attempt, error)
	// Attempt is the one of a lease; kind NotFound if there is no such lease. It
	// returns the job too.
	Attempt(ctx context.Context, lease fleetscore.LeaseID) (fleetscore.Attempt, fleetscore.JobID, error)
	// Inputs are what a job's tasks read, by task; none before the job is planned
	// and after it ended.
	Inputs(ctx context.Context, job fleetscore.JobID) ([]Input, error)
	// Results are what a job's tasks delivered, until the job ended.
	Results(ctx context.Context, job fleetscore.JobID) (map[fleetscore.TaskID]json.RawMessage, error)
}

const selectTasks = `SELECT doc FROM tasks WHERE job = ? ORDER BY idx`

// Tasks implements the role Tasks.
func (l *core) Tasks(ctx context.Context, job fleetscore.JobID) ([]fleetscore.Task, error) {
	return query(ctx, l, "list tasks", string(job), scanDoc[fleetscore.Task], selectTasks, string(job))
}

// tasks reads a job's tasks and locks them until the transaction ends.
func (t *tx) tasks(job fleetscore.JobID) ([]fleetscore.Task, error) {
	return list(t, scanDoc[fleetscore.Task], selectTasks+` FOR UPDATE`, string(job))
}

func (t *tx) putTask(task fleetscore.Task, notBefore time.Time) error {
	doc, err := json.Marshal(task)
	if err != nil {
		return err
	}
	return t.exec(`UPDATE tasks SET state = ?, not_before = ?, doc = ? WHERE id = ?`, string(task.State), micros(notBefore), string(doc), string(task.ID))
}

const (
	selectAttempts    = `SELECT lease, task, number, node, state, reason, started, expires, ended, job FROM attempts`
	selectAttemptsOf  = selectAttempts + ` WHERE task = ? ORDER BY number`
	selectAttempt     = selectAttempts + ` WHERE lease = ?`
	lockAttempt       = selectAttempt + ` FOR UPDATE`
	selectLeasedOfJob = selectAttempts + ` WHERE state = 'leased' AND job = ?`
)

// Attempts implements the role Tasks.
func (l *core) Attempts(ctx context.Context, task fleetscore.TaskID) ([]fleetscore.Attempt, error) {
	return query(ctx, l, "list attempts", string(task), scanAttempt, selectAttemptsOf, string(task))
}

// Attempt implements the role Tasks.
func (l *core) Attempt(ctx context.Context, lease fleetscore.LeaseID) (fleetscore.Attempt, fleetscore.JobID, error) {
	h, err := scanHeld(l.row(ctx, selectAttempt, string(lease)).Scan)
	return h.Attempt, h.job, l.problem("find lease", string(lease), err)
}

// held is an attempt with its job.
type held struct {
	fleetscore.Attempt
	job fleetscore.JobID
}

func scanAttempt(scan func(...any) error) (fleetscore.Attempt, error) {
	h, err := scanHeld(scan)
	return h.Attempt, err
}

func scanHeld(scan func(...any) error) (held, error) {
	var a held
	var started, expires, ended int64
	err := scan(&a.Lease, &a.Task, &a.Number, &a.Node, &a.State, &a.Reason, &started, &expires, &ended, &a.job)
	a.Started, a.Expires = timeOf(started), timeOf(expires)
	if ended != 0 {
		at := timeOf(ended)
		a.Ended = &at
	}
	return a, err
}

const (
	selectInput  = `SELECT doc FROM inputs WHERE task = ?`
	selectInputs = `SELECT doc FROM inputs WHERE job = ? ORDER BY task`
)

// Inputs implements the role Tasks.
func (l *core) Inputs(ctx context.Context, job fleetscore.JobID) ([]Input, error) {
	return query(ctx, l, "read inputs", string(job), scanDoc[Input], selectInputs, string(job))
}

const selectResults = `SELECT task, doc FROM results WHERE job = ?`

// Results implements the role Tasks.
func (l *core) Results(ctx context.Context, job fleetscore.JobID) (map[fleetscore.TaskID]json.RawMessage, error) {
	type result struct {
		task fleetscore.TaskID
		doc  string
	}
	rows, err := query(ctx, l, "read results", string(job), func(scan func(...any) error) (result, error) {
		var r result
		return r, scan(&r.task, &r.doc)
	}, selectResults, string(job))
	out := make(map[fleetscore.TaskID]json.RawMessage, len(rows))
	for _, r := range rows {
		out[r.task] = json.RawMessage(r.doc)
	}
	return out, err
}
