package aggregator

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/query/value"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/window"
)

// stateMagic begins a state, with the version of its format; a checksum follows.
var stateMagic = []byte("FSQ2")

// save writes the state after message position, for load. docs/formats/query-state.md
// describes it.
func (e *events) save(position uint64) []byte {
	var f value.Fields
	f.Int(e.form)
	f.Int(int64(position))
	f.Int(int64(e.done))
	f.Int(e.order)
	saveMark(&f, e.gate.Mark(nil))
	var places value.Fields
	for _, p := range e.passed {
		places.Int(int64(p.seq))
		places.Int(int64(p.last))
		saveMark(&places, p.before)
	}
	f.Add(places.Value())
	sorted := slices.Clone(e.wait)
	slices.SortFunc(sorted, func(a, b pending) int { return cmp.Compare(a.order, b.order) })
	var wait value.Fields
	for _, p := range sorted {
		savePast(&wait, p.Past)
		wait.Int(p.order)
		wait.Add(value.OfRecord(p.row))
	}
	f.Add(wait.Value())
	var gone value.Fields
	for _, p := range e.gate.Gone() {
		savePast(&gone, p)
	}
	f.Add(gone.Value())
	var rows value.Fields
	for _, r := range e.rows {
		rows.Text(string(r.key))
		rows.Int(int64(r.stamp))
		for _, x := range r.values {
			rows.Bits(x)
		}
	}
	f.Add(rows.Value())
	e.runner.Save(&f)
	out := append(slices.Clone(stateMagic), 0, 0, 0, 0)
	out = value.Append(out, f.Value())
	binary.LittleEndian.PutUint32(out[len(stateMagic):], crc32.ChecksumIEEE(out[len(stateMagic)+4:]))
	return out
}

func savePast(f *value.Fields, p window.Past) {
	f.Text(string(p.Key))
	f.Int(int64(p.Time))
	f.Int(int64(p.Hash))
	f.Int(int64(p.Stamp))
}

func loadPast(c *value.Cursor) window.Past {
	return window.Past{Print: window.Print{Key: fleetscore.Key(c.Text()), Time: fleetscore.Micros(c.Int()), Hash: uint64(c.Int())}, Stamp: fleetscore.Micros(c.Int())}
}

func saveMark(f *value.Fields, m window.Mark) {
	f.Int(int64(m.Watermark))
	f.Int(int64(m.Clock))
	var sources value.Fields
	for _, s := range m.Sources {
		sources.Text(string(s.Source))
		sources.Int(int64(s.Mark))
		sources.Int(int64(s.Arrived))
		sources.Int(int64(s.Last))
	}
	f.Add(sources.Value())
}

func loadMark(c *value.Cursor) window.Mark {
	m := window.Mark{Watermark: fleetscore.Micros(c.Int()), Clock: fleetscore.Micros(c.Int())}
	for in := c.Inner(); in.More(); {
		m.Sources = append(m.Sources, window.SourceMark{Source: fleetscore.Source(in.Text()), Mark: fleetscore.Micros(in.Int()),
			Arrived: fleetscore.Micros(in.Int()), Last: fleetscore.Micros(in.Int())})
	}
	return m
}

// load takes a state into new events; false if it isn't one of this query. What was done
// is told by the checkpoint.
func (e *events) load(data []byte, c window.Checkpoint) bool {
	head := len(stateMagic) + 4
	if len(data) < head || !bytes.Equal(data[:len(stateMagic)], stateMagic) || crc32.ChecksumIEEE(data[head:]) != binary.LittleEndian.Uint32(data[len(stateMagic):]) {
		return false
	}
	v, rest, err := e.reader.Decode(data[head:])
	if err != nil || len(rest) > 0 {
		return false
	}
	in := value.NewCursor(v)
	if in.Int() != e.form {
		return false
	}
	position := uint64(in.Int())
	e.done, e.order = fleetscore.Micros(in.Int()), in.Int()
	mark := loadMark(in)
	for places := in.Inner(); places.More(); {
		e.passed = append(e.passed, passed{uint64(places.Int()), fleetscore.Micros(places.Int()), loadMark(places)})
	}
	if position != c.Position { // another log begins, whose messages have other numbers
		e.passed = nil
	}
	var seen []window.Print
	for wait := in.Inner(); wait.More(); {
		p := pending{Past: loadPast(wait), order: wait.Int(), row: wait.Value().Record()}
		if p.row == nil {
			return false
		}
		e.wait = append(e.wait, p)
		seen = append(seen, p.Print)
	}
	var gone []window.Past
	for in := in.Inner(); in.More(); {
		gone = append(gone, loadPast(in))
	}
	slices.SortFunc(e.wait, func(a, b pending) int {
		return cmp.Or(cmp.Compare(a.Stamp, b.Stamp), cmp.Compare(a.order, b.order))
	}) // a sorted list is a heap
	e.index = map[fleetscore.Key]int{}
	for rows := in.Inner(); rows.More(); {
		r := made{fleetscore.Key(rows.Text()), fleetscore.Micros(rows.Int()), make([]float64, len(e.plan.Values()))}
		for i := range r.values {
			r.values[i] = rows.Bits()
		}
		if n := len(e.rows); n > 0 && e.rows[n-1].stamp != r.stamp {
			e.index = map[fleetscore.Key]int{}
		}
		e.index[r.key] = len(e.rows)
		e.rows = append(e.rows, r)
	}
	e.runner.Load(in)
	e.gate.Resume(mark, seen, gone)
	e.reached = mark.Watermark
	e.measured = int64(len(data))
	return in.OK()
}

// restore makes events that go on at a checkpoint, and says from which message on: behind
// it if its state is there and is that of the query, else from where the log has to be
// read again.
func (a *Aggregator) restore(ctx context.Context, partition int, c window.Checkpoint, at place) (*events, uint64, error) {
	name := catalog.QueryState(a.plan.Into, partition, at.count(c.Position))
	data, err := store.ReadAll(ctx, a.catalog.Store(), name)
	if err != nil && !fleetscore.NotFound.Is(err) {
		return nil, 0, err
	}
	if err == nil {
		e := newEvents(a.plan, a.window)
		if e.join(ctx, a.references); e.load(data, c) {
			return e, c.Position + 1, nil
		}
	}
	a.log.Info("open windows are computed again from the hub's readings, because the query was changed or its state is gone", "partition", partition, "from", c.ReplayFrom)
	e := newEvents(a.plan, a.window)
	e.join(ctx, a.references)
	e.replay(c)
	return e, c.ReplayFrom, nil
}

// forget deletes the states of a partition before a position, or also of the position if the
// query keeps none. Later ones may be those of a server that has taken the lead. An error
// only leaves them for the next time.
func (a *Aggregator) forget(ctx context.Context, partition int, position int64) {
	if a.plan.General == nil {
		position++
	}
	prefix := catalog.QueryStates(a.plan.Into, partition)
	for info, err := range a.catalog.Store().List(ctx, prefix, store.ListOptions{}) {
		if err == nil {
			if n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(string(info.Name), prefix), ".bin"), 10, 64); n < position {
				err = a.catalog.Store().Delete(ctx, info.Name)
			}
		}
		if err != nil {
			a.log.Warn("an old state of the query could not be deleted", "partition", partition, "error", err)
			return
		}
	}
}
