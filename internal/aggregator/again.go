package aggregator

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/window"
)

// A query that package stream runs takes late readings (late: revise) by computing the rows of
// their keys again. A late reading may change any later row of its key, for example by where a
// session ends, and what is open too. So a commit computes the touched keys again, from a time
// before their late readings up to now: the log is read again, all their readings are handed on in the
// order of time, and what comes out takes the place of their lanes, of their rows that aren't
// committed, and of their rows in the dataset, of which some may vanish.
//
// The times from which this begins are bases: the state of each key at a time, with all readings
// that came until now. A key that was computed again gets new states in the bases that it
// passed. They are part of the checkpoint, so that a crash changes nothing.

// base is a state from which rows are computed again.
type base struct {
	positions []uint64          // by partition: the message before those that are read again
	reached   fleetscore.Micros // readings before it are part of the states
	marks     []window.Mark     // by partition: after that message
	judged    judged            // how readings were that came after these messages, up to those of the next base
	wait      []pending         // readings up to these messages that aren't part of the states
	states    map[fleetscore.Key]kept
}

// judged is what readings are judged by, besides the watermark.
type judged struct {
	within fleetscore.Micros   // how late they may be
	least  []fleetscore.Micros // by partition: readings up to this time are late, because their rows may have been made from another log
	after  []uint64            // by partition: unless they came up to this message, of which the rows were made
}

// judges is what the readings that come now are judged by.
func (e *events) judges() judged {
	j := judged{e.revise, slices.Repeat([]fleetscore.Micros{e.done}, len(e.doneSeq)), e.doneSeq}
	for i, own := range e.own {
		j.least[i] = min(j.least[i], own)
	}
	return j
}

// leastOf is the time up to which a message's readings are late.
func (j judged) leastOf(partition int, seq uint64) fleetscore.Micros {
	if seq <= j.after[partition] {
		return beginning
	}
	return j.least[partition]
}

// oldestOf is the time up to which a message's readings that come late are set aside. Those of messages of which
// the rows up to this time were made aren't: rows that are made yet may be of windows that began before.
func (j judged) oldestOf(partition int, seq uint64, oldest fleetscore.Micros) fleetscore.Micros {
	if seq <= j.after[partition] {
		return beginning
	}
	return min(oldest, j.least[partition])
}

// basesWithin is how many bases there are, at least, within the time that readings may be late.
const basesWithin = 2

// base is the present state as a base.
func (e *events) base(positions []uint64) base {
	b := base{positions: slices.Clone(positions), reached: e.reached, marks: e.marks(), judged: e.judges(), wait: e.lanes.waiting(), states: map[fleetscore.Key]kept{}}
	for _, k := range e.lanes.save(e.reached) {
		b.states[k.key] = k
	}
	return b
}

// lanes are the states in the order of their keys.
func (b *base) lanes() (out []kept) {
	for _, k := range slices.Sorted(maps.Keys(b.states)) {
		out = append(out, b.states[k])
	}
	return out
}

// due reports whether the last base is old.
func (e *events) due() bool {
	if e.revise == 0 || e.reached == beginning {
		return false
	}
	last := e.bases[len(e.bases)-1].reached
	return last == beginning || e.reached-last >= e.revise/basesWithin
}

// rebase adds a base when the last one is old, and removes those that no reading can touch. No key may wait to be
// computed again, because that may need a base that is removed.
func (e *events) rebase(positions []uint64) {
	if e.due() || e.caughtUp { // readings that come after this are judged by another rule
		e.bases, e.caughtUp = append(e.bases, e.base(positions)), false
	}
	w, _ := e.gate.Watermark()
	for len(e.bases) > 1 && e.bases[1].reached <= w-e.revise {
		e.bases = slices.Delete(e.bases, 0, 1)
	}
}

// computed is what some keys give, computed again.
type computed struct {
	from   int // the base
	keys   []fleetscore.Key
	states []kept                    // at the time that the query has reached
	passed []map[fleetscore.Key]kept // their states at the bases after that
	rows   []made                    // later than the base
}

