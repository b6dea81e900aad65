// Package sensor knows the last state of each sensor: when it was seen first and last, how often it
// has rows, its last values, for how long it has had the same one, how far its clock is off, and
// which share of its rows are anomalies.
//
// A Watch follows the commits to datasets and to the predictions of their pipelines, and takes each
// once, so that requests read no table. Its state is a function of these commits, so all
// servers that share a store tell the same. From time to time it writes the state into the store, one
// file for each dataset, from which a start goes on.
//
// The package decides nothing about sensors; it has no opinion on which of them should exist, which is a fleet's
// matter. Run owns the only goroutine; all other methods may be called at any time.
package sensor

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

const (
	// MaxSensors bounds the sensors of a dataset that are known. BytesPerSensor is about
	// what one costs with a key of 16 bytes, one value and one pipeline.
	MaxSensors     = 2_000_000
	BytesPerSensor = 160

	lookEvery = 5 * time.Second        // at the tables, without an event
	pause     = 500 * time.Millisecond // between two looks
	saveEvery = 10 * time.Minute       // how often the state is written
	saveLimit = 5 * time.Second        // for that at the end

	recallFiles   = 64        // of a dataset that are read when earlier commits aren't known, the newest
	recallRows    = 2_000_000 // of these files
	recallCommits = 1000      // more are not taken one by one
)

// Source is a dataset with the pipelines that score its rows.
type Source struct {
	Dataset   string
	Pipelines []string
}

// Deps is what a Watch works with.
type Deps struct {
	Sources     func(context.Context) ([]Source, error)
	Dataset     func(name string) *table.Delta
	Predictions func(pipeline string) *table.Delta
	// Complete is the time until which a dataset is complete.
	Complete func(*table.Snapshot) (fleetscore.Micros, bool)
	Store    store.Bucket
	File     func(dataset string) fleetscore.BlobName // where the state is kept
	Keeps    func() bool                              // whether this process writes the state: one of several does
	Events   ledger.Events
	Now      func() time.Time
	Log      *slog.Logger
	Metrics  prometheus.Registerer // nil means none
}

// Watch knows the sensors.
type Watch struct {
	deps Deps

	mu     sync.RWMutex // guards what follows
	states map[string]*state

	// Used by Run alone.
	saved    map[string]saved
	outages  lifecycle.Outages
	troubles map[string]*lifecycle.Trouble // by what can't be read or written
}

// saved is when a state was written, and which.
type saved struct {
	at      time.Time
	version int64 // the sum of the versions of its tables
}

