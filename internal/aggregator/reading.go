package aggregator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/merged"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/window"
)

// reading is one pass over the log, from a checkpoint on: over one partition, or over all of them in one order.
type reading struct {
	a         *Aggregator
	ctx       context.Context // of the pass, because the hub's callback has none
	tracks    []*track        // of the partitions
	windows   engine
	done      fleetscore.Micros // up to which rows were committed last
	committed bool              // whether anything was
	aside     aside             // since the last commit
	clocks    clocks
	cost      cost
	lateFiles []string // written since the last commit
	outlived  bool     // there are states of the query's dataset, or may be
}

// track is a reading's place in one partition.
type track struct {
	partition int
	last      window.Checkpoint // what was committed last
	own       fleetscore.Micros // up to this time its rows were committed, if the query was edited: less far than Done, if each partition was read for itself
	at        place             // the log that it lies in
	position  uint64            // the last message taken; 0 before the first
	epoch     int64             // of that message; 0 before the first
	next      uint64            // the message to come; 0 before the first
	needed    fleetscore.Micros // messages that have only readings up to this time aren't missed

	late      bytes.Buffer // late readings since the last commit or file
	lateFirst uint64       // of the first of these readings
	lateLast  uint64
}

// everyPartition names a pass over all partitions.
const everyPartition = "all"

// name is that of the pass in the names of states and files.
func (r *reading) name() string {
	if len(r.tracks) == 1 {
		return fmt.Sprintf("p%03d", r.tracks[0].partition)
	}
	return everyPartition
}

// track is the place in a message's partition, which stands at its number if the reading has several.
func (r *reading) track(m hub.Message) *track { return r.tracks[r.stamp(m).Partition] }

// stamp is what a message says about its origin.
func (r *reading) stamp(m hub.Message) window.Stamp {
	s := window.Stamp{Seq: m.Seq, Source: m.Source, Arrived: m.Arrived, Unsure: m.Unsure}
	if len(r.tracks) > 1 {
		s.Partition = m.Partition
	}
	return s
}

// config is that of the reading's windows.
func (r *reading) config() window.Config {
	c := r.a.window
	c.Partitions = len(r.tracks)
	return c
}

// positions are the last messages taken.
func (r *reading) positions() (out []uint64) {
	for _, t := range r.tracks {
		out = append(out, t.position)
	}
	return out
}

// count adds up positions as the table's entries count them, so that the sum only grows.
func (r *reading) count(positions []uint64) (sum int64) {
	for i, t := range r.tracks {
		sum += t.at.count(positions[i])
	}
	return sum
}

// behind reports whether the log is read again, up to what was committed.
func (r *reading) behind() bool {
	return slices.ContainsFunc(r.tracks, func(t *track) bool { return t.position < t.last.Position })
}

// between calls fn with the messages that come after some positions, up to others.
func (r *reading) between(after, to []uint64, fn func(hub.Message) error) error {
	from := make([]uint64, len(after))
	for i := range after {
		from[i] = after[i] + 1
	}
	if len(r.tracks) == 1 {
		return hub.Range(r.ctx, r.a.hub, r.tracks[0].partition, from[0], to[0], fn)
	}
	return merged.Range(r.ctx, r.a.hub, from, to, fn)
}

// read takes messages from some sequences on, until something fails.
func (r *reading) read(from []uint64) error {
	if len(r.tracks) == 1 {
		return r.a.hub.Read(r.ctx, r.tracks[0].partition, from[0], r.take)
	}
	return merged.Read(r.ctx, r.a.hub, from, r.take)
}

// maxLateBytes is how much is kept in memory before a late file is written.
const maxLateBytes = 4 << 20

// take takes one message, and commits when the watermark has passed a cut.
func (r *reading) take(m hub.Message) error {
	t, stamp := r.track(m), r.stamp(m)
	if t.next != 0 && m.Seq > t.next && m.Arrived+m.Unsure+fleetscore.Micros(maxEarly.Microseconds()) > t.needed { // those before it arrived earlier
		r.missing(t, t.next, m.Seq-1)
	}
	t.next, t.position, t.epoch = m.Seq+1, m.Seq, m.Epoch
	take := r.readings
	if m.Tick {
		take = func(hub.Message, window.Stamp) error { return r.windows.Tick(stamp) }
	}
	if err := take(m, stamp); err != nil {
		return err
	}
	if e, ok := r.windows.(*events); ok && r.behind() && e.due() { // as commits would do it, of which there are none yet
		if _, _, err := r.reviseLanes(e, r.positions()); err != nil {
			return err
		}
		e.rebase(r.positions())
	}
	w, ok := r.windows.Watermark()
	open, over := r.windows.HeldBytes()
	if open > r.a.share {
		r.windows.Measure()
		open, over = r.windows.HeldBytes()
	}
	r.a.update(t.partition, func(s *PartitionStatus) {
		r.a.turn, r.a.marks[t.partition] = t.partition, r.windows.Mark(stamp.Partition, r.a.marks[t.partition].Sources)
		if ok {
			s.Watermark = w
		}
		s.Position, s.Taken = max(s.Position, m.Seq), m.Seq
	})
	r.tellHeld(open + over)
	if open > r.a.share {
		return r.tooMuch(open)
	}
	done, ok := r.windows.Complete(r.a.cut, over > r.a.share/8) // a commit before the cut makes the same rows in smaller files
	if !ok {
		return nil
	}
	if r.committed && done <= r.done && r.touched() > maxTouched {
		done = r.done // only revisions are committed
	} else if r.committed && done <= r.done {
		return nil
	}
	if m.Seq <= t.last.Position || r.behind() {
		return nil
	}
	return r.commit(t, done)
}

