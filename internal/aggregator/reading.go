package aggregator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/window"
)

// reading is one pass over a partition's log, from a checkpoint on.
type reading struct {
	a         *Aggregator
	ctx       context.Context // of the pass, because the hub's callback has none
	index     int
	windows   engine
	last      window.Checkpoint // what was committed last
	at        place             // the log that it lies in
	committed bool              // whether anything was
	next      uint64            // the message to come; 0 before the first
	aside     aside             // since the last commit
	clocks    clocks
	cost      cost

	late      bytes.Buffer // late readings since the last commit or file
	lateFirst uint64       // of the first of these readings
	lateLast  uint64
	lateFiles []string // written since the last commit
}

// maxLateBytes is how much is kept in memory before a late file is written.
const maxLateBytes = 4 << 20

// take takes one message, and commits when the watermark has passed a cut.
func (r *reading) take(m hub.Message) error {
	if r.next != 0 && m.Seq > r.next {
		r.missing(r.next, m.Seq-1)
	}
	r.next = m.Seq + 1
	stamp := window.Stamp{Seq: m.Seq, Source: m.Source, Arrived: m.Arrived, Unsure: m.Unsure}
	take := r.readings
	if m.Tick {
		take = func(hub.Message, window.Stamp) error { return r.windows.Tick(stamp) }
	}
	if err := take(m, stamp); err != nil {
		return err
	}
	w, ok := r.windows.Watermark()
	open, over := r.windows.HeldBytes()
	if open > r.a.share {
		r.windows.Measure()
		open, over = r.windows.HeldBytes()
	}
	r.a.update(r.index, func(s *PartitionStatus) {
		r.a.marks[r.index] = r.windows.Mark(r.a.marks[r.index].Sources)
		if ok {
			s.Watermark, s.OpenWindows = w, r.windows.OpenWindows()
		}
		s.HeldBytes, s.RowsAhead = open+over, r.ahead()
		s.Position, s.Taken = max(s.Position, m.Seq), m.Seq
	})
	if open > r.a.share {
		return r.tooMuch(open)
	}
	done, ok := r.windows.Complete(r.a.cut, over > r.a.share/8) // a commit before the cut makes the same rows in smaller files
	if !ok {
		return nil
	}
	if r.committed && done <= r.last.Done && r.touched() > maxTouched {
		done = r.last.Done // only revisions are committed
	} else if r.committed && done <= r.last.Done {
		return nil
	}
	if m.Seq <= r.last.Position {
		return nil
	}
	r.at.hub, r.at.epoch = r.a.hub.ID(), m.Epoch
	return r.commit(m.Seq, done)
}

// tooMuch is the error that stops the reading when the open windows take too much
// memory.
func (r *reading) tooMuch(open int64) error {
	if e, ok := r.windows.(*events); ok && bytesOf(e.ahead) > open/2 {
		who := "sensors that are"
		if k := e.gate.Mark(nil).Key.Key; k != "" { // else it isn't known yet which sensors there are
			who = fmt.Sprintf("sensor %s, which is", k)
		}
		return fleetscore.Errorf(fleetscore.Invalid, "run query", r.a.subject, "%d rows of partition %d wait for %s further behind, and use about %d MB, more than the allowed %d MB; nothing is lost, the hub keeps the readings",
			len(e.ahead), r.index, who, open>>20, r.a.share>>20).
			WithHint("set queries.%s.memory_mb to more, or late_within, up to which sensors are waited for, to less", r.a.cfg.Name)
	}
	return fleetscore.Errorf(fleetscore.Invalid, "run query", r.a.subject, "the query's open windows of partition %d use about %d MB, more than the allowed %d MB; nothing is lost, the hub keeps the readings", r.index, open>>20, r.a.share>>20).
		WithHint("set queries.%s.memory_mb to more, use shorter windows, or set hub.disorder to less", r.a.cfg.Name)
}

func floor(t, unit fleetscore.Micros) fleetscore.Micros {
	n := t / unit
	if t%unit < 0 {
		n--
	}
	return n * unit
}

