package ledger

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
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

// LeaseFilter names leases that haven't ended.
type LeaseFilter struct {
	Node          fleetscore.NodeID // those of this node; empty means of all
	Gone          bool              // only those of nodes that have ended
	Job           fleetscore.JobID  // those of this job's tasks; empty means of all
	ExpiredBefore time.Time         // only those that expired before; zero means all
	StartedBefore time.Time         // only those that were given before; zero means all
}

// Queue gives tasks to nodes and takes their answers. What each of its methods
// costs depends on what waits and runs, not on what has ended.
type Queue interface {
	// QueueDepth counts the tasks of a pool that wait and that run.
	QueueDepth(ctx context.Context, pool string) (queued, running int64, err error)
	// TasksDue counts the tasks of a pool that may be leased now, up to most.
	TasksDue(ctx context.Context, pool string, most int, now time.Time) (int, error)
	// NextRetry is when the next task of a pool that waits for its retry may be
	// leased; zero if none waits.
	NextRetry(ctx context.Context, pool string, now time.Time) (time.Time, error)
	// QueuedImages counts the tasks of a pool that wait, by the image that they have to run
	// in, the image of the first one first.
	QueuedImages(ctx context.Context, pool string) ([]QueuedImage, error)
	// LeaseTasks gives up to max queued tasks of a pool to a node, those of the highest
	// priority and of the oldest job first, for as long as ttl. Tasks of another image than
	// the node's are left out. Their jobs become running. Kind Conflict if the node takes no
	// tasks.
	LeaseTasks(ctx context.Context, pool string, node fleetscore.NodeID, max int, now time.Time, ttl time.Duration) ([]Leased, error)
	// EndAttempt ends the attempt of a lease as decide says. The lease's id is the
	// fencing token: kind Conflict if the attempt ended before, NotFound if there
	// never was such a lease. When the last task of a job ends, the job becomes
	// committing. It returns what ended, as it is now.
	EndAttempt(ctx context.Context, lease fleetscore.LeaseID, now time.Time, decide func(Leased) (AttemptEnd, error)) (Leased, error)
	// TakeBack ends the leases that fit, each as decide says. A lease that can't be ended
	// doesn't hold up the others; the error names all of these.
	TakeBack(ctx context.Context, which LeaseFilter, now time.Time, decide func(Leased) (AttemptEnd, error)) ([]Leased, error)
}

// The conditions repeat those of the partial indexes word for word.
const (
	countQueued = `SELECT COUNT(*) FROM tasks WHERE pool = ? AND state = 'queued'`
	countLeased = `SELECT COUNT(*) FROM tasks WHERE pool = ? AND state = 'leased'`
	nextRetry   = `SELECT MIN(not_before) FROM tasks WHERE pool = ? AND state = 'queued' AND not_before > ?`
	countDue    = `SELECT COUNT(*) FROM (SELECT 1 FROM tasks WHERE pool = ? AND state = 'queued' AND not_before <= ? LIMIT ?) AS part`
	anyDue      = `SELECT EXISTS (SELECT 1 FROM tasks WHERE pool = ? AND state = 'queued' AND not_before <= ?)`
	// The plus keeps the engine from the index by not_before, after which it would sort
	// all tasks that wait.
	selectDue     = `SELECT doc FROM tasks WHERE pool = ? AND state = 'queued' AND +not_before <= ? AND image IN ('', ?) ORDER BY priority, job_seq, idx LIMIT ? FOR UPDATE SKIP LOCKED`
	selectTasksOf = `SELECT doc FROM tasks WHERE id IN (SELECT w.value FROM json_each(?) AS w)`
)

// QueueDepth implements Queue.
func (l *core) QueueDepth(ctx context.Context, pool string) (queued, running int64, err error) {
	err = l.row(ctx, `SELECT (`+countQueued+`), (`+countLeased+`)`, pool, pool).Scan(&queued, &running)
	return queued, running, l.problem("count tasks", pool, err)
}

