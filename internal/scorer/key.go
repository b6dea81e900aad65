package scorer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/fleetscore/fleetscore"
)

// stride is how many rows are scored between looks at the clock.
const stride = 4096

// worker is one goroutine's memory, reused from key to key.
type worker struct {
	rows              sorted
	now               time.Time // when the last key ended
	began             time.Time // when the current key did
	here, loaded      bool      // the current key's model is scored in this process; it was read
	runtime           Worker
	columns           [][]float64
	ordered           [][]float64 // columns as a model wants them
	shapes            []shape
	oldest            int // of shapes, the one to be replaced next
	prediction, score []float64
	kept              []uint32
	pending           *pending            // for another process; nil if it is empty
	room              *semaphore.Weighted // bytes for batches that were sent: each takes what its models have, or its share
	sent              sync.WaitGroup      // of these
}

// work takes bundles of keys until there are none.
func (r *run) work(ctx context.Context) {
	runtime, err := r.spec.Runtime.Worker()
	if err != nil {
		r.fail(err)
		return
	}
	defer runtime.Close()
	w := worker{runtime: runtime, room: semaphore.NewWeighted(sentBytes)}
	defer func() {
		if ctx.Err() == nil && !r.stopped.Load() {
			r.flush(ctx, &w)
		}
		w.sent.Wait()
	}()
	for {
		b := int(r.next.Add(1)) - 1
		if b >= r.group.bundles() {
			return
		}
		first := r.group.bundle(b, &w.rows)
		w.now = r.spec.Now()
		for k := range len(w.rows.start) - 2 {
			if ctx.Err() != nil || r.stopped.Load() {
				return
			}
			r.key(ctx, &w, first+k, w.rows.order[w.rows.start[k]:w.rows.start[k+1]])
			if r.full(w.pending) {
				r.flush(ctx, &w)
			}
		}
		if r.spec.Progress != nil {
			r.spec.Progress.Add(int64(len(w.rows.start) - 2))
		}
	}
}

// repeat scores the keys again whose time was up, one after the other, which is easier on
// a busy machine.
func (r *run) repeat(ctx context.Context) {
	for len(r.again) > 0 && ctx.Err() == nil && !r.stopped.Load() {
		r.repeats++
		if r.spec.Rest != nil {
			r.spec.Rest(ctx, r.repeats)
		}
		r.repeatOnce(ctx)
	}
}

func (r *run) repeatOnce(ctx context.Context) {
	keys := r.again
	r.again = nil
	slices.Sort(keys)
	runtime, err := r.spec.Runtime.Worker()
	if err != nil {
		r.fail(err)
		return
	}
	defer runtime.Close()
	w := worker{runtime: runtime}
	for _, k := range keys {
		if ctx.Err() != nil || r.stopped.Load() {
			return
		}
		first := r.group.bundle(k/r.group.per, &w.rows)
		r.items[k], w.now = fleetscore.Item{}, r.spec.Now()
		r.key(ctx, &w, k, w.rows.order[w.rows.start[k-first]:w.rows.start[k-first+1]])
	}
}

