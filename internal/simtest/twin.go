package simtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// window is a row as the query makes it.
type window struct{ value, n, serials float64 }

// twin judges the readings of a partition's log in the slowest and plainest way. Each source has a
// watermark, and the partition's is the least of them; no source is away for so long that it
// counts no more.
type twin struct {
	querying
	marks     map[fleetscore.Source]fleetscore.Micros
	watermark fleetscore.Micros
	counted   map[reading]bool
	aside     map[reading]bool // late, or ahead of their arrival
	keys      *keyMarks
}

func micros(d time.Duration) fleetscore.Micros { return fleetscore.Micros(d.Microseconds()) }

func newTwin(q querying) *twin {
	return &twin{querying: q, marks: map[fleetscore.Source]fleetscore.Micros{}, watermark: math.MinInt64, counted: map[reading]bool{}, aside: map[reading]bool{}, keys: newKeyMarks()}
}

// take takes one message.
func (t *twin) take(m hub.Message) {
	t.keys.enter(t.marks, m)
	if t.apart > 0 {
		defer t.settle()
	}
	if m.Tick {
		t.raise(m.Source, m.Arrived-micros(idleAfter))
		return
	}
	if t.apart > 0 {
		t.raise(m.Source, m.Arrived-micros(t.apart))
	}
	for _, r := range readingsOf(m) {
		early := r.at > m.Arrived+m.Unsure+micros(maxFuture)
		mark := t.watermark
		if t.apart > 0 {
			mark = max(mark, m.Arrived-micros(t.apart))
			if own, ok := t.keys.of[r.key]; ok {
				mark = max(mark, own.mark)
			}
			if !early && r.at >= m.Arrived-micros(t.apart) {
				t.keys.raise(r.key, m.Source, min(r.at, m.Arrived)-micros(disorder))
			}
		}
		late, gone := r.at < mark, r.at <= mark-micros(t.within)
		if t.timeout == 0 && t.apart == 0 { // of the simple form
			late, gone = windowOf(r.at) <= mark, windowOf(r.at) <= mark-micros(t.within)
		}
		if early || late && (t.within == 0 || gone) {
			t.aside[r] = true
			continue
		}
		if !late && t.apart == 0 {
			t.raise(m.Source, min(r.at, m.Arrived)-micros(disorder))
		}
		t.counted[r] = true // once
	}
}

// windowOf is the end of the window of a reading.
func windowOf(at fleetscore.Micros) fleetscore.Micros {
	if over := at % micros(width); over != 0 {
		at += micros(width) - over
	}
	return at
}

// rows are those of the readings that count.
func (t *twin) rows() map[cell]window {
	out, of := map[cell]window{}, map[fleetscore.Key][]reading{}
	for r := range t.counted {
		of[r.key] = append(of[r.key], r)
	}
	for key, list := range of {
		slices.SortFunc(list, func(a, b reading) int { return cmp.Compare(a.at, b.at) })
		end := windowOf
		if t.timeout > 0 {
			end = t.sessions(list)
		}
		for _, r := range list {
			row := cell{key, end(r.at)}
			x, ok := out[row]
			if !ok {
				x.value = math.Inf(-1)
			}
			out[row] = window{max(x.value, r.value), x.n + 1, x.serials + r.serial}
		}
	}
	return out
}

// sessions gives the end of the session of each of a device's readings, which are in the order of time.
func (t *twin) sessions(list []reading) (end func(fleetscore.Micros) fleetscore.Micros) {
	ends := map[fleetscore.Micros]fleetscore.Micros{}
	for first := 0; first < len(list); {
		last := first // of the readings without a pause that is too long
		for last+1 < len(list) && list[last+1].at <= list[last].at+micros(t.timeout) {
			last++
		}
		most := micros(t.most)
		cut := (list[first].at/most + 2) * most // the first multiple at which the session is longer than most
		for _, r := range list[first : last+1] {
			for cut < r.at {
				cut += 2 * most // at the next one it is just as long
			}
			ends[r.at] = min(cut, list[last].at+micros(t.timeout))
		}
		first = last + 1
	}
	return func(at fleetscore.Micros) fleetscore.Micros { return ends[at] }
}

// keyMarks are the watermarks of devices, and a clock that goes on by the steps of the sources, by no more than
// three times idleAfter at once.
type keyMarks struct {
	of      map[fleetscore.Key]*keyMark
	arrived map[fleetscore.Source]fleetscore.Micros // the source's last message
	last    map[fleetscore.Source]fleetscore.Micros // the same by the clock
	clock   fleetscore.Micros
	begun   fleetscore.Micros // by the clock, at the first message
}

type keyMark struct{ mark, last fleetscore.Micros }

func newKeyMarks() *keyMarks {
	return &keyMarks{of: map[fleetscore.Key]*keyMark{}, arrived: map[fleetscore.Source]fleetscore.Micros{}, last: map[fleetscore.Source]fleetscore.Micros{}, begun: math.MinInt64}
}