// tellHeld tells what the windows hold; of several partitions in the first one, so that sums are right.
func (r *reading) tellHeld(bytes int64) {
	r.a.update(r.tracks[0].partition, func(s *PartitionStatus) {
		s.HeldBytes, s.RowsAhead, s.OpenWindows, s.Replaced = bytes, r.ahead(), r.windows.OpenWindows(), r.windows.Replaced()
	})
}

// tooMuch is the error that stops the reading when the open windows take too much
// memory.
func (r *reading) tooMuch(open int64) error {
	if e, ok := r.windows.(*events); ok && bytesOf(e.ahead) > open/2 {
		who := "sensors that are"
		if k := e.gate.Mark(0, nil).Key.Key; k != "" { // else it isn't known yet which sensors there are
			who = fmt.Sprintf("%s, which is", r.a.lineName(k))
		} else if r.a.plan.General.Lines {
			who = "others that are"
		}
		return fleetscore.Errorf(fleetscore.Invalid, "run query", r.a.subject, "%d rows of %s wait for %s further behind, and use about %d MB, more than the allowed %d MB; nothing is lost, the hub keeps the readings",
			len(e.ahead), r.where(), who, open>>20, r.a.share>>20).
			WithHint("set queries.%s.memory_mb to more, or late_within, up to which sensors are waited for, to less", r.a.cfg.Name)
	}
	return fleetscore.Errorf(fleetscore.Invalid, "run query", r.a.subject, "the query's open windows of %s use about %d MB, more than the allowed %d MB; nothing is lost, the hub keeps the readings", r.where(), open>>20, r.a.share>>20).
		WithHint("set queries.%s.memory_mb to more, use shorter windows, or set hub.disorder to less", r.a.cfg.Name)
}

