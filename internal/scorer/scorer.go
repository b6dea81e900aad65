// Package scorer scores rows: each key's rows with the key's own model, on all
// cores, with exactly one outcome per key. A model that is missing, unreadable,
// slow or faulty costs its own key alone.
//
// How a model is read and predicts is a Runtime's; Native reads scikit-learn models by
// package sklearn. The package neither finds models nor reads or writes files. Score may be
// called by several goroutines at once.
package scorer

import (
	"cmp"
	"context"
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Models finds a key's model. An error of kind NotFound means that it has none,
// of kind Unavailable that the attempt as a whole can't go on; any other costs
// the key. It must be safe for concurrent use; its bytes are not kept.
type Models interface {
	Model(ctx context.Context, k fleetscore.Key) ([]byte, fleetscore.Digest, error)
}

// Spec says how to score.
type Spec struct {
	Features []string // columns; "Val=Value" renames Value to Val on output
	// FeaturesBy says whether a model that knows its feature names gets columns by
	// name (the zero value) or by position, as models without names do.
	FeaturesBy fleetscore.FeatureOrder
	// PositionOption is how people ask for columns by position, for messages; empty
	// means as fleet.yaml does.
	PositionOption string
	Label          string                 // column with the truth to pass on; empty for none
	Missing        fleetscore.MissingRule // what becomes of rows that lack a feature; empty means fail
	AllRows        bool                   // rows without a prediction stay in the result, with NaN
	Buffers        Buffers                // where results are put
	Timing         bool                   // items tell how long their models took, which costs a look at the clock for each
	ModelTimeout   time.Duration          // loading and scoring of one key; 0 means 10 s
	// Tries is how often a key is scored whose model exceeds ModelTimeout, as the machine
	// may have been busy; 0 means once. Rest waits before the n-th repetition (1, 2, …); nil
	// means that there is no wait.
	Tries   int
	Rest    func(ctx context.Context, n int)
	Workers int // goroutines; 0 means all cores
	// Log takes a line per key that did not end well. It may be nil, and is
	// called by one goroutine at a time.
	Log func(format string, args ...any)
	// Print takes what Foreign's models print to their standard output, as Log takes what they
	// print to their standard error; nil means that Log takes both.
	Print    func(format string, args ...any)
	Progress *atomic.Int64 // keys done so far are added; may be nil
	Runtime  Runtime       // reads models in this process; nil means Native
	// Use says which models are scored by Runtime and which by Foreign; empty means all
	// by Runtime. Foreign may be nil; then models of its own end as failed.
	Use     fleetscore.RuntimeName
	Foreign Foreign
	// Whole gives Foreign all of its sensors at once, by one goroutine.
	Whole bool
	// Batches is how many batches each of Workers gives to Foreign at the same time, unless their models are large; 0
	// means one.
	Batches int
	// Quarantined are models that are not loaded, by their keys. A key whose model has
	// another digest by now is scored.
	Quarantined map[fleetscore.Key]fleetscore.Harm
	// Content is a digest of all that items depend on besides rows and models. If it isn't 0,
	// items tell their content. A key whose content is that of an item in Earlier isn't
	// scored: it ends as this item says, whose Kept names the job with the predictions.
	// ForeignContent is the same for keys that Foreign scores.
	Content        uint64
	ForeignContent uint64
	Earlier        map[fleetscore.Key]fleetscore.Item
	Now            func() time.Time // the time that ModelTimeout is measured by; nil means time.Now
}

// Buffers are memory for a result of each row. The zero value lets Score take memory of its own.
type Buffers struct{ Prediction, Score []float64 }

// Result is the scored rows and what became of every key.
type Result struct {
	Predictions *fleetscore.Predictions // the scored rows in input order; all rows if AllRows
	Items       []fleetscore.Item       // one per key that is expected or has rows, sorted by key
	// Degenerate are the scored keys whose model flags everything or nothing,
	// whatever the data, sorted.
	Degenerate []fleetscore.Key
	// Harmful are the keys whose model took longer than it may or took the process
	// down that scored it, sorted.
	Harmful []fleetscore.Key
	// LeftOut is how many rows of scored keys have no prediction, as Missing
	// asked for.
	LeftOut int64
	Threads int // how many keys were scored at once
	// Causes are why keys failed, timed out or have no model, most keys first.
	Causes []Cause
}

// Counts counts the items per outcome.
func (r *Result) Counts() fleetscore.Counts {
	c := fleetscore.Counts{}
	for i := range r.Items {
		c[r.Items[i].Outcome]++
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
	var wg sync.WaitGroup
	threads := max(1, min(r.spec.Workers, r.group.bundles()))
	for range threads {
		wg.Go(func() { r.work(ctx) })
	}
	wg.Wait()
	r.repeat(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if r.fatal != nil {
		return nil, r.fatal
	}
	out := r.result(expected)
	out.Threads = threads
	return out, nil
}

// run is one call of Score.
type run struct {
	spec    Spec
	rows    *fleetscore.Rows
	columns [][]float64 // per feature
	label   []float64   // nil if there is none
	group   grouping
	models  Models

	next       atomic.Int64 // the bundle to take next
	prediction []float64    // per row
	score      []float64
	items      []fleetscore.Item // per key
	degenerate []bool            // per key
	harmful    []bool            // per key
	apart      []bool            // per key: it was scored without predictions
	digests    []fleetscore.Digest
	leftOut    atomic.Int64

	repeats int // how often keys were scored again so far

	stopped atomic.Bool
	mu      sync.Mutex // guards what follows
	fatal   error
	causes  causes
	again   []int // keys that are to be scored once more
}

func prepare(spec Spec, rows *fleetscore.Rows) (*run, error) {
	if len(spec.Features) == 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "score", "", "no feature is named")
	}
	if spec.ModelTimeout <= 0 {
		spec.ModelTimeout = 10 * time.Second
	}
	if spec.Workers <= 0 {
		spec.Workers = runtime.GOMAXPROCS(0)
	}
	if spec.Whole {
		spec.Workers = 1
	}
	spec.Batches = max(1, spec.Batches)
	if spec.Runtime == nil {
		spec.Runtime = Native{}
	}
	if spec.Now == nil {
		spec.Now = time.Now
	}
	if err := spec.FeaturesBy.Validate(); err != nil {
		return nil, err
	}
	n, k := rows.Len(), len(rows.Keys)
	if spec.Buffers.Prediction == nil {
		spec.Buffers = Buffers{make([]float64, n), make([]float64, n)}
	}
	r := &run{spec: spec, rows: rows, prediction: spec.Buffers.Prediction, score: spec.Buffers.Score,
		items: make([]fleetscore.Item, k), degenerate: make([]bool, k), harmful: make([]bool, k), apart: make([]bool, k), digests: make([]fleetscore.Digest, k)}
	for _, f := range spec.Features {
		_, name := fleetscore.SplitFeature(f)
		if !slices.Contains(rows.ValueNames, name) { // a column without rows may be nil
			return nil, fleetscore.Errorf(fleetscore.Invalid, "score", name, "the rows have no such column; they have %v", rows.ValueNames)
		}
		r.columns = append(r.columns, rows.Column(name))
	}
	if spec.Label != "" && !slices.Contains(rows.ValueNames, spec.Label) {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "score", spec.Label, "the rows have no such column for the label; they have %v", rows.ValueNames)
	}
	if spec.Label != "" {
		r.label = rows.Column(spec.Label)
	}
	r.causes = causes{}
	r.group = groupRows(rows, spec.Workers)
	return r, nil
}

