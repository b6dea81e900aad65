// Package scorer scores rows: each key's rows with the key's own model, on all
// cores, with exactly one outcome per key. A model that is missing, unreadable,
// slow or faulty costs its own key alone.
//
// It knows one runtime, native: scikit-learn models read and scored by package
// sklearn. It neither finds models nor reads or writes files. Score may be
// called by several goroutines at once.
package scorer

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn"
)

// Models finds a key's model. An error of kind NotFound means that it has none,
// of kind Unavailable that the attempt as a whole can't go on; any other costs
// the key. It must be safe for concurrent use; its bytes are not kept.
type Models interface {
	Model(ctx context.Context, k fleetscore.Key) ([]byte, fleetscore.Digest, error)
}

// Spec says how to score.
type Spec struct {
	Features     []string      // columns in the models' order; "Val=Value" renames Value to Val on output
	Label        string        // column with the truth to pass on; empty for none
	ModelTimeout time.Duration // loading and scoring of one key; 0 means 10 s
	Workers      int           // 0 means all cores
	// Log takes a line per key that did not end well. It may be nil, and is
	// called by one goroutine at a time.
	Log func(format string, args ...any)
}

// Result is the scored rows and what became of every key.
type Result struct {
	Predictions *fleetscore.Predictions // the scored rows in input order
	Items       []fleetscore.Item       // one per key that is expected or has rows, sorted by key
	// Degenerate are the scored keys whose model flags everything or nothing,
	// whatever the data, sorted.
	Degenerate []fleetscore.Key
}

// Counts counts the items per outcome.
func (r *Result) Counts() fleetscore.Counts {
	c := fleetscore.Counts{}
	for _, it := range r.Items {
		c[it.Outcome]++
	}
	return c
}

// Score scores the rows. Expected keys without rows end as no_data. It fails as
// a whole only if the rows lack a column, models are Unavailable, or ctx ends.
func Score(ctx context.Context, spec Spec, rows *fleetscore.Rows, expected []fleetscore.Key, models Models) (*Result, error) {
	r, err := prepare(spec, rows)
	if err != nil {
		return nil, err
	}
	r.models = models
	workers := spec.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var wg sync.WaitGroup
	for range max(1, min(workers, len(rows.Keys))) {
		wg.Go(func() { r.work(ctx) })
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if r.fatal != nil {
		return nil, r.fatal
	}
	return r.result(expected), nil
}

// run is one call of Score.
type run struct {
	spec    Spec
	rows    *fleetscore.Rows
	columns [][]float64 // per feature
	order   []uint32    // row numbers grouped by key, in input order within a key
	start   []uint32    // per key, where its group begins in order; one more at the end
	models  Models

	next       atomic.Int64 // the key to take next
	prediction []float64    // per row
	score      []float64
	items      []fleetscore.Item // per key
	degenerate []bool            // per key
	digests    []fleetscore.Digest

	mu    sync.Mutex // guards what follows
	fatal error
}

func prepare(spec Spec, rows *fleetscore.Rows) (*run, error) {
	if len(spec.Features) == 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "score", "", "no feature is named")
	}
	if spec.ModelTimeout <= 0 {
		spec.ModelTimeout = 10 * time.Second
	}
	n, k := rows.Len(), len(rows.Keys)
	r := &run{spec: spec, rows: rows, prediction: make([]float64, n), score: make([]float64, n),
		items: make([]fleetscore.Item, k), degenerate: make([]bool, k), digests: make([]fleetscore.Digest, k)}
	for _, f := range spec.Features {
		_, name := fleetscore.SplitFeature(f)
		c := rows.Column(name)
		if c == nil {
			return nil, fleetscore.Errorf(fleetscore.Invalid, "score", name, "the rows have no such column; they have %v", rows.ValueNames)
		}
		r.columns = append(r.columns, c)
	}
	if spec.Label != "" && rows.Column(spec.Label) == nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "score", spec.Label, "the rows have no such column for the label; they have %v", rows.ValueNames)
	}
	r.start = make([]uint32, k+1)
	for _, i := range rows.KeyIndex {
		r.start[i+1]++
	}
	for i := range k {
		r.start[i+1] += r.start[i]
	}
	at := slices.Clone(r.start)
	r.order = make([]uint32, n)
	for row, i := range rows.KeyIndex {
		r.order[at[i]] = uint32(row)
		at[i]++
	}
	return r, nil
}