// where names the partitions for people.
func (r *reading) where() string {
	if len(r.tracks) == 1 {
		return fmt.Sprintf("partition %d", r.tracks[0].partition)
	}
	return "all partitions"
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
		if n := strings.Count(string(k), fleetscore.KeySeparator) + 1; n != len(r.a.cfg.Hub.Key) {
			return fleetscore.Errorf(fleetscore.Corrupt, "read hub", fmt.Sprintf("message %d", m.Seq), "the keys have %d values, those of the hub %d", n, len(r.a.cfg.Hub.Key))
		}
	}
	var counts [window.Done + 1]int64
	err := r.windows.Take(m, stamp, r.a.cfg.Hub.Key, func(i int, v window.Verdict, at fleetscore.Micros) {
		counts[v]++
		if v == window.Late || v == window.Early || v == window.Repeat {
			r.aside.count(v, at, m.Readings.Keys[m.Readings.KeyIndex[i]])
		}
		if v == window.Late || v == window.Early {
			r.track(m).keepLate(r.a.log, m, i, v)
		}
	})
	if err != nil {
		return err
	}
	if slices.Equal(r.a.plan.KeyNames, r.a.cfg.Hub.Key) { // the dataset's keys are sensors
		r.clocks.note(m)
	}
	r.cost.taken += int64(m.Readings.Len())
	r.tellCost()
	r.a.metrics.count(counts)
	r.aside.good += counts[window.Counted] + counts[window.Adjusted] + counts[window.Filtered] + counts[window.Revised]
	r.tell()
	t := r.track(m)
	r.a.update(t.partition, func(s *PartitionStatus) {
		s.Counted += counts[window.Counted] + counts[window.Adjusted]
		s.Adjusted += counts[window.Adjusted]
		s.Repeats += counts[window.Repeat]
		s.Late += counts[window.Late]
		s.Early += counts[window.Early]
		s.Filtered += counts[window.Filtered]
		s.Revised += counts[window.Revised]
	})
	if t.late.Len() > maxLateBytes {
		return r.writeLate(t)
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

func (t *track) keepLate(log *slog.Logger, m hub.Message, i int, v window.Verdict) {
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
	if t.late.Len() == 0 {
		t.lateFirst = m.Seq
	}
	t.lateLast = m.Seq
	if err := json.NewEncoder(&t.late).Encode(l); err != nil { // the hub's codec never returns infinite values
		log.Error("late reading could not be kept", "partition", t.partition, "seq", m.Seq, "error", err)
	}
}

// writeLate writes a partition's late readings kept so far into a file of their own. The name
// depends on the log alone, so a pass that is repeated writes the same file.
func (r *reading) writeLate(t *track) error {
	if t.late.Len() == 0 {
		return nil
	}
	name := catalog.LateReadings(r.a.plan.Into, t.partition, uint64(t.at.count(t.lateFirst)), uint64(t.at.count(t.lateLast)))
	err := r.a.persist(r.ctx, "writing late readings", func() error {
		return store.WriteAll(r.ctx, r.a.catalog.Store(), name, t.late.Bytes(), store.PutOptions{})
	})
	if err != nil {
		return err
	}
	r.lateFiles = append(r.lateFiles, strings.TrimPrefix(string(name), catalog.DatasetFolder(r.a.plan.Into)+"/"))
	t.late.Reset()
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
// together with the positions in the log. by is the track of the message that was taken last.
func (r *reading) commit(by *track, done fleetscore.Micros) error {
	for _, t := range r.tracks {
		if err := r.writeLate(t); err != nil {
			return err
		}
		if t.epoch != 0 {
			t.at.hub, t.at.epoch = r.a.hub.ID(), t.epoch
		}
	}
	a, positions := r.a, r.positions()
	revised, gone, err := r.revise(positions)
	if err != nil {
		return err
	}
	parts := r.windows.Parts(done)
	checkpoints := r.windows.Checkpoint(positions, done)
	state := r.windows.Save(positions)
	commit := r.entry(by, checkpoints)
	if revised != nil && revised.Len() > 0 {
		commit.Info[table.RevisedInfo] = revisions(revised, a.cut)
	}
	add, count, err := r.write(parts, fmt.Sprintf("%s-%s-%d", a.cfg.Name, r.name(), r.count(positions)))
	if err != nil {
		return err
	}
	commit.Add = add
	err = a.persist(r.ctx, "committing rows", func() (err error) {
		if state != nil { // before the commit that makes it the one to go on from
			if err := store.WriteAll(r.ctx, a.catalog.Store(), catalog.QueryState(a.plan.Into, r.name(), r.count(positions)), state, store.PutOptions{}); err != nil {
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
		a.log.Info("rows were committed before", "partition", r.name(), "position", by.position)
		return errAgain
	}
	if err != nil {
		return err
	}
	r.done, r.committed, r.lateFiles, r.aside.cuts = done, true, nil, nil
	r.clocks.off, r.clocks.some = nil, false
	if w, ok := r.windows.(*windows); ok {
		w.Untouch()
	}
	if err := r.remember(by.position); err != nil {
		return err
	}
	a.metrics.rows.Add(float64(count))
	for i, t := range r.tracks {
		t.last = checkpoints[i]
		a.setHold(t.partition, a.needs(t.last))
		a.committed(t.partition, t.at.count(t.last.Position))
		a.update(t.partition, func(s *PartitionStatus) {
			if s.CompleteUntil = done; t == by {
				s.Rows += count
			}
		})
	}
	open, over := r.windows.HeldBytes()
	r.tellHeld(open + over)
	if state != nil || r.outlived {
		r.outlived = a.forget(r.ctx)
	}
	return nil
}

// entry is a commit without its rows.
func (r *reading) entry(by *track, checkpoints []window.Checkpoint) table.Commit {
	a := r.a
	commit := table.Commit{Operation: "STREAMING UPDATE", Guard: a.appID(by.partition, "position"), Check: func(snap *table.Snapshot) error { return owns(snap, a.cfg.Name, a.plan) },
		Txns: map[string]int64{}, Info: map[string]any{}}
	for i, t := range r.tracks {
		maps.Copy(commit.Txns, a.entries(t.partition, checkpoints[i], t.at))
	}
	if len(r.lateFiles) > 0 {
		commit.Info["fleetscore.late"] = r.lateFiles
	}
	if list := r.aside.list(); len(list) > 0 {
		commit.Info[table.SetAsideInfo] = list
	}
	if list := r.clocks.list(); list.Some || len(list.Off) > 0 {
		commit.Info[table.ClocksInfo] = list
	}
	return commit
}