func (r *run) end(it *fleetscore.Item, o fleetscore.Outcome, why error) {
	it.Outcome, it.Reason = o, why.Error()
	r.log("%s: %s: %s", it.Key, o, it.Reason)
	group := groupOf(why)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.causes.add(it.Key, o, it.Reason, group)
}

func (r *run) log(format string, args ...any) {
	if r.spec.Log != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.spec.Log(format, args...)
	}
}

func (r *run) print(format string, args ...any) {
	if r.spec.Print == nil {
		r.log(format, args...)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spec.Print(format, args...)
}

func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fatal == nil {
		r.fatal = err
	}
	r.stopped.Store(true)
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
	all := r.leftOut.Load() == 0
	for i := range r.items {
		all = all && (r.hasRows(i) || r.items[i].Outcome == fleetscore.NoData)
	}
	if !all && r.spec.AllRows {
		for row, k := range rows.KeyIndex {
			if !r.hasPrediction(row, k) {
				r.prediction[row], r.score[row] = fleetscore.Missing, fleetscore.Missing
			}
		}
	}
	if all || r.spec.AllRows {
		p.KeyIndex, p.Times, p.Values, p.Prediction, p.Score = rows.KeyIndex, rows.Times, columns, r.prediction, r.score
	} else {
		r.pickScored(p, columns)
	}
	out := &Result{Predictions: p, LeftOut: r.leftOut.Load(), Causes: r.causes.sorted()}
	out.Degenerate, out.Harmful = r.marked(r.degenerate), r.marked(r.harmful)
	out.Items = r.allItems(expected)
	return out
}