// enter moves the clock. marks has the sources that told a time.
func (k *keyMarks) enter(marks map[fleetscore.Source]fleetscore.Micros, m hub.Message) {
	const most = fleetscore.Micros(3 * idleAfter / time.Microsecond)
	if _, ok := marks[m.Source]; ok {
		k.last[m.Source] = max(k.last[m.Source]+min(max(m.Arrived-k.arrived[m.Source], 0), most), k.clock-most)
		k.arrived[m.Source] = max(k.arrived[m.Source], m.Arrived)
		k.clock = max(k.clock, k.last[m.Source])
		return
	}
	if len(marks) == 0 {
		k.clock = m.Arrived
	}
	k.arrived[m.Source], k.last[m.Source] = m.Arrived, k.clock
}

func (k *keyMarks) raise(key fleetscore.Key, by fleetscore.Source, mark fleetscore.Micros) {
	x := k.of[key]
	if x == nil {
		x = &keyMark{mark: mark}
		k.of[key] = x
	}
	x.mark, x.last = max(x.mark, mark), max(x.last, k.last[by])
}

// settle moves the watermark to that of the device which is furthest behind, and forgets those that were silent
// for too long.
func (t *twin) settle() {
	k := t.keys
	if k.begun == math.MinInt64 {
		k.begun = k.clock
	}
	worked := fleetscore.Micros(math.MaxInt64)
	for source := range t.marks {
		worked = min(worked, k.last[source])
	}
	for len(k.of) > 0 {
		var least fleetscore.Key
		for key, x := range k.of {
			if least == "" || x.mark < k.of[least].mark || x.mark == k.of[least].mark && key < least {
				least = key
			}
		}
		if len(t.marks) > 0 && worked-k.of[least].last > micros(t.apart) {
			delete(k.of, least)
			continue
		}
		if len(t.marks) > 0 && worked-k.begun >= micros(t.apart) { // else it isn't known yet which devices there are
			t.watermark = max(t.watermark, k.of[least].mark)
		}
		return
	}
}

// raise moves the watermark of a source.
func (t *twin) raise(source fleetscore.Source, mark fleetscore.Micros) {
	if have, ok := t.marks[source]; ok {
		mark = max(mark, have)
	}
	t.marks[source] = mark
	for _, m := range t.marks {
		mark = min(mark, m)
	}
	t.watermark = max(t.watermark, mark)
}

// readingsOf are the readings of a message.
func readingsOf(m hub.Message) (out []reading) {
	for i, k := range m.Readings.KeyIndex {
		r := reading{cell: cell{m.Readings.Keys[k], m.Readings.Times[i]}}
		for _, c := range m.Readings.Columns {
			switch {
			case c.Numbers == nil || math.IsNaN(c.Numbers[i]):
			case c.Name == "Serial":
				r.serial = c.Numbers[i]
			case c.Name == "Value":
				r.value = c.Numbers[i]
			}
		}
		out = append(out, r)
	}
	return out
}

// replay reads the whole log that the run left, and makes its rows.
func (w *world) replay(ctx context.Context) (twins []*twin, stats []hub.Stats, err error) {
	h, err := hub.Open(ctx, hub.Config{Dir: w.hubDir(), Partitions: partitions}, hub.Deps{})
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	if stats, err = h.Stats(ctx); err != nil {
		return nil, nil, err
	}
	for i, s := range stats {
		t := newTwin(w.query)
		twins = append(twins, t)
		if s.Last == 0 {
			continue
		}
		child, stop := context.WithCancel(ctx)
		err := h.Read(child, i, 0, func(m hub.Message) error {
			t.take(m)
			if m.Seq == s.Last {
				stop()
			}
			return nil
		})
		stop()
		if child.Err() == nil {
			return nil, nil, err
		}
	}
	return twins, stats, nil
}

// checkStream checks the stream path: each acknowledged reading is in the log and
// counts in exactly one row or is kept as late, rows equal the twin's, and no job was
// planned before all rows of its interval were there.
func (w *world) checkStream(ctx context.Context, p *problems, c *catalog.Catalog) error {
	twins, stats, err := w.replay(ctx)
	if err != nil {
		return err
	}
	snap, err := c.Dataset(measured).Snapshot(ctx)
	if err != nil {
		return err
	}
	repeated := int64(0)
	rows, err := c.Dataset(measured).ReadRows(ctx, snap.Files, table.ReadQuery{Repeated: &repeated})
	if err != nil {
		return err
	}
	if repeated > 0 {
		p.add("the query's dataset has %d rows twice", repeated)
	}
	have := map[cell]window{}
	for i, at := range rows.Times {
		have[cell{rows.Keys[rows.KeyIndex[i]], at}] = window{rows.Column("Value")[i], rows.Column("N")[i], rows.Column("Serials")[i]}
	}
	all := &final{rows: map[cell]window{}, twin: newTwin(w.query)}
	for i, t := range twins {
		entry := func(what string) int64 { return snap.Txns[fmt.Sprintf("query/%s/p%d/%s", queryName, i, what)] }
		if position, from := uint64(entry("position")), uint64(entry("replay_from")); position > stats[i].Last || from > position+1 || len(stats[i].Damage) > 0 {
			p.add("partition %d: the query is at message %d, and would read again from %d; the log ends at %d and has the damage %v", i, position, from, stats[i].Last, stats[i].Damage)
		}
		for row, want := range t.rows() {
			if done := fleetscore.Micros(entry("complete_until")); row.at > done {
				continue
			}
			all.rows[row] = want
			if got, ok := have[row]; got != want && (ok || !w.expired(row.at)) {
				p.add("the query's row for %s at %s is %+v, and by the log %+v", row.key, row.at, have[row], want)
			}
		}
		maps.Copy(all.counted, t.counted)
		maps.Copy(all.aside, t.aside)
	}
	for row := range have {
		if _, ok := all.rows[row]; !ok {
			p.add("the query's row for %s at %s has no reading in the log, or is not complete", row.key, row.at)
		}
	}
	kept, err := w.keptLate(ctx)
	if err != nil {
		return err
	}
	w.checkReadings(p, all, kept)
	return w.checkRescored(ctx, p, c, all)
}

