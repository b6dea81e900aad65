package simtest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/table"
)

// cell names a row of a dataset or of predictions.
type cell struct {
	key fleetscore.Key
	at  fleetscore.Micros
}

// record is what the run saw happen, for the checks afterwards. It is written where
// an event really takes place, so that it doesn't depend on whether anybody heard of
// the event.
type record struct {
	truth *catalog.Catalog // of the store itself, without faults

	mu        sync.Mutex // guards what follows
	broken    problems   // promises that were broken during the run
	read      map[fleetscore.JobID]map[cell]float64
	scored    map[fleetscore.JobID]map[fleetscore.Key]fleetscore.Digest // by job, the model of each sensor that was scored
	kept      map[fleetscore.JobID]map[fleetscore.Key]bool              // by job, those of these sensors whose earlier predictions stay
	empty     map[fleetscore.JobID]map[fleetscore.Key]bool              // by job, the sensors without a row
	uploads   []upload
	tried     map[cell][]float64                        // all values that were ever uploaded, or may have been
	revived   map[fleetscore.NodeID]bool                // nodes that came back after they were taken for lost
	kinds     map[fleetscore.NodeID]fleetscore.NodeKind // of each node, when it was noted first
	upkept    catalog.Maintained                        // all that maintenance did, added up
	readings  []sent
	intervals map[fleetscore.JobID]fleetscore.Interval // of jobs that read the query's dataset
}

// upload is an upload that was acknowledged.
type upload struct {
	version int64 // of the dataset, which holds it since then
	values  map[cell]float64
}

func newRecord(b *bucket) *record {
	return &record{truth: catalog.New(b), read: map[fleetscore.JobID]map[cell]float64{}, tried: map[cell][]float64{}, intervals: map[fleetscore.JobID]fleetscore.Interval{},
		scored: map[fleetscore.JobID]map[fleetscore.Key]fleetscore.Digest{}, kept: map[fleetscore.JobID]map[fleetscore.Key]bool{}, revived: map[fleetscore.NodeID]bool{},
		empty: map[fleetscore.JobID]map[fleetscore.Key]bool{},
		kinds: map[fleetscore.NodeID]fleetscore.NodeKind{}}
}

// problem notes a promise that was broken.
func (r *record) problem(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken.add(format, args...)
}

// uploaded notes an acknowledged upload.
func (r *record) uploaded(version int64, values map[cell]float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.uploads = append(r.uploads, upload{version, values})
}

// trying notes values before they are uploaded.
func (r *record) trying(values map[cell]float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c, v := range values {
		r.tried[c] = append(r.tried[c], v)
	}
}

// rows is what the uploaded dataset holds at a version, at least: the latest
// acknowledged value of each row.
func (r *record) rows(version int64) map[cell]float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[cell]float64{}
	for _, u := range r.uploads { // the writers of one row take turns, so this is the order of their versions
		if u.version <= version {
			maps.Copy(out, u.values)
		}
	}
	return out
}

// witness is the ledger itself. It notes what jobs read and what became of them, and
// how nodes change.
type witness struct {
	ledger.Ledger
	w *world
}

// PlanJob notes the rows that a job is to read.
func (l *witness) PlanJob(ctx context.Context, j fleetscore.Job, tasks []ledger.PlannedTask) error {
	if err := l.Ledger.PlanJob(ctx, j, tasks); err != nil {
		return err
	}
	r := l.w.record
	read := map[cell]float64{}
	version := int64(-1)
	chosen := map[fleetscore.Key]bool{} // by a rerun
	for _, t := range tasks {
		version = t.Input.Version
		for _, k := range t.Input.Keys {
			chosen[k] = true
		}
		if len(t.Input.Files) == 0 {
			continue
		}
		rows, err := r.truth.Dataset(j.Config.Dataset).ReadRows(context.WithoutCancel(ctx), t.Input.Files, table.ReadQuery{Interval: &j.Interval, Shards: &t.Task.Shards, Values: []string{"Value"}})
		if err != nil {
			r.problem("job %s is planned to read files that can't be read: %v", j.ID, err)
			return nil
		}
		for i, at := range rows.Times {
			if key := rows.Keys[rows.KeyIndex[i]]; j.Rerun == nil || chosen[key] {
				read[cell{key, at}] = rows.Values[0][i]
			}
		}
	}
	if j.Config.Dataset == dataset {
		for c, v := range r.rows(version) {
			if _, ok := read[c]; !ok && j.Interval.ContainsMicros(c.at) && !(isNamed(j) && l.w.expired(c.at)) && (j.Rerun == nil || chosen[c.key]) {
				r.problem("job %s over %s doesn't read the row %v of %s at %s, which was uploaded before", j.ID, j.Interval, v, c.key, c.at)
			}
		}
	}
	hurried := l.w.hurried(ctx, j)
	r.mu.Lock()
	if j.Config.Dataset == dataset {
		for c, v := range read {
			if !slices.Contains(r.tried[c], v) {
				r.broken.add("job %s reads the value %v of %s at %s, which was never uploaded", j.ID, v, c.key, c.at)
			}
		}
	}
	r.read[j.ID] = read
	if j.Config.Dataset == measured && j.Rerun == nil && !hurried && !(isNamed(j) && l.w.retention) {
		r.intervals[j.ID] = j.Interval
	}
	r.mu.Unlock()
	return nil
}