func (r *reading) readings(m hub.Message, stamp window.Stamp) error {
	for _, k := range m.Readings.Keys {
		if n := strings.Count(string(k), fleetscore.KeySeparator) + 1; n != len(r.a.plan.KeyNames) {
			return fleetscore.Errorf(fleetscore.Corrupt, "read hub", fmt.Sprintf("message %d", m.Seq), "the keys have %d values, the query groups by %d", n, len(r.a.plan.KeyNames))
		}
	}
	var counts [window.Done + 1]int64
	err := r.windows.Take(m, stamp, r.a.cfg.Hub.Key, func(i int, v window.Verdict) {
		counts[v]++
		if v == window.Late || v == window.Early || v == window.Repeat {
			r.aside.count(v, m.Readings.Times[i], m.Readings.Keys[m.Readings.KeyIndex[i]])
		}
		if v == window.Late || v == window.Early {
			r.keepLate(m, i, v)
		}
	})
	if err != nil {
		return err
	}
	r.clocks.note(m)
	r.cost.taken += int64(m.Readings.Len())
	r.tellCost()
	r.a.metrics.count(counts)
	r.aside.good += counts[window.Counted] + counts[window.Adjusted] + counts[window.Filtered] + counts[window.Revised]
	r.tell()
	r.a.update(r.index, func(s *PartitionStatus) {
		s.Counted += counts[window.Counted] + counts[window.Adjusted]
		s.Adjusted += counts[window.Adjusted]
		s.Repeats += counts[window.Repeat]
		s.Late += counts[window.Late]
		s.Early += counts[window.Early]
		s.Filtered += counts[window.Filtered]
		s.Revised += counts[window.Revised]
	})
	if r.late.Len() > maxLateBytes {
		return r.writeLate()
	}
	return nil
}

// lateReading is a line of a late file.
type lateReading struct {
	Reason  string            `json:"reason"` // late or early
	Seq     uint64            `json:"seq"`    // of its message
	Arrived fleetscore.Micros `json:"arrived_us"`
	Time    fleetscore.Micros `json:"time_us"`
	Key     []string          `json:"key"`
	ID      string            `json:"id,omitempty"`
	Values  map[string]any    `json:"values"`
}

func (r *reading) keepLate(m hub.Message, i int, v window.Verdict) {
	l := lateReading{Reason: v.String(), Seq: m.Seq, Arrived: m.Arrived, Time: m.Readings.Times[i],
		Key: m.Readings.Keys[m.Readings.KeyIndex[i]].Values(), Values: map[string]any{}}
	if m.Readings.IDs != nil {
		l.ID = m.Readings.IDs[i]
	}
	for _, c := range m.Readings.Columns {
		switch {
		case c.Strings != nil && (c.Present == nil || c.Present[i]):
			l.Values[c.Name] = c.Strings[i]
		case c.Strings == nil && !math.IsNaN(c.Numbers[i]):
			l.Values[c.Name] = c.Numbers[i]
		}
	}
	if r.late.Len() == 0 {
		r.lateFirst = m.Seq
	}
	r.lateLast = m.Seq
	if err := json.NewEncoder(&r.late).Encode(l); err != nil { // the hub's codec never returns infinite values
		r.a.log.Error("late reading could not be kept", "partition", r.index, "seq", m.Seq, "error", err)
	}
}

// writeLate writes the late readings kept so far into a file of their own. The name
// depends on the log alone, so a pass that is repeated writes the same file.
func (r *reading) writeLate() error {
	if r.late.Len() == 0 {
		return nil
	}
	name := catalog.LateReadings(r.a.plan.Into, r.index, uint64(r.at.count(r.lateFirst)), uint64(r.at.count(r.lateLast)))
	err := r.a.persist(r.ctx, "writing late readings", func() error {
		return store.WriteAll(r.ctx, r.a.catalog.Store(), name, r.late.Bytes(), store.PutOptions{})
	})
	if err != nil {
		return err
	}
	r.lateFiles = append(r.lateFiles, strings.TrimPrefix(string(name), catalog.DatasetFolder(r.a.plan.Into)+"/"))
	r.late.Reset()
	return nil
}