// stride is how many rows are scored between looks at the clock.
const stride = 4096

// worker is one goroutine's memory, reused from key to key.
type worker struct {
	x, prediction, score []float64
	scratch              sklearn.Scratch
}

// work takes keys until there are none. Keys are taken in small bunches, as one
// key of a small model takes well under a microsecond.
func (r *run) work(ctx context.Context) {
	const bunch = 16
	var w worker
	for {
		last := r.next.Add(bunch)
		for k := last - bunch; k < last; k++ {
			if k >= int64(len(r.rows.Keys)) || ctx.Err() != nil || r.stopped() {
				return
			}
			r.key(ctx, &w, int(k))
		}
	}
}

func (r *run) stopped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fatal != nil
}

// key scores one key and writes its item. A panic costs the key alone.
func (r *run) key(ctx context.Context, w *worker, k int) {
	it := &r.items[k]
	group := r.order[r.start[k]:r.start[k+1]]
	it.Key = r.rows.Keys[k]
	for i, row := range group {
		t := r.rows.Times[row]
		if i == 0 || t < it.First {
			it.First = t
		}
		if i == 0 || t > it.Last {
			it.Last = t
		}
	}
	if len(group) == 0 {
		it.Outcome, it.Reason = fleetscore.NoData, noData
		return
	}
	defer func() {
		if p := recover(); p != nil {
			stack := make([]byte, 8<<10)
			stack = stack[:runtime.Stack(stack, false)]
			r.end(it, fleetscore.Failed, fmt.Sprintf("internal error: %v", p))
			r.log("stack of %s:\n%s", it.Key, stack)
		}
	}()
	deadline := time.Now().Add(r.spec.ModelTimeout)
	data, digest, err := r.models.Model(ctx, it.Key)
	switch {
	case fleetscore.NotFound.Is(err):
		r.end(it, fleetscore.NoModel, err.Error())
		return
	case err != nil && (fleetscore.Unavailable.Is(err) || ctx.Err() != nil):
		r.fail(err)
		return
	case err != nil:
		r.end(it, fleetscore.Failed, err.Error())
		return
	}
	it.Model, r.digests[k] = digest, digest
	m, err := sklearn.Load(data)
	if err != nil {
		r.end(it, fleetscore.Failed, err.Error())
		return
	}
	if got, want := len(r.columns), m.NumFeatures(); got != want {
		r.end(it, fleetscore.Failed, fmt.Sprintf("the model expects %d features, %d are configured", want, got))
		return
	}
	if err := r.scoreGroup(ctx, w, m, group, deadline); err != nil {
		if ctx.Err() != nil {
			return
		}
		outcome := fleetscore.Failed
		if err == errTimeout {
			outcome = fleetscore.TimedOut
			err = fmt.Errorf("not done after %s; raise limits.model_timeout if that is expected", r.spec.ModelTimeout)
		}
		r.end(it, outcome, err.Error())
		return
	}
	r.degenerate[k] = m.Info().Degenerate()
	it.Outcome, it.Rows = fleetscore.Scored, int64(len(group))
	if m.OutlierDetector() {
		for _, row := range group {
			if r.prediction[row] == 1 {
				it.Anomalies++
			}
		}
	}
}

const noData = "the interval holds no row of the sensor"

var errTimeout = fmt.Errorf("time is up")