// hurried tells whether a job may have been planned without all of its rows, which is so from
// its deadline on. Its rows may have come between the planner's look and this one, so that a
// look at the dataset doesn't tell.
func (w *world) hurried(ctx context.Context, j fleetscore.Job) bool {
	since := j.Created
	if j.Due != nil {
		since = *j.Due
	}
	if d := w.schedules[j.Pipeline].Deadline.D(); d > 0 && !j.Planned.Before(since.Add(d)) {
		w.conductor.note(fmt.Sprint("job ", j.ID, " is planned after its deadline"))
		return true
	}
	snap, err := w.record.truth.Dataset(j.Config.Dataset).Snapshot(context.WithoutCancel(ctx))
	until, ok := fleetscore.Micros(0), false
	switch {
	case err == nil:
		until, ok = catalog.CompleteUntil(snap, *j.Planned)
	case !fleetscore.NotFound.Is(err):
		w.record.problem("job %s is planned, and its dataset can't be read: %v", j.ID, err)
	}
	if !ok || until < fleetscore.MicrosOf(j.Interval.To) {
		w.record.problem("job %s is planned at %s, before its rows are complete until %s", j.ID, j.Planned, j.Interval.To)
		return true
	}
	return false
}

// Jobs lists jobs. A commit that doesn't heed which job is newer takes each for the
// newest; one that doesn't heed that a job is a rerun carries no outcomes over, and one that doesn't heed that rows
// were revised removes no predictions.
func (l *witness) Jobs(ctx context.Context, f ledger.JobFilter) ([]fleetscore.Job, error) {
	jobs, err := l.Ledger.Jobs(ctx, f)
	for i := range jobs {
		switch {
		case !slices.Equal(f.States, []fleetscore.JobState{fleetscore.JobCommitting}):
		case l.w.mutant == oldRowsReturn:
			jobs[i].Created = jobs[i].Created.AddDate(1, 0, 0)
		case l.w.mutant == forgetsCarried:
			jobs[i].Rerun = nil
		case l.w.mutant == keepsVanished:
			jobs[i].Backfill = ""
		}
	}
	return jobs, err
}

// kind notes a node's kind, which stays what it was at first.
func (r *record) kind(id fleetscore.NodeID, k fleetscore.NodeKind) {
	r.mu.Lock()
	first, known := r.kinds[id]
	if !known {
		r.kinds[id] = k
	}
	r.mu.Unlock()
	if known && first != k {
		r.problem("node %s was started as a %s one and is a %s one now", id, first, k)
	}
}

// UpdateNode notes when a pool starts more nodes than it may have. Nodes that were taken for
// lost may come back beside those that replace them, so that these don't count.
func (l *witness) UpdateNode(ctx context.Context, id fleetscore.NodeID, change func(*fleetscore.Node) error) (fleetscore.Node, error) {
	revived := false
	n, err := l.Ledger.UpdateNode(ctx, id, func(n *fleetscore.Node) error {
		ended := n.State.Ended() || n.State == fleetscore.NodeDraining
		err := change(n)
		l.w.record.kind(id, n.Kind)
		if l.w.mutant == mistakesKinds && n.State == fleetscore.NodeLost {
			n.Kind = fleetscore.Dedicated
		}
		revived = ended && (n.State.Coming() || n.State.Works())
		return err
	})
	if err != nil {
		return n, err
	}
	r := l.w.record
	if revived {
		r.mu.Lock()
		r.revived[id] = true
		r.mu.Unlock()
	}
	if n.State != fleetscore.NodeStarting {
		return n, nil
	}
	nodes, err := l.Ledger.Nodes(context.WithoutCancel(ctx), n.Pool)
	alive, most := 0, mostNodes
	if n.Kind == fleetscore.LowPriority {
		most = l.w.low
	}
	r.mu.Lock()
	for _, x := range nodes {
		if x.Kind == n.Kind && (x.State.Coming() || x.State.Works()) && !r.revived[x.ID] {
			alive++
		}
	}
	r.mu.Unlock()
	if alive > most {
		r.problem("node %s is started beside %d others that are %s, in a pool of at most %d of these", id, alive-1, n.Kind, most)
	}
	return n, err
}