// New builds a Watch; nothing is known before Run runs.
func New(deps Deps) (*Watch, error) {
	w := &Watch{deps: deps, states: map[string]*state{}, saved: map[string]saved{}, troubles: map[string]*lifecycle.Trouble{}}
	if deps.Metrics != nil {
		if err := deps.Metrics.Register(w); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Run follows the commits until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	events, stop := w.deps.Events.Watch(ledger.ConfigTopic, ledger.AnyDataset, ledger.AnyJobs)
	defer stop()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for keeps := false; ; {
		w.Look(ctx)
		if keeps = w.deps.Keeps(); keeps {
			w.save(ctx, false)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		select {
		case <-ctx.Done():
			ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveLimit)
			defer cancel()
			if keeps {
				w.save(ending, true)
			}
			return nil
		case <-events:
		case <-ticker.C:
		}
	}
}

// Look takes the commits that were made since the last look. What can't be read is tried again with the next one.
func (w *Watch) Look(ctx context.Context) {
	sources, err := w.deps.Sources(ctx)
	if w.note(ctx, "configuration", err); err != nil {
		return
	}
	known := map[string]bool{}
	for _, s := range sources {
		known[s.Dataset] = true
		err := w.follow(ctx, s)
		if fleetscore.NotFound.Is(err) {
			err = nil
		}
		w.note(ctx, "dataset "+s.Dataset, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.states, func(name string, _ *state) bool { return !known[name] })
}

// note notes how the work with a subject went.
func (w *Watch) note(ctx context.Context, subject string, err error) {
	t := w.troubles[subject]
	if t == nil {
		if err == nil {
			return
		}
		one := w.outages.Trouble(w.deps.Log)
		t = &one
		w.troubles[subject] = t
	}
	if err == nil {
		t.Works("what is known of sensors is brought up to date again", "subject", subject)
	} else if ctx.Err() == nil {
		t.Failed(slog.LevelWarn, "what is known of sensors can't be brought up to date", err, "subject", subject)
	}
}

// follow brings the state of one dataset up to date.
func (w *Watch) follow(ctx context.Context, from Source) error {
	d := w.deps.Dataset(from.Dataset)
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return err
	}
	w.mu.RLock()
	s := w.states[from.Dataset]
	w.mu.RUnlock()
	if s == nil || s.version > snap.Version { // or the table is another one
		s = w.load(ctx, from.Dataset, snap)
		w.mu.Lock()
		w.states[from.Dataset] = s
		w.mu.Unlock()
	}
	err = w.commits(ctx, d, snap, s.version, func(c table.Change, files []fleetscore.DataFile) error {
		off := offOf(c.Clocks.Off)
		for i := range files { // one after the other, which needs less memory: a commit that fails between them is taken again, and its first rows then change nothing
			rows, err := d.ReadRows(ctx, files[i:i+1], table.ReadQuery{})
			if err != nil {
				return err
			}
			s.take(rows, !c.Clocks.Some, off, &w.mu)
		}
		w.mu.Lock()
		s.clocks(c.Clocks.Off)
		s.version = c.Version
		w.mu.Unlock()
		s.arrange(&w.mu)
		return nil
	})
	until, ok := w.deps.Complete(snap)
	w.mu.Lock()
	if !ok && len(s.last) > 0 { // an upload
		until = max(s.until, slices.Max(s.last))
	}
	if until != 0 {
		s.until = until
	}
	w.mu.Unlock()
	if err != nil {
		return err
	}
	for _, p := range from.Pipelines {
		if err := w.followPredictions(ctx, s, p); err != nil && !fleetscore.NotFound.Is(err) {
			return err
		}
	}
	return nil
}

// followPredictions brings the anomalies of one pipeline up to date.
func (w *Watch) followPredictions(ctx context.Context, s *state, pipeline string) error {
	d := w.deps.Predictions(pipeline)
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	p := s.of(pipeline)
	w.mu.Unlock()
	if p.version > snap.Version { // the table is another one
		p.version = -1
	}
	return w.commits(ctx, d, snap, p.version, func(c table.Change, files []fleetscore.DataFile) error {
		jobs := map[string]bool{}
		for id := range c.Txns {
			if job, ok := strings.CutPrefix(id, "job/"); ok {
				jobs[job] = true
			}
		}
		found := map[fleetscore.Key]score{}
		for i := range files {
			f, schema, err := d.ReadFrame(ctx, files[i:i+1], []string{"Prediction", "Job"}, table.ReadQuery{})
			if err != nil {
				return err
			}
			add(found, f, schema, jobs)
		}
		w.mu.Lock()
		s.scored(pipeline, found)
		p.version = c.Version
		w.mu.Unlock()
		s.arrange(&w.mu)
		return nil
	})
}

// add counts the rows of the last of some jobs that scored a sensor; of any job if none is named. A sensor's rows are in the order of their times.
func add(found map[fleetscore.Key]score, f *table.Frame, schema table.TableSchema, jobs map[string]bool) {
	keys, index := f.Keys(schema.Key)
	times, prediction, job := f.Longs(schema.Time), f.Doubles("Prediction"), f.Texts("Job")
	sums := make([]score, len(keys))
	for i, k := range keys {
		sums[i] = found[k]
	}
	for i, k := range index {
		x, of, t := &sums[k], job(i), fleetscore.Micros(times[i])
		if len(jobs) > 0 && !jobs[of] {
			continue // a row that was in a file of which others were replaced
		}
		if x.scored > 0 && x.job != of {
			if t <= x.until {
				continue
			}
			*x = score{}
		}
		if x.job, x.until = of, t; prediction[i] == 1 {
			x.anomalies++
		}
		x.scored++
	}
	for i, k := range keys {
		if sums[i].scored > 0 {
			found[k] = sums[i]
		}
	}
}

// commits calls take with each commit after a version of a table, and the files whose rows it added, in the order of
// their times. Only files that are part of the table now are read: from the first commit on whose files were joined
// to others since, all are taken as one, because the joined files may come long after later ones.
func (w *Watch) commits(ctx context.Context, d *table.Delta, snap *table.Snapshot, version int64, take func(table.Change, []fleetscore.DataFile) error) error {
	if snap.Version-version > recallCommits {
		return take(table.Change{Version: snap.Version}, newest(snap.Files))
	}
	visible := func(f fleetscore.DataFile) bool {
		_, ok := slices.BinarySearchFunc(snap.Files, f.Path, func(g fleetscore.DataFile, path string) int { return cmp.Compare(g.Path, path) })
		return ok
	}
	var rest table.Change
	missed := false
	for version++; version <= snap.Version; version++ {
		c, err := d.Change(ctx, version)
		if fleetscore.NotFound.Is(err) { // earlier commits were removed
			return take(table.Change{Version: snap.Version}, newest(snap.Files))
		}
		if err != nil {
			return err
		}
		missed = missed || !c.SameRows && slices.ContainsFunc(c.Add, func(f fleetscore.DataFile) bool { return !visible(f) })
		switch {
		case missed:
			rest.Add, rest.Clocks.Off = append(rest.Add, c.Add...), append(rest.Clocks.Off, c.Clocks.Off...)
			rest.Clocks.Some = rest.Clocks.Some || c.Clocks.Some
			if rest.Version = c.Version; rest.Txns == nil {
				rest.Txns = c.Txns
			}
			maps.Copy(rest.Txns, c.Txns)
		case c.SameRows:
			err = take(c, nil)
		default:
			slices.SortFunc(c.Add, byTime)
			err = take(c, c.Add)
		}
		if err != nil {
			return err
		}
	}
	if !missed {
		return nil
	}
	files := slices.DeleteFunc(rest.Add, func(f fleetscore.DataFile) bool { return !visible(f) })
	slices.SortFunc(files, byTime)
	return take(rest, files)
}

func byTime(a, b fleetscore.DataFile) int {
	return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Path, b.Path))
}

