package ledger

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/fleetscore/fleetscore"
)

// leased is the state of an attempt that hasn't ended.
const leased = "leased"

// Leased is an attempt and what it is of.
type Leased struct {
	Job     fleetscore.Job
	Task    fleetscore.Task
	Attempt fleetscore.Attempt
	Input   Input // set by LeaseTasks only
}

// AttemptEnd says how an attempt ended and what became of its task.
type AttemptEnd struct {
	State     string          // of the attempt: succeeded, failed, expired, lost, …
	Reason    string          // of the attempt
	Task      fleetscore.Task // as it is now
	NotBefore time.Time       // the task is not leased again before this; zero means at once
	Result    []byte          // JSON to keep until the job ended; nil for none
}

// Tasks are a job's, by index.
func (l *Ledger) Tasks(ctx context.Context, job fleetscore.JobID) ([]fleetscore.Task, error) {
	return query(ctx, l, "list tasks", string(job), scanDoc[fleetscore.Task], `SELECT doc FROM tasks WHERE job = ? ORDER BY idx`, string(job))
}

func (t *tx) tasks(job fleetscore.JobID) ([]fleetscore.Task, error) {
	rows, err := t.QueryContext(t.ctx, `SELECT doc FROM tasks WHERE job = ? ORDER BY idx`, string(job))
	if err != nil {
		return nil, err
	}
	return collect(rows, scanDoc[fleetscore.Task])
}

func (t *tx) putTask(task fleetscore.Task, notBefore time.Time) error {
	doc, err := json.Marshal(task)
	if err != nil {
		return err
	}
	return t.exec(`UPDATE tasks SET state = ?, not_before = ?, doc = ? WHERE id = ?`, string(task.State), micros(notBefore), string(doc), string(task.ID))
}

// Attempts are a task's, in order.
func (l *Ledger) Attempts(ctx context.Context, task fleetscore.TaskID) ([]fleetscore.Attempt, error) {
	return query(ctx, l, "list attempts", string(task), scanAttempt, selectAttempts+` WHERE task = ? ORDER BY number`, string(task))
}

// Attempt is the one of a lease; kind NotFound if there is no such lease. It
// returns the job too.
func (l *Ledger) Attempt(ctx context.Context, lease fleetscore.LeaseID) (fleetscore.Attempt, fleetscore.JobID, error) {
	a, err := scanAttempt(l.read.QueryRowContext(ctx, selectAttempts+` WHERE lease = ?`, string(lease)).Scan)
	if err != nil {
		return a, "", problem("find lease", string(lease), err)
	}
	var job fleetscore.JobID
	err = l.read.QueryRowContext(ctx, `SELECT job FROM attempts WHERE lease = ?`, string(lease)).Scan(&job)
	return a, job, problem("find lease", string(lease), err)
}

const selectAttempts = `SELECT lease, task, number, node, state, reason, started, expires, ended FROM attempts`

func scanAttempt(scan func(...any) error) (fleetscore.Attempt, error) {
	var a fleetscore.Attempt
	var started, expires, ended int64
	err := scan(&a.Lease, &a.Task, &a.Number, &a.Node, &a.State, &a.Reason, &started, &expires, &ended)
	a.Started, a.Expires = timeOf(started), timeOf(expires)
	if ended != 0 {
		at := timeOf(ended)
		a.Ended = &at
	}
	return a, err
}

// Input is what a planned job reads; kind NotFound before it is planned and after
// it ended.
func (l *Ledger) Input(ctx context.Context, job fleetscore.JobID) (Input, error) {
	in, err := scanDoc[Input](l.read.QueryRowContext(ctx, `SELECT doc FROM inputs WHERE job = ?`, string(job)).Scan)
	return in, problem("read input", string(job), err)
}

// Results are what a job's tasks delivered, until the job ended.
func (l *Ledger) Results(ctx context.Context, job fleetscore.JobID) (map[fleetscore.TaskID]json.RawMessage, error) {
	type result struct {
		task fleetscore.TaskID
		doc  string
	}
	rows, err := query(ctx, l, "read results", string(job), func(scan func(...any) error) (result, error) {
		var r result
		return r, scan(&r.task, &r.doc)
	}, `SELECT task, doc FROM results WHERE job = ?`, string(job))
	out := make(map[fleetscore.TaskID]json.RawMessage, len(rows))
	for _, r := range rows {
		out[r.task] = json.RawMessage(r.doc)
	}
	return out, err
}

