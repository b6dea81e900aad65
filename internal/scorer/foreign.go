package scorer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn"
)

// Foreign scores with models in other processes. It is given many sensors at once, so
// that crossing to the other process costs little per sensor. It must be safe for
// concurrent use.
type Foreign interface {
	// Score scores the sensors of a batch, and calls ended exactly once for each of
	// them, by its number and by one goroutine at a time, unless it returns an error: kind
	// Unavailable if the attempt as a whole can't go on.
	Score(ctx context.Context, b *Batch, ended func(sensor int, e Ended)) error
}

// Batch is sensors with their models and rows.
type Batch struct {
	TimeName string // empty if rows have no times
	KeyNames []string
	Features []string // the names of the columns in the dataset
	Outputs  []string // their names on output
	By       fleetscore.FeatureOrder
	Timeout  time.Duration // loading and scoring of one sensor
	Sensors  []BatchSensor
	Times    []fleetscore.Micros // of all rows, sensor after sensor
	Columns  [][]float64         // per feature, of all rows
	Log      func(format string, args ...any)
	Print    func(format string, args ...any) // takes what models print to their standard output
}

// BatchSensor is a sensor of a batch.
type BatchSensor struct {
	Key    fleetscore.Key
	Name   string // of the model's file
	Model  []byte // that file
	Digest fleetscore.Digest
	Rows   int
	made   *sklearn.Origin
}

// Made is what the model's file tells of the environment that wrote it. Only one goroutine at a
// time may ask.
func (s *BatchSensor) Made() sklearn.Origin {
	if s.made == nil {
		o := sklearn.OriginOf(s.Model)
		s.made = &o
	}
	return *s.made
}

// Ended is how a sensor of a batch ended: with an error, or with a value per row.
type Ended struct {
	Err               error
	TimedOut          bool // Err says that the time was up
	Prediction, Score []float64
	Detector          bool // predictions are +1 for an inlier and −1 for an outlier
	// Apart says that the sensor was scored without predictions: what became of it lies
	// elsewhere.
	Apart     bool
	Anomalies int64 // among the predictions, unless Detector says how to find them
	// Note is said of the sensor although it was scored; empty for nothing.
	Note string
	// Loading and Scoring are how long reading the model and predicting took. If both are 0,
	// it took as long as no other sensor of the batch ended.
	Loading, Scoring time.Duration
}

// Originals finds the file of a key's model as it was uploaded, and its name. Sources of
// models that other runtimes than Native shall score with have this method too.
type Originals interface {
	Original(ctx context.Context, k fleetscore.Key) (data []byte, name string, digest fleetscore.Digest, err error)
}

const (
	mostSensors  = 256       // a batch is sent when it has so many sensors, or its share of the run's,
	fewSensors   = 128       // which isn't less than this,
	batchRows    = 200_000   // or so many rows,
	batchBytes   = 64 << 20  // or its share of so many bytes of models
	sentBytes    = 128 << 20 // the models of a worker's batches that are being scored have together, if none has more
	batchesShare = 2         // batches that each place for one gets in a run, so that all places are done at about the same time
)

// pending is the batch that a worker gathers.
type pending struct {
	Batch
	places []place
	bytes  int
}

// full tells whether a batch is to be sent.
func (r *run) full(p *pending) bool {
	if p == nil || r.spec.Whole {
		return false
	}
	share := len(r.rows.Keys) / (batchesShare * r.spec.Workers * r.spec.Batches)
	return len(p.Sensors) >= min(max(share, fewSensors), mostSensors) || len(p.Times) >= batchRows || p.bytes >= batchBytes/r.spec.Batches
}

// place says where the results of a sensor of a batch go.
type place struct {
	sensor int      // its number in the rows
	rows   []uint32 // those that take part
}

// goesForeign decides the runtime for a sensor whose model the native runtime refused
// with the error, or for all sensors if Use says so.
func (r *run) goesForeign(refused error) bool {
	switch r.spec.Use {
	case fleetscore.RuntimePython, fleetscore.RuntimeONNX, fleetscore.RuntimeCommand:
		return true
	case fleetscore.RuntimeAuto:
		refusal, ok := errors.AsType[*sklearn.Refusal](refused)
		return refused != nil && fleetscore.Invalid.Is(refused) && !(ok && refusal.Reason == sklearn.HoldsCode)
	}
	return false
}

// atForeign gives a sensor to the other process, or ends it.
func (r *run) atForeign(ctx context.Context, w *worker, k int, group []uint32) {
	it := &r.items[k]
	err := r.foreign(ctx, w, k, group)
	switch {
	case err == nil:
	case fleetscore.NotFound.Is(err):
		r.end(it, fleetscore.NoModel, err)
	case fleetscore.Unavailable.Is(err) || ctx.Err() != nil:
		r.fail(err)
	default:
		r.end(it, fleetscore.Failed, err)
	}
}