// again computes keys again, from the readings up to the messages at the positions. If the readings of several keys
// need too much memory, it returns errTooMany.
func (r *reading) again(e *events, keys []fleetscore.Key, positions []uint64) (computed, error) {
	least := e.touched[keys[0]]
	for _, k := range keys {
		least = min(least, e.touched[k])
	}
	out := computed{from: len(e.bases) - 1}
	for out.from > 0 && e.bases[out.from].reached > least {
		out.from--
	}
	f, err := e.fork(e.bases[out.from], keys, r)
	if err != nil {
		return out, err
	}
	last := out.from // the base after which the readings of a message came
	err = r.between(e.bases[out.from].positions, positions, func(m hub.Message) error {
		s := r.stamp(m)
		for last+1 < len(e.bases) && m.Seq > e.bases[last+1].positions[s.Partition] {
			last++
		}
		if err := f.take(m, s, r.a.cfg.Hub.Key, e.bases[last].judged); err != nil {
			return err
		}
		if m.Readings != nil {
			r.cost.reread += int64(m.Readings.Len())
		}
		if held := readingBytes * f.e.since; held > r.a.share/2 && len(keys) > 1 {
			return errTooMany
		} else if held > r.a.share {
			return fleetscore.Errorf(fleetscore.Invalid, "run query", r.a.subject, "because of a late reading, rows of %s are computed again, for which the readings use about %d MB, more than the allowed %d MB; nothing is lost, the hub keeps the readings", e.whose(keys[0]), held>>20, r.a.share>>20).
				WithHint("set queries.%s.memory_mb to more, or late_within to less", r.a.cfg.Name)
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	for _, b := range e.bases[out.from+1:] {
		if err := f.e.advanceTo(b.reached); err != nil {
			return out, err
		}
		states := map[fleetscore.Key]kept{}
		for _, k := range f.e.lanes.save(b.reached) {
			states[k.key] = k
		}
		out.passed = append(out.passed, states)
	}
	if err := f.e.advanceTo(e.reached); err != nil {
		return out, err
	}
	out.keys, out.states, out.rows = keys, f.e.lanes.save(e.reached), f.e.rows
	return out, nil
}

// whose says whose rows a lane makes.
func (e *events) whose(lane fleetscore.Key) string {
	if e.lanes.apart {
		return "sensor " + lane.String()
	}
	return "all groups"
}

// errTooMany says that the readings of several keys need too much memory at once.
var errTooMany = errors.New("the readings of these keys need too much memory at once")

// fork is a query over some keys that begins at a base.
type fork struct {
	e    *events
	from fleetscore.Micros
	keys map[fleetscore.Key]bool
	seen map[window.Print]bool
	of   []bool
}

func (e *events) fork(b base, keys []fleetscore.Key, r *reading) (*fork, error) {
	f := &fork{e: newEvents(e.plan, r.config()), from: b.reached, keys: map[fleetscore.Key]bool{}, seen: map[window.Print]bool{}}
	f.e.join(r.ctx, r.a.references)
	f.e.oldest = e.oldest
	f.e.reached = b.reached
	for _, k := range keys {
		f.keys[k] = true
		state, ok := b.states[k]
		if ok && !f.e.lanes.restore(state, &f.e.reader) {
			return nil, fleetscore.Errorf(fleetscore.Corrupt, "compute rows again", k.String(), "the state of the query at %s can't be read", b.reached)
		}
	}
	var seen []window.Print
	for _, p := range b.wait {
		if f.keys[e.lanes.keyOf(p.Key)] {
			seen = append(seen, p.Print)
			f.add(p)
		}
	}
	f.e.gate.Resume(b.marks, seen, nil)
	return f, nil
}

// add takes a reading, unless it is a repeat.
func (f *fork) add(p pending) {
	if f.seen[p.Print] {
		return
	}
	f.seen[p.Print] = true
	f.e.order++
	p.order = f.e.order
	f.e.lanes.push(p)
	f.e.since++
}

// take takes a message: its readings wait until all messages were taken.
func (f *fork) take(m hub.Message, s window.Stamp, key []string, by judged) error {
	if m.Tick {
		f.e.gate.Tick(s)
		return nil
	}
	f.of = f.of[:0]
	for _, k := range m.Readings.Keys {
		f.of = append(f.of, f.keys[f.e.lanes.keyOf(k)])
	}
	view, row := f.e.view(m.Readings, key)
	f.e.gate.Within(by.within)
	f.e.gate.Since(by.oldestOf(s.Partition, m.Seq, f.e.oldest))
	f.e.gate.Readings(s, view, by.leastOf(s.Partition, m.Seq), f.of, func(i int, v window.Verdict, p window.Print, stamp fleetscore.Micros) {
		if v != window.Counted && v != window.Revised || stamp < f.from { // what is earlier is part of the state
			return
		}
		if row, ok := row(i); ok {
			f.add(pending{Past: window.Past{Print: p, Stamp: stamp}, row: row, line: p.Key})
		}
	})
	return nil
}

// put puts what was computed again in place, and returns the rows up to the time that was
// committed.
func (e *events) put(c computed) (committed []made) {
	again := map[fleetscore.Key]bool{}
	for _, k := range c.keys {
		again[k] = true
		e.lanes.clear(k)
		for i, states := range c.passed {
			b := e.bases[c.from+1+i]
			if state, ok := states[k]; ok {
				b.states[k] = state
			} else {
				delete(b.states, k)
			}
		}
	}
	for _, k := range c.states {
		e.lanes.restore(k, &e.reader) // it was saved a moment ago
	}
	from := e.bases[c.from].reached // earlier rows weren't computed again
	e.rows = slices.DeleteFunc(e.rows, func(m made) bool { return again[e.lanes.keyOf(m.key)] && m.stamp >= from })
	for _, m := range c.rows {
		if !e.committed(m.key, m.stamp) {
			e.rows = append(e.rows, m)
		} else if m.stamp >= e.touched[e.lanes.keyOf(m.key)] && m.stamp > e.oldest {
			committed = append(committed, m)
		}
	}
	return committed
}

// reviseLanes computes the touched keys again from the messages up to the positions. It returns the rows that
// aren't in the dataset as they are now, and which of them aren't to be there.
func (r *reading) reviseLanes(e *events, positions []uint64) (*fleetscore.Rows, []bool, error) {
	rows := &revisedRows{rows: noRows(r.a.plan), index: map[fleetscore.Key]uint32{}}
	keys := slices.Sorted(maps.Keys(e.touched))
	for n := len(keys); len(keys) > 0; {
		n = min(n, len(keys))
		var c computed
		err := r.a.persist(r.ctx, "reading readings again", func() (err error) {
			c, err = r.again(e, keys[:n], positions)
			return err
		})
		if errors.Is(err, errTooMany) {
			n = (n + 1) / 2
			continue
		} else if err != nil {
			return nil, nil, err
		}
		committed := e.put(c)
		if err := r.a.persist(r.ctx, "reading rows again", func() error { return r.compare(e, keys[:n], committed, rows) }); err != nil {
			return nil, nil, err
		}
		keys = keys[n:]
	}
	clear(e.touched)
	return rows.rows, rows.gone, nil
}

// revisedRows are rows for a commit.
type revisedRows struct {
	rows  *fleetscore.Rows
	gone  []bool
	index map[fleetscore.Key]uint32
}

func (x *revisedRows) add(k fleetscore.Key, stamp fleetscore.Micros, gone bool, value func(c int) float64) {
	at, ok := x.index[k]
	if !ok {
		at = uint32(len(x.rows.Keys))
		x.index[k] = at
		x.rows.Keys = append(x.rows.Keys, k)
	}
	x.rows.KeyIndex, x.rows.Times, x.gone = append(x.rows.KeyIndex, at), append(x.rows.Times, stamp), append(x.gone, gone)
	for c := range x.rows.Values {
		x.rows.Values[c] = append(x.rows.Values[c], value(c))
	}
}

// compare finds the rows that differ from those of the dataset.
func (r *reading) compare(e *events, keys []fleetscore.Key, now []made, to *revisedRows) error {
	if e.done == beginning {
		return nil
	}
	least := e.touched[keys[0]]
	for _, k := range keys {
		least = min(least, e.touched[k])
	}
	if least = max(least, e.oldest+1); least > e.done {
		return nil
	}
	snap, err := r.a.table.Snapshot(r.ctx)
	if err != nil {
		return err
	}
	q := table.ReadQuery{Interval: &fleetscore.Interval{From: (least - 1).Time(), To: e.done.Time()}}
	if e.lanes.apart {
		q.Keys = keys
	}
	old, err := r.a.table.ReadRows(r.ctx, q.Prune(snap.Files), q)
	if err != nil {
		return err
	}
	latest := map[window.Cell][]float64{} // of rows with the same key and time the last one counts
	for _, m := range now {
		latest[window.Cell{Key: m.key, End: m.stamp}] = m.values
	}
	for i, t := range old.Times {
		k := old.Keys[old.KeyIndex[i]]
		if t < max(least, e.touched[e.lanes.keyOf(k)]) {
			continue
		}
		c := window.Cell{Key: k, End: t}
		values, ok := latest[c]
		if !ok {
			to.add(k, t, true, func(c int) float64 { return old.Values[c][i] })
			continue
		}
		equal := true
		for c := range values {
			equal = equal && same(values[c], old.Values[c][i])
		}
		if equal {
			delete(latest, c)
		}
	}
	cells := slices.SortedFunc(maps.Keys(latest), func(a, b window.Cell) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.End, b.End)) })
	for _, c := range cells {
		to.add(c.Key, c.End, false, func(i int) float64 { return latest[c][i] })
	}
	return nil
}