// newest are the newest files, as many as are read when earlier commits aren't known, in the order of their times.
func newest(files []fleetscore.DataFile) []fleetscore.DataFile {
	out := slices.Clone(files)
	slices.SortFunc(out, func(a, b fleetscore.DataFile) int { return cmp.Compare(b.Last, a.Last) })
	rows := int64(0)
	for i, f := range out {
		if rows += f.Rows; i == recallFiles || rows > recallRows && i > 0 {
			out = out[:i]
			break
		}
	}
	slices.SortFunc(out, byTime)
	return out
}

// load reads the state of a dataset from the store, or begins a new one.
func (w *Watch) load(ctx context.Context, dataset string, snap *table.Snapshot) *state {
	data, err := store.ReadAll(ctx, w.deps.Store, w.deps.File(dataset))
	if err == nil {
		var s *state
		if s, err = decode(data); err == nil && s.version <= snap.Version && slices.Equal(s.columns, snap.Schema.Values()) {
			w.saved[dataset] = saved{w.deps.Now(), s.versions()}
			return s
		}
	}
	if err != nil && !fleetscore.NotFound.Is(err) {
		w.note(ctx, "file of "+dataset, err)
	}
	s := newState()
	s.columns = snap.Schema.Values()
	return s
}

// versions changes with each commit that the state has taken.
func (s *state) versions() int64 {
	sum := s.version
	for _, p := range s.shares {
		sum += p.version
	}
	return sum
}

// save writes the states that changed and weren't written for a while, or all that changed.
func (w *Watch) save(ctx context.Context, all bool) {
	now := w.deps.Now()
	for name, s := range w.states { // only Run, which called this, changes it
		last, ok := w.saved[name]
		if !ok {
			last = saved{at: now, version: -1}
			w.saved[name] = last
		}
		if s.versions() == last.version || !all && now.Sub(last.at) < saveEvery {
			continue
		}
		data, err := s.encode()
		if err == nil {
			err = store.WriteAll(ctx, w.deps.Store, w.deps.File(name), data, store.PutOptions{})
		}
		w.note(ctx, "file of "+name, err)
		w.saved[name] = saved{now, s.versions()}
	}
}

// List returns the sensors that a query chooses, by dataset and key, the cursor of the next ones, or an empty one, and
// how many it chooses at all.
func (w *Watch) List(q Query) (list []Sensor, next string, total int64) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	var before fleetscore.Key // the last one of the list
	place, key, _ := strings.Cut(q.After, cursor)
	for _, name := range slices.Sorted(maps.Keys(w.states)) {
		if q.Dataset != "" && q.Dataset != name {
			continue
		}
		room, behind := q.Limit+1-len(list), fleetscore.Key("")
		switch {
		case next != "" || name < place || q.Limit < 1:
			room = 0
		case name == place:
			behind = fleetscore.Key(key)
		}
		s := w.states[name]
		chosen, n := s.choose(&q, behind, room)
		total += n
		for _, x := range chosen {
			if len(list) == q.Limit {
				last := list[q.Limit-1]
				next = last.Dataset + cursor + string(before)
				break
			}
			list, before = append(list, s.sensor(name, x)), s.names[x]
		}
	}
	return list, next, total
}

// cursor stands between dataset and key: no dataset's name has it.
const cursor = "/"

// Counts are those of each dataset, by name.
func (w *Watch) Counts() (out []Counts) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(w.states)) {
		out = append(out, w.states[name].counts(name))
	}
	return out
}

var figures = prometheus.NewDesc("fleetscore_sensor_sensors", "Sensors by dataset: known, silent for 10 minutes, flat for an hour, with clocks that are off by 30 seconds.", []string{"dataset", "state"}, nil)

// Describe implements prometheus.Collector.
func (w *Watch) Describe(out chan<- *prometheus.Desc) { out <- figures }

// Collect implements prometheus.Collector.
func (w *Watch) Collect(out chan<- prometheus.Metric) {
	for _, c := range w.Counts() {
		for state, n := range map[string]int64{"known": c.Known, "silent": c.Silent, "flat": c.Flat, "skewed": c.Skewed} {
			out <- prometheus.MustNewConstMetric(figures, prometheus.GaugeValue, float64(n), c.Dataset, state)
		}
	}
}