// foreign puts a sensor into the worker's batch. An error costs the sensor alone.
func (r *run) foreign(ctx context.Context, w *worker, k int, group []uint32) error {
	source, ok := r.models.(Originals)
	if !ok || r.spec.Foreign == nil {
		return errors.New("no Python is configured that models could be scored with")
	}
	it := &r.items[k]
	data, name, digest, err := source.Original(ctx, it.Key)
	it.Model, r.digests[k] = digest, digest
	if err != nil {
		return err
	}
	if q, ok := r.spec.Quarantined[it.Key]; ok && q.Model == digest {
		r.end(it, fleetscore.Quarantined, q.Why())
		return nil
	}
	if r.kept(it, r.spec.ForeignContent, digest, group) {
		return nil
	}
	if w.pending == nil {
		w.pending = &pending{}
	}
	p := w.pending
	if len(p.Columns) == 0 {
		p.Columns = make([][]float64, len(r.columns))
	}
	kept := make([]uint32, 0, len(group))
	for first := 0; first < len(group); first += stride {
		rows, err := r.gather(w, group[first:min(first+stride, len(group))])
		if err != nil {
			p.cut(len(p.Times))
			return err
		}
		kept = append(kept, rows...)
		for c := range p.Columns {
			p.Columns[c] = append(p.Columns[c], w.columns[c]...)
		}
	}
	if left := len(group) - len(kept); left > 0 {
		r.leftOut.Add(int64(left))
		it.Reason = fmt.Sprintf("left out, as they lack a feature: %d of its %s", left, fleetscore.Counted(len(group), "row"))
	}
	if len(kept) == 0 {
		it.Outcome = fleetscore.NoData // all its rows lack a feature, as the reason says
		return nil
	}
	for _, row := range kept {
		p.Times = append(p.Times, r.rows.Times[row])
	}
	p.Sensors = append(p.Sensors, BatchSensor{Key: it.Key, Name: name, Model: data, Digest: digest, Rows: len(kept)})
	p.places = append(p.places, place{sensor: k, rows: kept})
	p.bytes += len(data)
	return nil
}

// cut drops what was gathered beyond so many rows.
func (p *pending) cut(rows int) {
	for c := range p.Columns {
		p.Columns[c] = p.Columns[c][:rows]
	}
}

// flush has the worker's batch scored, beside those that it sent before. It waits until there is room for it.
func (r *run) flush(ctx context.Context, w *worker) {
	p := w.pending
	if w.pending = nil; p == nil || len(p.Sensors) == 0 {
		return
	}
	share := int64(min(max(p.bytes, sentBytes/r.spec.Batches), sentBytes))
	if w.room.Acquire(ctx, share) != nil {
		return // as ctx has ended
	}
	w.sent.Go(func() {
		defer w.room.Release(share)
		r.send(ctx, p)
	})
}

// send scores a batch.
func (r *run) send(ctx context.Context, p *pending) {
	p.TimeName, p.KeyNames, p.By, p.Timeout, p.Log = r.rows.TimeName, r.rows.KeyNames, r.spec.FeaturesBy, r.spec.ModelTimeout, r.log
	p.Print = r.print
	for _, f := range r.spec.Features {
		output, column := fleetscore.SplitFeature(f)
		p.Features, p.Outputs = append(p.Features, column), append(p.Outputs, output)
	}
	began := r.spec.Now()
	err := r.spec.Foreign.Score(ctx, &p.Batch, func(sensor int, e Ended) {
		now := r.spec.Now()
		if e.Loading+e.Scoring == 0 {
			e.Scoring = now.Sub(began)
		}
		began = now
		r.ended(p.places[sensor], e)
	})
	if err != nil && ctx.Err() == nil {
		r.fail(err)
	}
}

// ended writes the item and the results of a sensor that was scored elsewhere.
func (r *run) ended(p place, e Ended) {
	it := &r.items[p.sensor]
	if r.spec.Timing {
		it.Load, it.Score = e.Loading, e.Scoring
	}
	switch {
	case e.TimedOut:
		r.harmful[p.sensor] = true
		r.end(it, fleetscore.TimedOut, e.Err)
		return
	case e.Err == nil && e.Apart:
		r.apart[p.sensor] = true
		it.Outcome = fleetscore.Scored
		return
	case e.Err == nil && (len(e.Prediction) != len(p.rows) || len(e.Score) != len(p.rows)):
		e.Err = fmt.Errorf("%d predictions for %d rows", len(e.Prediction), len(p.rows))
	}
	if e.Err != nil {
		var harm *HarmError
		r.harmful[p.sensor] = errors.As(e.Err, &harm)
		r.end(it, fleetscore.Failed, e.Err)
		return
	}
	anomalies := float64(e.Anomalies)
	for i, row := range p.rows {
		v := e.Prediction[i]
		if e.Detector {
			v = (1 - v) / 2 // +1 is an inlier, −1 an outlier
			anomalies += v
		}
		r.prediction[row], r.score[row] = v, e.Score[i]
	}
	it.Outcome, it.Rows, it.Anomalies = fleetscore.Scored, int64(len(p.rows)), int64(anomalies)
	if e.Note != "" {
		it.Reason = strings.TrimPrefix(it.Reason+"; "+e.Note, "; ")
	}
}