// scoreGroup scores one key's rows, gathered in strides.
func (r *run) scoreGroup(ctx context.Context, w *worker, m *sklearn.Model, group []uint32, deadline time.Time) error {
	features := len(r.columns)
	size := min(len(group), stride)
	if cap(w.x) < size*features {
		w.x = make([]float64, size*features)
	}
	if cap(w.prediction) < size {
		w.prediction, w.score = make([]float64, size), make([]float64, size)
	}
	detector := m.OutlierDetector()
	for first := 0; first < len(group); first += stride {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return errTimeout
		}
		rows := group[first:min(first+stride, len(group))]
		x, prediction, score := w.x[:len(rows)*features], w.prediction[:len(rows)], w.score[:len(rows)]
		for c, column := range r.columns {
			for i, row := range rows {
				v := column[row]
				if v-v != 0 { // NaN or infinite
					return r.notFinite(c, row, v)
				}
				x[i*features+c] = v
			}
		}
		if err := m.Score(x, len(rows), prediction, score, &w.scratch); err != nil {
			return err
		}
		for i, row := range rows {
			p := prediction[i]
			if detector {
				p = (1 - p) / 2 // +1 is an inlier, −1 an outlier
			}
			r.prediction[row], r.score[row] = p, score[i]
		}
	}
	return nil
}

func (r *run) notFinite(c int, row uint32, v float64) error {
	_, name := fleetscore.SplitFeature(r.spec.Features[c])
	what := "is infinite"
	if math.IsNaN(v) {
		what = "is missing"
	}
	return fmt.Errorf("%s %s in the row of %s; scikit-learn refuses such rows too", name, what, r.rows.Times[row])
}

func (r *run) end(it *fleetscore.Item, o fleetscore.Outcome, reason string) {
	it.Outcome, it.Reason = o, reason
	r.log("%s: %s: %s", it.Key, o, reason)
}

func (r *run) log(format string, args ...any) {
	if r.spec.Log != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.spec.Log(format, args...)
	}
}

func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fatal == nil {
		r.fatal = err
	}
}

// result gathers the rows of scored keys and the items of all.
func (r *run) result(expected []fleetscore.Key) *Result {
	rows := r.rows
	p := &fleetscore.Predictions{Rows: fleetscore.Rows{TimeName: rows.TimeName, KeyNames: rows.KeyNames, Keys: rows.Keys}, Models: r.digests}
	columns := slices.Clone(r.columns)
	for _, f := range r.spec.Features {
		name, _ := fleetscore.SplitFeature(f)
		p.ValueNames = append(p.ValueNames, name)
	}
	if l := r.spec.Label; l != "" && !slices.Contains(p.ValueNames, l) {
		p.ValueNames = append(p.ValueNames, l)
		columns = append(columns, rows.Column(l))
	}
	all := true
	for i := range r.items {
		all = all && (r.items[i].Outcome == fleetscore.Scored || r.items[i].Outcome == fleetscore.NoData)
	}
	if all {
		p.KeyIndex, p.Times, p.Values, p.Prediction, p.Score = rows.KeyIndex, rows.Times, columns, r.prediction, r.score
	} else {
		r.pickScored(p, columns)
	}
	out := &Result{Predictions: p, Items: r.items}
	for k, d := range r.degenerate {
		if d {
			out.Degenerate = append(out.Degenerate, rows.Keys[k])
		}
	}
	slices.Sort(out.Degenerate)
	seen := make(map[fleetscore.Key]bool, len(rows.Keys))
	for _, k := range rows.Keys {
		seen[k] = true
	}
	for _, k := range expected {
		if !seen[k] {
			seen[k] = true
			out.Items = append(out.Items, fleetscore.Item{Key: k, Outcome: fleetscore.NoData, Reason: noData})
		}
	}
	slices.SortFunc(out.Items, func(a, b fleetscore.Item) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

func (r *run) pickScored(p *fleetscore.Predictions, columns [][]float64) {
	p.Values = make([][]float64, len(columns))
	for row, k := range r.rows.KeyIndex {
		if r.items[k].Outcome != fleetscore.Scored {
			continue
		}
		p.KeyIndex = append(p.KeyIndex, k)
		p.Times = append(p.Times, r.rows.Times[row])
		for c := range columns {
			p.Values[c] = append(p.Values[c], columns[c][row])
		}
		p.Prediction = append(p.Prediction, r.prediction[row])
		p.Score = append(p.Score, r.score[row])
	}
}