// final is what the logs of all partitions give in the end.
type final struct {
	*twin
	rows map[cell]window
}

// checkReadings checks what became of each reading, and what jobs read.
func (w *world) checkReadings(p *problems, all *final, kept map[reading]bool) {
	w.record.mu.Lock()
	defer w.record.mu.Unlock()
	for _, s := range w.record.readings {
		r := s.reading
		switch {
		case s.acknowledged && !all.counted[r] && !all.aside[r]:
			p.add("the reading %v of %s at %s was acknowledged and is not in the log", r.serial, r.key, r.at)
		case s.prompt && !all.counted[r]:
			p.add("the reading %v of %s at %s came in time and is late", r.serial, r.key, r.at)
		case all.aside[r] && !all.counted[r] && !kept[r] && !w.retention: // the retention removes late readings too
			p.add("the late reading %v of %s at %s is not kept", r.serial, r.key, r.at)
		}
	}
	if w.query.within > 0 { // rows may be revised after a job has read them; see checkRescored
		return
	}
	for job, interval := range w.record.intervals {
		for row, want := range all.rows {
			if v, ok := w.record.read[job][row]; interval.ContainsMicros(row.at) && (!ok || v != want.value) {
				p.add("job %s over %s was planned before the row %+v for %s at %s was there", job, interval, want, row.key, row.at)
			}
		}
	}
}

// checkRescored checks that predictions are those of the rows as they are in the end, after all revisions:
// for each row for which the newest job over its time had to score its sensor, and no others. A job that was canceled, or has no outcomes, leaves what there was.
func (w *world) checkRescored(ctx context.Context, p *problems, c *catalog.Catalog, all *final) error {
	pipeline := w.pipelines[1]
	jobs, err := w.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: pipeline})
	if err != nil || w.query.within == 0 {
		return err
	}
	snap, err := c.Predictions(pipeline).Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return nil
	} else if err != nil {
		return err
	}
	have := map[cell]float64{}
	f, s, err := c.Predictions(pipeline).ReadFrame(ctx, snap.Files, nil, table.ReadQuery{})
	if err != nil {
		return err
	}
	keys, index := f.Keys(s.Key)
	for i, at := range f.Longs(s.Time) {
		have[cell{keys[index[i]], fleetscore.Micros(at)}] = f.Doubles("Value")[i]
	}
	w.record.mu.Lock()
	defer w.record.mu.Unlock()
	judged := func(row cell) bool {
		for _, j := range jobs { // the newest first
			if !j.Interval.ContainsMicros(row.at) || j.Rerun != nil || j.Planned == nil {
				continue
			}
			_, whole := w.record.intervals[j.ID]
			_, scored := w.record.scored[j.ID][row.key]
			return whole && (scored || w.record.empty[j.ID][row.key]) && j.State != fleetscore.JobCanceled && j.Outcomes.Total() > 0 && !w.expired(row.at)
		}
		return false
	}
	for row, want := range all.rows {
		if got, ok := have[row]; judged(row) && (!ok || got != want.value) {
			p.add("pipeline %s: the prediction for %s at %s is of the value %v (%v), and the row has %v in the end", pipeline, row.key, row.at, got, ok, want.value)
		}
	}
	for row, got := range have {
		if _, ok := all.rows[row]; !ok && judged(row) {
			p.add("pipeline %s: there is a prediction for %s at %s of the value %v, and no row in the end", pipeline, row.key, row.at, got)
		}
	}
	return nil
}

// keptLate are the readings that the query kept because they came too late.
func (w *world) keptLate(ctx context.Context) (map[reading]bool, error) {
	out := map[reading]bool{}
	for info, err := range w.store.List(ctx, catalog.LateFolder(measured), store.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		data, err := store.ReadAll(ctx, w.store, info.Name)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(data) {
			var l struct {
				Time   fleetscore.Micros  `json:"time_us"`
				Key    []string           `json:"key"`
				Values map[string]float64 `json:"values"`
			}
			if err := json.Unmarshal(line, &l); err != nil {
				return nil, err
			}
			out[reading{cell{fleetscore.Key(l.Key[0]), l.Time}, l.Values["Serial"], l.Values["Value"]}] = true
		}
	}
	return out, nil
}