// onceMore puts a key whose time was up among those that are scored again, unless its
// tries are used up.
func (r *run) onceMore(k int) bool {
	if r.repeats+1 >= r.spec.Tries {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.again = append(r.again, k)
	return true
}

const noData = "the interval holds no row of the sensor"

// ErrTimeout is the error of a runtime whose model took longer than it may.
var ErrTimeout = errors.New("time is up")

// HarmError is the error of a runtime whose model took the process down that scored it.
type HarmError struct{ Cause string }

// Error says what the model did.
func (e *HarmError) Error() string { return e.Cause }

// key scores one key and writes its item. A panic costs the key alone.
func (r *run) key(ctx context.Context, w *worker, k int, group []uint32) {
	it := &r.items[k]
	it.Key = r.rows.Keys[k]
	if len(group) == 0 {
		it.Outcome, it.Reason = fleetscore.NoData, noData
		return
	}
	it.First, it.Last = r.span(group)
	w.began, w.here, w.loaded = w.now, true, false
	defer r.clock(w, it)
	defer r.rescue(it)
	if r.goesForeign(nil) {
		w.here = false
		r.atForeign(ctx, w, k, group)
		return
	}
	data, digest, err := r.models.Model(ctx, it.Key)
	it.Model, r.digests[k] = digest, digest // known of models that can't be scored, too
	switch {
	case fleetscore.NotFound.Is(err):
		r.end(it, fleetscore.NoModel, err)
		return
	case err != nil && (fleetscore.Unavailable.Is(err) || ctx.Err() != nil):
		r.fail(err)
		return
	case err != nil && r.goesForeign(err):
		w.here = false
		r.atForeign(ctx, w, k, group)
		return
	case err != nil:
		r.end(it, fleetscore.Failed, err)
		return
	}
	if q, ok := r.spec.Quarantined[it.Key]; ok && q.Model == digest {
		r.end(it, fleetscore.Quarantined, q.Why())
		return
	}
	if r.kept(it, r.spec.Content, digest, group) {
		return
	}
	m, err := w.runtime.Load(ctx, data)
	if err != nil && r.goesForeign(err) {
		w.here = false
		r.atForeign(ctx, w, k, group)
		return
	}
	if err != nil {
		r.refuse(ctx, k, err)
		return
	}
	order, err := r.order(w, m)
	if err != nil {
		r.end(it, fleetscore.Failed, err)
		return
	}
	if w.loaded = true; r.spec.Timing {
		it.Load = r.spec.Now().Sub(w.began)
	}
	traits := m.Traits()
	if err := r.scoreGroup(ctx, w, m, traits.OutlierDetector, order, it, group); err != nil {
		it.Rows, it.Anomalies = 0, 0
		r.refuse(ctx, k, err)
		return
	}
	r.degenerate[k] = traits.Degenerate
	it.Outcome = fleetscore.Scored
	if it.Rows == 0 {
		it.Outcome = fleetscore.NoData // all its rows lack a feature, as the reason says
	}
}

// rescue turns a panic into the end of a key.
func (r *run) rescue(it *fleetscore.Item) {
	if p := recover(); p != nil {
		stack := make([]byte, 8<<10)
		stack = stack[:runtime.Stack(stack, false)]
		r.end(it, fleetscore.Failed, fmt.Errorf("internal error: %v", p))
		r.log("stack of %s:\n%s", it.Key, stack)
	}
}

// clock notes how long a key took that this process scored.
func (r *run) clock(w *worker, it *fleetscore.Item) {
	if it.Outcome != fleetscore.Scored {
		w.now = r.spec.Now() // finding that out may have taken long
	}
	switch took := w.now.Sub(w.began); {
	case !w.here || !r.spec.Timing:
	case w.loaded:
		it.Score = took - it.Load
	default:
		it.Load = took
	}
}

// refuse ends a key whose model can't be loaded or doesn't score. If the runtime itself
// isn't available, the run fails as a whole.
func (r *run) refuse(ctx context.Context, k int, err error) {
	var harm *HarmError
	switch it := &r.items[k]; {
	case ctx.Err() != nil:
	case fleetscore.Unavailable.Is(err):
		r.fail(err)
	case errors.Is(err, ErrTimeout) && r.onceMore(k):
		r.log("%s: not done after %s; it is tried again", it.Key, r.spec.ModelTimeout)
	case errors.Is(err, ErrTimeout):
		r.harmful[k] = true
		r.end(it, fleetscore.TimedOut, fmt.Errorf("not done after %s; raise the time that a model may take if that is expected", r.spec.ModelTimeout))
	default:
		r.harmful[k] = errors.As(err, &harm)
		r.end(it, fleetscore.Failed, err)
	}
}

// span is the first and last stamp of a key's rows.
func (r *run) span(group []uint32) (first, last fleetscore.Micros) {
	times := r.rows.Times
	first, last = times[group[0]], times[group[len(group)-1]]
	if !r.group.timed {
		for _, row := range group {
			first, last = min(first, times[row]), max(last, times[row])
		}
	}
	return first, last
}

// scoreGroup scores one key's rows, gathered in strides, and counts them.
func (r *run) scoreGroup(ctx context.Context, w *worker, m Model, detector bool, order []int, it *fleetscore.Item, group []uint32) error {
	began := w.now
	leftOut := 0
	for first := 0; first < len(group); first += stride {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rows := group[first:min(first+stride, len(group))]
		rows, err := r.gather(w, rows)
		if err != nil {
			return err
		}
		leftOut += min(stride, len(group)-first) - len(rows)
		w.prediction, w.score = resize(w.prediction, len(rows)), resize(w.score, len(rows))
		if err := m.Predict(ctx, began.Add(r.spec.ModelTimeout), w.arranged(order), w.prediction, w.score); err != nil {
			return err
		}
		anomalies := 0.0
		for i, row := range rows {
			p := w.prediction[i]
			if detector {
				p = (1 - p) / 2 // +1 is an inlier, −1 an outlier
				anomalies += p
			}
			r.prediction[row], r.score[row] = p, w.score[i]
		}
		it.Rows += int64(len(rows))
		it.Anomalies += int64(anomalies)
		w.now = r.spec.Now()
		if w.now.Sub(began) > r.spec.ModelTimeout {
			return ErrTimeout
		}
	}
	if leftOut > 0 {
		r.leftOut.Add(int64(leftOut))
		it.Reason = fmt.Sprintf("left out, as they lack a feature: %d of its %s", leftOut, fleetscore.Counted(len(group), "row"))
	}
	return nil
}

// gather copies the features of some rows, column by column, and gives the rows
// that take part.
func (r *run) gather(w *worker, rows []uint32) ([]uint32, error) {
	w.columns = resize(w.columns, len(r.columns))
	odd := 0.0
	for c, column := range r.columns {
		w.columns[c] = resize(w.columns[c], len(rows))
		to := w.columns[c]
		for i, row := range rows {
			v := column[row]
			odd += v - v // NaN once a value is NaN or infinite
			to[i] = v
		}
	}
	if odd == 0 || r.spec.Missing == fleetscore.MissingToModel {
		return rows, nil
	}
	w.kept = w.kept[:0]
	for _, row := range rows {
		if r.leavesOut(row) {
			continue
		}
		for c, column := range r.columns {
			if v := column[row]; v-v != 0 {
				return nil, r.notFinite(c, row, v)
			}
			w.columns[c][len(w.kept)] = column[row]
		}
		w.kept = append(w.kept, row)
	}
	for c := range w.columns {
		w.columns[c] = w.columns[c][:len(w.kept)]
	}
	return w.kept, nil
}

// leavesOut reports whether a row has no prediction because it lacks a feature.
func (r *run) leavesOut(row uint32) bool {
	if r.spec.Missing != fleetscore.MissingSkip {
		return false
	}
	for _, column := range r.columns {
		if math.IsNaN(column[row]) {
			return true
		}
	}
	return false
}

func (r *run) notFinite(c int, row uint32, v float64) error {
	_, name := fleetscore.SplitFeature(r.spec.Features[c])
	at := "the row of " + r.rows.Times[row].String()
	if r.rows.TimeName == "" {
		at = fmt.Sprintf("row %d", row+1)
	}
	if !math.IsNaN(v) {
		return fmt.Errorf("%s is infinite in %s; no model takes that", name, at)
	}
	return fmt.Errorf("%s is missing in %s; leave such rows out (missing: skip) or let a model that fills them take them (missing: model)", name, at)
}