// write writes rows into files that no reader sees yet.
func (r *reading) write(parts iter.Seq[*fleetscore.Rows], id string) (files []fleetscore.DataFile, count int64, err error) {
	a := r.a
	for rows := range parts {
		rows.TimeName, rows.KeyNames, rows.ValueNames = a.plan.StampName, a.plan.KeyNames, a.plan.Values()
		err := a.persist(r.ctx, "writing rows", func() error {
			more, err := a.table.WriteRows(r.ctx, rows, id)
			if err == nil {
				files = append(files, more...)
			}
			return err
		})
		if err != nil {
			return nil, 0, err
		}
		count += int64(rows.Len())
	}
	return files, count, nil
}

// commit closes the windows that end by done and makes their rows visible,
// together with the position in the log.
func (r *reading) commit(position uint64, done fleetscore.Micros) error {
	if err := r.writeLate(); err != nil {
		return err
	}
	a := r.a
	revised, gone, err := r.revise(position)
	if err != nil {
		return err
	}
	parts := r.windows.Parts(done)
	c := r.windows.Checkpoint(position, done)
	state := r.windows.Save(position)
	guard := a.appID(r.index, "position")
	commit := table.Commit{Operation: "STREAMING UPDATE", Guard: guard, Check: func(snap *table.Snapshot) error { return owns(snap, a.cfg.Name, a.plan) },
		Txns: a.entries(r.index, c, r.at), Info: map[string]any{}}
	if len(r.lateFiles) > 0 {
		commit.Info["fleetscore.late"] = r.lateFiles
	}
	if list := r.aside.list(); len(list) > 0 {
		commit.Info[table.SetAsideInfo] = list
	}
	if list := r.clocks.list(); list.Some || len(list.Off) > 0 {
		commit.Info[table.ClocksInfo] = list
	}
	if revised != nil && revised.Len() > 0 {
		commit.Info[table.RevisedInfo] = revisions(revised, a.cut)
	}
	id := fmt.Sprintf("%s-p%03d-%d", a.cfg.Name, r.index, r.at.count(position))
	add, count, err := r.write(parts, id)
	if err != nil {
		return err
	}
	commit.Add = add
	err = a.persist(r.ctx, "committing rows", func() (err error) {
		if state != nil { // before the commit that makes it the one to go on from
			if err := store.WriteAll(r.ctx, a.catalog.Store(), catalog.QueryState(a.plan.Into, r.index, r.at.count(position)), state, store.PutOptions{}); err != nil {
				return err
			}
		}
		return r.put(commit, revised, gone)
	})
	if a.told != nil && (err == nil || table.AlreadyCommitted(err)) {
		a.told(a.plan.Into)
	}
	if table.AlreadyCommitted(err) {
		// This was our own commit whose answer was lost, or a commit of another
		// process. In both cases the table says where to go on.
		a.log.Info("rows were committed before", "partition", r.index, "position", position)
		return errAgain
	}
	if err != nil {
		return err
	}
	r.last, r.committed, r.lateFiles, r.aside.cuts = c, true, nil, nil
	r.clocks.off, r.clocks.some = nil, false
	if w, ok := r.windows.(*windows); ok {
		w.Untouch()
	}
	if err := r.remember(position); err != nil {
		return err
	}
	a.setHold(r.index, a.needs(c))
	if state != nil {
		a.forget(r.ctx, r.index, r.at.count(position))
	}
	a.metrics.rows.Add(float64(count))
	a.update(r.index, func(s *PartitionStatus) {
		s.CompleteUntil, s.OpenWindows, s.Replaced = done, r.windows.OpenWindows(), r.windows.Replaced()
		open, over := r.windows.HeldBytes()
		s.HeldBytes, s.RowsAhead = open+over, r.ahead()
		s.Rows += count
	})
	return nil
}
