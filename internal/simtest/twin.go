package simtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// window is a row as the query makes it.
type window struct{ value, n, serials float64 }

// twin makes rows of a partition's log in the slowest and plainest way. Each source has a
// watermark, and the partition's is the least of them; no source is away for so long that it
// counts no more.
type twin struct {
	marks     map[fleetscore.Source]fleetscore.Micros
	watermark fleetscore.Micros
	rows      map[cell]window
	counted   map[reading]bool
	aside     map[reading]bool // late, or ahead of their arrival
}

func micros(d time.Duration) fleetscore.Micros { return fleetscore.Micros(d.Microseconds()) }

func newTwin() *twin {
	return &twin{marks: map[fleetscore.Source]fleetscore.Micros{}, watermark: math.MinInt64, rows: map[cell]window{}, counted: map[reading]bool{}, aside: map[reading]bool{}}
}

// take takes one message.
func (t *twin) take(m hub.Message) {
	if m.Tick {
		t.raise(m.Source, m.Arrived-micros(idleAfter))
		return
	}
	for _, r := range readingsOf(m) {
		end := r.at
		if over := end % micros(width); over != 0 {
			end += micros(width) - over
		}
		switch {
		case r.at > m.Arrived+m.Unsure+micros(maxFuture), end <= t.watermark:
			t.aside[r] = true
		default:
			t.raise(m.Source, min(r.at, m.Arrived)-micros(disorder))
			if t.counted[r] {
				continue // it was repeated
			}
			t.counted[r] = true
			row, ok := t.rows[cell{r.key, end}]
			if !ok {
				row.value = r.value
			}
			t.rows[cell{r.key, end}] = window{max(row.value, r.value), row.n + 1, row.serials + r.serial}
		}
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
		t := newTwin()
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
	all := newTwin()
	for i, t := range twins {
		entry := func(what string) int64 { return snap.Txns[fmt.Sprintf("query/%s/p%d/%s", queryName, i, what)] }
		if position, from := uint64(entry("position")), uint64(entry("replay_from")); position > stats[i].Last || from > position+1 || len(stats[i].Damage) > 0 {
			p.add("partition %d: the query is at message %d, and would read again from %d; the log ends at %d and has the damage %v", i, position, from, stats[i].Last, stats[i].Damage)
		}
		for row, want := range t.rows {
			if done := fleetscore.Micros(entry("complete_until")); row.at > done {
				continue
			}
			all.rows[row] = want
			if got, ok := have[row]; got != want && (ok || !w.expired(row.at)) {
				p.add("the query's row for %s at %s is %+v, and by the log %+v", row.key, row.at, have[row], want)
			}
		}
		for r := range t.counted {
			all.counted[r] = true
		}
		for r := range t.aside {
			all.aside[r] = true
		}
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
	return nil
}

// checkReadings checks what became of each reading, and what jobs read.
func (w *world) checkReadings(p *problems, all *twin, kept map[reading]bool) {
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
	for job, interval := range w.record.intervals {
		for row, want := range all.rows {
			if v, ok := w.record.read[job][row]; interval.ContainsMicros(row.at) && (!ok || v != want.value) {
				p.add("job %s over %s was planned before the row %+v for %s at %s was there", job, interval, want, row.key, row.at)
			}
		}
	}
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