// QueueDepth counts the tasks of a pool that wait and that run.
func (l *Ledger) QueueDepth(ctx context.Context, pool string) (queued, running int64, err error) {
	err = l.read.QueryRowContext(ctx, `SELECT COUNT(*) FILTER (WHERE state = 'queued'), COUNT(*) FILTER (WHERE state = 'leased')
		FROM tasks WHERE pool = ? AND state IN ('queued', 'leased')`, pool).Scan(&queued, &running)
	return queued, running, problem("count tasks", pool, err)
}

// NextRetry is when the next task of a pool that waits for its retry may be
// leased; zero if none waits.
func (l *Ledger) NextRetry(ctx context.Context, pool string, now time.Time) (time.Time, error) {
	var at sql.NullInt64
	err := l.read.QueryRowContext(ctx, `SELECT MIN(not_before) FROM tasks WHERE pool = ? AND state = 'queued' AND not_before > ?`, pool, micros(now)).Scan(&at)
	return timeOf(at.Int64), problem("read queue", pool, err)
}

// LeaseTasks gives up to max queued tasks of a pool to a node, the oldest job's
// first, for as long as ttl. Their jobs become running. Kind Conflict if the node
// isn't ready.
func (l *Ledger) LeaseTasks(ctx context.Context, pool string, node fleetscore.NodeID, max int, now time.Time, ttl time.Duration) ([]Leased, error) {
	const due = ` FROM tasks WHERE pool = ? AND state = 'queued' AND not_before <= ?`
	var some bool // an empty queue costs no write
	if err := l.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1`+due+`)`, pool, micros(now)).Scan(&some); err != nil {
		return nil, problem("lease tasks", string(node), err)
	}
	if !some || max < 1 {
		return nil, nil
	}
	now = now.UTC()
	var out []Leased
	err := l.update(ctx, "lease tasks", string(node), func(t *tx) error {
		n, err := scanNode(t.row(selectNodes+` WHERE id = ?`, string(node)).Scan)
		if err != nil {
			return err
		}
		if n.State != fleetscore.NodeReady || n.Pool != pool {
			return fleetscore.Errorf(fleetscore.Conflict, "lease tasks", string(node), "the node is %s, in pool %s", n.State, n.Pool)
		}
		rows, err := t.QueryContext(t.ctx, `SELECT doc`+due+` ORDER BY job_seq, idx LIMIT ?`, pool, micros(now), max)
		if err != nil {
			return err
		}
		tasks, err := collect(rows, scanDoc[fleetscore.Task])
		if err != nil {
			return err
		}
		for _, task := range tasks {
			ls, err := t.lease(task, node, now, ttl)
			if err != nil {
				return err
			}
			out = append(out, ls)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (t *tx) lease(task fleetscore.Task, node fleetscore.NodeID, now time.Time, ttl time.Duration) (Leased, error) {
	j, _, err := t.job(task.Job)
	if err != nil {
		return Leased{}, err
	}
	in, err := scanDoc[Input](t.row(`SELECT doc FROM inputs WHERE job = ?`, string(j.ID)).Scan)
	if err != nil {
		return Leased{}, err
	}
	task.State, task.Node = fleetscore.TaskLeased, node
	task.Attempts++
	if task.Started == nil {
		task.Started = &now
	}
	if err := t.putTask(task, time.Time{}); err != nil {
		return Leased{}, err
	}
	if j.State == fleetscore.JobQueued {
		j.State, j.Started = fleetscore.JobRunning, &now
		if err := t.putJob(j); err != nil {
			return Leased{}, err
		}
	}
	a := fleetscore.Attempt{Lease: fleetscore.LeaseID(rand.Text()), Task: task.ID, Number: task.Attempts, Node: node, State: leased, Started: now, Expires: now.Add(ttl)}
	err = t.exec(`INSERT INTO attempts (lease, task, job, number, node, state, reason, started, expires, ended) VALUES (?, ?, ?, ?, ?, ?, '', ?, ?, 0)`,
		string(a.Lease), string(a.Task), string(j.ID), a.Number, string(node), a.State, micros(a.Started), micros(a.Expires))
	return Leased{Job: j, Task: task, Attempt: a, Input: in}, err
}

// EndAttempt ends the attempt of a lease as decide says. The lease's id is the
// fencing token: kind Conflict if the attempt ended before, NotFound if there
// never was such a lease. When the last task of a job ends, the job becomes
// committing. It returns what ended, as it is now.
func (l *Ledger) EndAttempt(ctx context.Context, lease fleetscore.LeaseID, now time.Time, decide func(Leased) (AttemptEnd, error)) (Leased, error) {
	var out Leased
	err := l.update(ctx, "end attempt", string(lease), func(t *tx) error {
		a, err := scanAttempt(t.row(selectAttempts+` WHERE lease = ?`, string(lease)).Scan)
		if err != nil {
			return err
		}
		if a.State != leased {
			return fleetscore.Errorf(fleetscore.Conflict, "end attempt", string(a.Task), "attempt %d ended before: %s", a.Number, a.State).
				WithHint("drop its work: another attempt does the task")
		}
		out, err = t.end(a, now.UTC(), decide)
		return err
	})
	return out, err
}

// LeaseFilter names leases that haven't ended.
type LeaseFilter struct {
	Node          fleetscore.NodeID // those of this node; empty means of all
	ExpiredBefore time.Time         // only those that expired before; zero means all
}

// TakeBack ends the leases that fit, each as decide says, all or none.
func (l *Ledger) TakeBack(ctx context.Context, which LeaseFilter, now time.Time, decide func(Leased) (AttemptEnd, error)) ([]Leased, error) {
	where, args := ` WHERE state = 'leased'`, []any{}
	if which.Node != "" {
		where, args = where+` AND node = ?`, append(args, string(which.Node))
	}
	if !which.ExpiredBefore.IsZero() {
		where, args = where+` AND expires < ?`, append(args, micros(which.ExpiredBefore))
	}
	some, err := query(ctx, l, "take leases back", string(which.Node), scanAttempt, selectAttempts+where, args...)
	if err != nil || len(some) == 0 {
		return nil, err // nothing to do costs no write
	}
	var out []Leased
	err = l.update(ctx, "take leases back", string(which.Node), func(t *tx) error {
		rows, err := t.QueryContext(t.ctx, selectAttempts+where+` ORDER BY task, number`, args...)
		if err != nil {
			return err
		}
		attempts, err := collect(rows, scanAttempt)
		if err != nil {
			return err
		}
		for _, a := range attempts {
			ls, err := t.end(a, now.UTC(), decide)
			if err != nil {
				return err
			}
			out = append(out, ls)
		}
		return nil
	})
	return out, err
}

// end ends one leased attempt.
func (t *tx) end(a fleetscore.Attempt, now time.Time, decide func(Leased) (AttemptEnd, error)) (Leased, error) {
	task, err := scanDoc[fleetscore.Task](t.row(`SELECT doc FROM tasks WHERE id = ?`, string(a.Task)).Scan)
	if err != nil {
		return Leased{}, err
	}
	j, _, err := t.job(task.Job)
	if err != nil {
		return Leased{}, err
	}
	e, err := decide(Leased{Job: j, Task: task, Attempt: a})
	if err != nil {
		return Leased{}, err
	}
	task, a.State, a.Reason, a.Ended = e.Task, e.State, e.Reason, &now
	if task.State.Ended() && task.Ended == nil {
		task.Ended = &now
	}
	if err := t.putTask(task, e.NotBefore); err != nil {
		return Leased{}, err
	}
	if err := t.exec(`UPDATE attempts SET state = ?, reason = ?, ended = ? WHERE lease = ?`, a.State, a.Reason, micros(now), string(a.Lease)); err != nil {
		return Leased{}, err
	}
	if e.Result != nil {
		if err := t.exec(`INSERT INTO results (task, job, doc) VALUES (?, ?, ?)`, string(task.ID), string(j.ID), string(e.Result)); err != nil {
			return Leased{}, err
		}
	}
	if err := t.idle(a.Node, now); err != nil {
		return Leased{}, err
	}
	if task.State.Ended() {
		j.TasksEnded++
		if j.TasksEnded == j.Tasks {
			j.State = fleetscore.JobCommitting
		}
		if err := t.putJob(j); err != nil {
			return Leased{}, err
		}
	}
	return Leased{Job: j, Task: task, Attempt: a}, nil
}