// EndAttempt notes which sensors a task scored, and with which models.
func (l *witness) EndAttempt(ctx context.Context, lease fleetscore.LeaseID, now time.Time, decide func(ledger.Leased) (ledger.AttemptEnd, error)) (ledger.Leased, error) {
	var doc []byte
	out, err := l.Ledger.EndAttempt(ctx, lease, now, func(x ledger.Leased) (ledger.AttemptEnd, error) {
		e, err := decide(x)
		doc = e.Result
		return e, err
	})
	if err == nil && strings.Contains(out.Attempt.Reason, "is missing") {
		l.w.record.problem("attempt %d of task %s failed: %s", out.Attempt.Number, out.Task.ID, out.Attempt.Reason)
	}
	if err != nil || doc == nil {
		return out, err
	}
	r := l.w.record
	var result dispatch.Result
	if err := json.Unmarshal(doc, &result); err != nil {
		r.problem("the result of task %s can't be read: %v", out.Task.ID, err)
		return out, nil
	}
	items, err := r.truth.Coverage(out.Job.Pipeline).ReadItems(context.WithoutCancel(ctx), result.Coverage, catalog.ItemQuery{})
	if err != nil {
		r.problem("the outcomes of task %s can't be read: %v", out.Task.ID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.scored[out.Job.ID] == nil {
		r.scored[out.Job.ID], r.kept[out.Job.ID], r.empty[out.Job.ID] = map[fleetscore.Key]fleetscore.Digest{}, map[fleetscore.Key]bool{}, map[fleetscore.Key]bool{}
	}
	for _, i := range items {
		switch i.Outcome {
		case fleetscore.Scored:
			r.scored[out.Job.ID][i.Key], r.kept[out.Job.ID][i.Key] = i.Model, i.Kept != ""
		case fleetscore.NoData:
			r.empty[out.Job.ID][i.Key] = true
		}
	}
	return out, nil
}

// renewed is where a heartbeat keeps what it found its node to be.
type renewed struct{ state fleetscore.NodeState }

type renewedKey struct{}

// Renew checks that a heartbeat doesn't change what a node is: a node that was given
// up has to register again.
func (l *witness) Renew(ctx context.Context, id fleetscore.NodeID, leases []fleetscore.LeaseID, load *fleetscore.NodeLoad, now time.Time, ttl time.Duration) (fleetscore.Node, []fleetscore.LeaseID, error) {
	before, err := l.Ledger.Node(ctx, id)
	if err != nil {
		return before, nil, err
	}
	if found, ok := ctx.Value(renewedKey{}).(*renewed); ok {
		found.state = before.State
	}
	n, revoked, err := l.Ledger.Renew(ctx, id, leases, load, now, ttl)
	if l.w.mutant == heartbeatRevives && err == nil && before.State == fleetscore.NodeLost {
		n, err = l.UpdateNode(ctx, id, func(n *fleetscore.Node) error {
			n.State = fleetscore.NodeIdle
			return nil
		})
	}
	return n, revoked, err
}

// accepted checks a heartbeat that was answered without an error.
func (w *world) accepted(id fleetscore.NodeID, found renewed) {
	if found.state.Ended() {
		w.record.problem("node %s is %s, and its heartbeat was accepted: it has to register again", id, found.state)
	}
}

// checkLogOfTable checks that no job was committed twice: readers that follow the
// table commit by commit would see its rows twice.
func (w *world) checkLogOfTable(ctx context.Context, p *problems, folder string) error {
	times := map[string]int{}
	for version := 0; ; version++ {
		lines, err := commitLines(ctx, w.store, fleetscore.BlobName(fmt.Sprintf("%s/_delta_log/%020d.json", folder, version)))
		if fleetscore.NotFound.Is(err) {
			break
		}
		if err != nil {
			return err
		}
		for _, line := range lines {
			if id := jobOfTxn(line); id != "" {
				times[id]++
			}
		}
	}
	for id, n := range times {
		if n > 1 {
			p.add("table %s has %d commits of %s", folder, n, id)
		}
	}
	return nil
}