// TasksDue implements Queue.
func (l *core) TasksDue(ctx context.Context, pool string, most int, now time.Time) (n int, err error) {
	err = l.row(ctx, countDue, pool, micros(now), most).Scan(&n)
	return n, l.problem("count tasks", pool, err)
}

// NextRetry implements Queue.
func (l *core) NextRetry(ctx context.Context, pool string, now time.Time) (time.Time, error) {
	var at sql.NullInt64
	err := l.row(ctx, nextRetry, pool, micros(now)).Scan(&at)
	return timeOf(at.Int64), l.problem("read queue", pool, err)
}

// LeaseTasks implements Queue.
func (l *core) LeaseTasks(ctx context.Context, pool string, node fleetscore.NodeID, max int, now time.Time, ttl time.Duration) ([]Leased, error) {
	var some bool // an empty queue costs no write
	if err := l.row(ctx, anyDue, pool, micros(now)).Scan(&some); err != nil {
		return nil, l.problem("lease tasks", string(node), err)
	}
	if !some || max < 1 {
		return nil, nil
	}
	now = now.UTC()
	var out []Leased
	err := l.update(ctx, "lease tasks", string(node), func(t *tx) error {
		out = nil
		n, err := scanNode(t.row(lockNode, string(node)).Scan)
		if err != nil {
			return err
		}
		if !n.State.Works() || n.Pool != pool {
			return fleetscore.Errorf(fleetscore.Conflict, "lease tasks", string(node), "the node is %s, in pool %s", n.State, n.Pool)
		}
		tasks, err := list(t, scanDoc[fleetscore.Task], selectDue, pool, micros(now), n.Image, max)
		if err != nil {
			return err
		}
		out, err = t.lease(tasks, n, now, ttl)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// lease gives tasks to a node.
func (t *tx) lease(tasks []fleetscore.Task, n fleetscore.Node, now time.Time, ttl time.Duration) (out []Leased, err error) {
	ids := make([]fleetscore.TaskID, len(tasks))
	for i, task := range tasks {
		ids[i] = task.ID
	}
	inputs, err := list(t, scanTaskDoc, selectInputsOf, names(t.l, ids))
	if err != nil {
		return nil, err
	}
	inputOf := map[fleetscore.TaskID]string{}
	for _, in := range inputs {
		inputOf[in.task] = in.doc
	}
	jobs := map[fleetscore.JobID]fleetscore.Job{}
	var c changes
	for _, task := range tasks {
		j, ok := jobs[task.Job]
		if !ok {
			if j, err = t.running(task.Job, now); err != nil {
				return nil, err
			}
			jobs[task.Job] = j
		}
		in, err := decode[Input](string(task.ID), inputOf[task.ID])
		if err != nil {
			return nil, err
		}
		task.State, task.Node, task.NodeKind, task.Image = fleetscore.TaskLeased, n.ID, n.Kind, n.Image
		task.Attempts++
		if task.Started == nil {
			task.Started = &now
		}
		a := fleetscore.Attempt{Lease: fleetscore.LeaseID(rand.Text()), Task: task.ID, Number: task.Attempts, Node: n.ID, State: leased, Started: now, Expires: now.Add(ttl)}
		if err := c.task(task, time.Time{}); err != nil {
			return nil, err
		}
		c.begun = append(c.begun, record{"lease": string(a.Lease), "task": string(a.Task), "job": string(j.ID), "number": a.Number, "node": string(n.ID), "started": micros(a.Started), "expires": micros(a.Expires)})
		out = append(out, Leased{Job: j, Task: task, Attempt: a, Input: in})
	}
	return out, c.write(t)
}

// running is a job whose tasks are given to nodes: its first one makes it run. A job that
// runs isn't locked, so that nodes don't wait for each other.
func (t *tx) running(id fleetscore.JobID, now time.Time) (fleetscore.Job, error) {
	var seq int64
	var doc string
	if err := t.row(selectJob, string(id)).Scan(&seq, &doc); err != nil {
		return fleetscore.Job{}, err
	}
	j, err := decode[fleetscore.Job](string(id), doc)
	if err != nil || j.State != fleetscore.JobQueued {
		return j, err
	}
	if j, _, err = t.job(id); err != nil || j.State != fleetscore.JobQueued {
		return j, err
	}
	have := j
	j.State, j.Started = fleetscore.JobRunning, &now
	return j, t.putJob(have, j)
}

// EndAttempt implements Queue. Ends that come while others are being written are then
// written together, by one transaction of few statements: otherwise each would wait for its
// job's lock until the one before is on disk.
func (l *core) EndAttempt(ctx context.Context, lease fleetscore.LeaseID, now time.Time, decide func(Leased) (AttemptEnd, error)) (Leased, error) {
	e := &ending{lease: lease, now: now.UTC(), decide: decide, done: make(chan struct{})}
	err := l.endings.do(ctx, e, l.endTogether)
	if err == nil {
		if e.broken != nil {
			panic(e.broken)
		}
		err = e.err
	}
	return e.out, l.problem("end attempt", string(lease), err)
}

// ending is the end of an attempt.
type ending struct {
	lease  fleetscore.LeaseID
	now    time.Time
	decide func(Leased) (AttemptEnd, error)

	done   chan struct{} // closed when the fields below are set
	out    Leased
	err    error
	broken any // what decide panicked with, which belongs to the caller
}

func (e *ending) ended() <-chan struct{} { return e.done }

// maxEndings bounds how many attempts a transaction ends.
const maxEndings = 256

// endTogether ends attempts. If they can't be ended together, one of them may be the reason:
// then each is ended alone.
func (l *core) endTogether(some []*ending) {
	ended := false
	defer func() {
		for _, e := range some {
			if !ended { // this goroutine ends within a decision
				e.out, e.err = Leased{}, fleetscore.Errorf(fleetscore.Internal, "", "", "the transaction was given up")
			}
			close(e.done)
		}
	}()
	if err := l.end(some); err != nil {
		for _, e := range some {
			if alone := err; e.broken == nil {
				if len(some) > 1 && !fleetscore.Unavailable.Is(err) {
					alone = l.end([]*ending{e})
				}
				if alone != nil {
					e.out, e.err = Leased{}, alone
				}
			}
		}
	}
	ended = true
}

// end ends attempts by one transaction.
func (l *core) end(some []*ending) error {
	leases := make([]fleetscore.LeaseID, len(some))
	for i, e := range some {
		leases[i] = e.lease
	}
	const these = ` WHERE lease IN (SELECT w.value FROM json_each(?) AS w)`
	return l.update(context.Background(), "end attempt", string(leases[0]), func(t *tx) error { // an end of one caller's context must not end the others' work
		s, err := t.settle(these, names(l, leases))
		if err != nil {
			return err
		}
		for _, e := range some {
			e.out, e.err, e.broken = Leased{}, nil, nil
			a, ok := s.attempts[e.lease]
			switch {
			case !ok:
				e.err = sql.ErrNoRows
			case a.State != leased:
				e.err = fleetscore.Errorf(fleetscore.Conflict, "end attempt", string(a.Task), "attempt %d ended before: %s", a.Number, a.State).
					WithHint("drop its work: another attempt does the task")
			default:
				if e.out, e.err = s.end(t, a, e.now, e.decided); e.broken != nil {
					return errBroken
				}
			}
		}
		return s.write(t)
	})
}

// errBroken gives a transaction up in which a decision panicked.
var errBroken = errors.New("a decision panicked")

// decided is what decide says.
func (e *ending) decided(l Leased) (AttemptEnd, error) {
	defer func() { e.broken = recover() }()
	return e.decide(l)
}

// leasedQuery finds leases that haven't ended: the condition after FROM attempts.
func leasedQuery(which LeaseFilter) (text string, args []any) {
	text = ` WHERE state = 'leased'`
	if which.Node != "" {
		text, args = text+` AND node = ?`, append(args, string(which.Node))
	}
	if which.Gone {
		text += ` AND EXISTS (SELECT 1 FROM nodes WHERE id = attempts.node AND ` + ended + `)`
	}
	if which.Job != "" {
		text, args = text+` AND job = ?`, append(args, string(which.Job))
	}
	if !which.ExpiredBefore.IsZero() {
		text, args = text+` AND expires < ?`, append(args, micros(which.ExpiredBefore))
	}
	if !which.StartedBefore.IsZero() {
		text, args = text+` AND started < ?`, append(args, micros(which.StartedBefore))
	}
	return text, args
}

// TakeBack implements Queue.
func (l *core) TakeBack(ctx context.Context, which LeaseFilter, now time.Time, decide func(Leased) (AttemptEnd, error)) ([]Leased, error) {
	if err := l.signs.write(); err != nil {
		return nil, err
	}
	text, args := leasedQuery(which)
	some, err := query(ctx, l, "take leases back", string(which.Node), scanAttempt, selectAttempts+text, args...)
	if err != nil || len(some) == 0 {
		return nil, err // nothing to do costs no write
	}
	var out []Leased
	var problems []error
	for part := range slices.Chunk(some, maxTakeBack) {
		done, err := l.takeBack(ctx, which, part, now, decide)
		out = append(out, done...)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return out, err
		}
		for _, a := range part { // one of them can't be ended: the others are ended one by one
			one, err := l.takeBack(ctx, which, []fleetscore.Attempt{a}, now, decide)
			out, problems = append(out, one...), append(problems, err)
		}
	}
	return out, errors.Join(problems...)
}

// maxTakeBack bounds how many leases a transaction ends, so that other writers, such as
// heartbeats, don't wait long when many nodes are lost at once.
const maxTakeBack = 100

// takeBack ends those of some leases that fit, all or none.
func (l *core) takeBack(ctx context.Context, which LeaseFilter, some []fleetscore.Attempt, now time.Time, decide func(Leased) (AttemptEnd, error)) ([]Leased, error) {
	leases := make([]fleetscore.LeaseID, len(some))
	for i, a := range some {
		leases[i] = a.Lease
	}
	text, args := leasedQuery(which)
	text, args = text+` AND lease IN (SELECT w.value FROM json_each(?) AS w)`, append(args, names(l, leases))
	var out []Leased
	err := l.update(ctx, "take leases back", string(which.Node), func(t *tx) error {
		out = nil
		s, err := t.settle(text, args...)
		if err != nil {
			return err
		}
		for _, lease := range s.order {
			ls, err := s.end(t, s.attempts[lease], now.UTC(), decide)
			if err != nil {
				return err
			}
			out = append(out, ls)
		}
		return s.write(t)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// selectJobsOf are the jobs of leases, the oldest first.
func selectJobsOf(leases string) string {
	return `SELECT id FROM jobs WHERE id IN (SELECT job FROM attempts` + leases + `) ORDER BY seq`
}

// settlement is the end of several attempts in one transaction.
type settlement struct {
	jobs, had map[fleetscore.JobID]fleetscore.Job // as they are now, and as they were
	order     []fleetscore.LeaseID
	attempts  map[fleetscore.LeaseID]held
	tasks     map[fleetscore.TaskID]fleetscore.Task
	changes   changes
}

// settle locks attempts, and first their jobs. which is a condition after FROM attempts. An
// attempt that began meanwhile, of another job, isn't among them.
func (t *tx) settle(which string, args ...any) (*settlement, error) {
	ids, err := list(t, scanText[fleetscore.JobID], selectJobsOf(which), args...)
	if err != nil {
		return nil, err
	}
	s := &settlement{jobs: map[fleetscore.JobID]fleetscore.Job{}, had: map[fleetscore.JobID]fleetscore.Job{}, attempts: map[fleetscore.LeaseID]held{}, tasks: map[fleetscore.TaskID]fleetscore.Task{}}
	for _, id := range ids {
		if s.jobs[id], _, err = t.job(id); err != nil {
			return nil, err
		}
		s.had[id] = s.jobs[id]
	}
	attempts, err := list(t, scanHeld, selectAttempts+which+` ORDER BY task, number FOR UPDATE`, args...)
	if err != nil {
		return nil, err
	}
	var tasks []fleetscore.TaskID
	for _, a := range attempts {
		if _, ok := s.jobs[a.job]; ok {
			s.order, s.attempts[a.Lease], tasks = append(s.order, a.Lease), a, append(tasks, a.Task)
		}
	}
	docs, err := list(t, scanDoc[fleetscore.Task], selectTasksOf, names(t.l, tasks))
	for _, task := range docs {
		s.tasks[task.ID] = task
	}
	return s, err
}

// end ends one of the attempts.
func (s *settlement) end(t *tx, a held, now time.Time, decide func(Leased) (AttemptEnd, error)) (Leased, error) {
	j := s.jobs[a.job]
	task, ok := s.tasks[a.Task]
	if !ok {
		return Leased{}, sql.ErrNoRows
	}
	e, err := decide(Leased{Job: j, Task: task, Attempt: a.Attempt})
	if err != nil {
		return Leased{}, err
	}
	task, a.State, a.Reason, a.Ended = e.Task, e.State, e.Reason, &now
	if task.State.Ended() && task.Ended == nil {
		task.Ended = &now
	}
	if err := s.changes.task(task, e.NotBefore); err != nil {
		return Leased{}, err
	}
	s.changes.ended = append(s.changes.ended, record{"lease": string(a.Lease), "state": a.State, "reason": t.l.dialect.value(a.Reason), "at": micros(now)})
	if e.Result != nil {
		s.changes.results = append(s.changes.results, record{"task": string(task.ID), "job": string(j.ID), "doc": string(e.Result)})
	}
	s.changes.idle(a.Node, now)
	t.event(AttemptsTopic)
	if task.State == fleetscore.TaskQueued {
		t.event(QueueTopic(j.Config.Pool))
	}
	if task.State.Ended() {
		j.TasksEnded++
		if j.TasksEnded == j.Tasks {
			j.State = fleetscore.JobCommitting
		}
	}
	s.jobs[j.ID], s.tasks[task.ID], s.attempts[a.Lease] = j, task, a
	return Leased{Job: j, Task: task, Attempt: a.Attempt}, nil
}

// write writes what the ends of the attempts changed.
func (s *settlement) write(t *tx) error {
	if err := s.changes.write(t); err != nil {
		return err
	}
	for id, j := range s.jobs {
		if have := s.had[id]; j.TasksEnded != have.TasksEnded {
			if err := t.putJob(have, j); err != nil {
				return err
			}
		}
	}
	return nil
}

// Tasks reads tasks, their attempts and results.
type Tasks interface {
	// Tasks are a job's, by index.
	Tasks(ctx context.Context, job fleetscore.JobID) ([]fleetscore.Task, error)
	// Attempts are a task's, in order.
	Attempts(ctx context.Context, task fleetscore.TaskID) ([]fleetscore.Attempt, error)
	// Attempt returns the attempt of a lease; kind NotFound if there is no such lease. It
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
	selectInputsOf = `SELECT task, doc FROM inputs WHERE task IN (SELECT w.value FROM json_each(?) AS w)`
	selectInputs   = `SELECT doc FROM inputs WHERE job = ? ORDER BY task`
)

// Inputs implements the role Tasks.
func (l *core) Inputs(ctx context.Context, job fleetscore.JobID) ([]Input, error) {
	return query(ctx, l, "read inputs", string(job), scanDoc[Input], selectInputs, string(job))
}

const selectResults = `SELECT task, doc FROM results WHERE job = ?`

// taskDoc is what is kept about a task in another table.
type taskDoc struct {
	task fleetscore.TaskID
	doc  string
}

func scanTaskDoc(scan func(...any) error) (d taskDoc, err error) {
	err = scan(&d.task, &d.doc)
	return d, err
}

// Results implements the role Tasks.
func (l *core) Results(ctx context.Context, job fleetscore.JobID) (map[fleetscore.TaskID]json.RawMessage, error) {
	rows, err := query(ctx, l, "read results", string(job), scanTaskDoc, selectResults, string(job))
	out := make(map[fleetscore.TaskID]json.RawMessage, len(rows))
	for _, r := range rows {
		out[r.task] = json.RawMessage(r.doc)
	}
	return out, err
}