// hasRows tells whether a key was scored now, with predictions.
func (r *run) hasRows(k int) bool {
	return r.items[k].Outcome == fleetscore.Scored && r.items[k].Kept == "" && !r.apart[k]
}

// hasPrediction tells whether a key's row was scored now.
func (r *run) hasPrediction(row int, key uint32) bool {
	return r.hasRows(int(key)) && !r.leavesOut(uint32(row))
}

// marked are the keys that have a mark, sorted.
func (r *run) marked(marks []bool) (out []fleetscore.Key) {
	for k, is := range marks {
		if is {
			out = append(out, r.rows.Keys[k])
		}
	}
	slices.Sort(out)
	return out
}

// allItems are the items of keys with rows and of those that were expected,
// sorted by key.
func (r *run) allItems(expected []fleetscore.Key) []fleetscore.Item {
	order := byKey(len(r.items), func(i int) fleetscore.Key { return r.items[i].Key })
	if !slices.IsSorted(expected) {
		unsorted := expected
		expected = make([]fleetscore.Key, len(unsorted))
		for to, i := range byKey(len(unsorted), func(i int) fleetscore.Key { return unsorted[i] }) {
			expected[to] = unsorted[i]
		}
	}
	out := make([]fleetscore.Item, 0, max(len(order), len(expected)))
	for len(order) > 0 || len(expected) > 0 {
		switch {
		case len(expected) == 0 || len(order) > 0 && r.items[order[0]].Key <= expected[0]:
			it := r.items[order[0]]
			out, order = append(out, it), order[1:]
			for len(expected) > 0 && expected[0] == it.Key {
				expected = expected[1:]
			}
		default:
			k := expected[0]
			out = append(out, fleetscore.Item{Key: k, Outcome: fleetscore.NoData, Reason: noData})
			for len(expected) > 0 && expected[0] == k {
				expected = expected[1:]
			}
		}
	}
	return out
}

// byKey are the places of n keys in the order of the keys. Their first eight bytes are compared as a number, which
// decides nearly always and is several times as fast.
func byKey(n int, key func(i int) fleetscore.Key) []uint32 {
	type place struct {
		head uint64
		at   uint32
	}
	places := make([]place, n)
	for i := range places {
		var head [8]byte
		copy(head[:], key(i))
		places[i] = place{binary.BigEndian.Uint64(head[:]), uint32(i)}
	}
	slices.SortFunc(places, func(a, b place) int {
		if a.head != b.head {
			return cmp.Compare(a.head, b.head)
		}
		return cmp.Compare(key(int(a.at)), key(int(b.at)))
	})
	out := make([]uint32, n)
	for i, p := range places {
		out[i] = p.at
	}
	return out
}

// pickScored leaves out the rows without a prediction. The input's columns are
// somebody else's, so what is kept of them is copied; the results move up.
func (r *run) pickScored(p *fleetscore.Predictions, columns [][]float64) {
	kept := func(yield func(row int) bool) {
		for row, k := range r.rows.KeyIndex {
			if r.hasPrediction(row, k) && !yield(row) {
				return
			}
		}
	}
	n := 0
	for range kept {
		n++
	}
	p.KeyIndex = pick(r.rows.KeyIndex, n, kept)
	p.Times = pick(r.rows.Times, n, kept)
	for _, c := range columns {
		p.Values = append(p.Values, pick(c, n, kept))
	}
	to := 0
	for row := range kept {
		r.prediction[to], r.score[to] = r.prediction[row], r.score[row]
		to++
	}
	p.Prediction, p.Score = r.prediction[:n], r.score[:n]
}

func pick[T any](in []T, n int, rows func(func(int) bool)) []T {
	out := make([]T, 0, n)
	for row := range rows {
		out = append(out, in[row])
	}
	return out
}
