package aggregator

import (
	"bytes"
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

// save writes the state after the messages at the positions, for load. docs/formats/query-state.md
// describes it.
func (e *events) save(positions []uint64) []byte {
	var f value.Fields
	f.Int(e.form)
	f.Int(int64(positions[0]))
	f.Int(int64(e.done))
	f.Int(e.order)
	marks := e.marks()
	saveMark(&f, marks[0])
	saveOthers(&f, positions, marks)
	var places value.Fields
	for _, p := range e.passed {
		places.Int(int64(p.seq))
		places.Int(int64(p.last))
		saveMark(&places, p.before)
	}
	f.Add(places.Value())
	f.Add(saveWaiting(e.lanes.waiting()))
	var gone value.Fields
	for _, p := range e.gate.Gone() {
		savePast(&gone, p)
	}
	f.Add(gone.Value())
	var rows value.Fields
	for _, r := range slices.Concat(e.rows, e.inOrder()) {
		rows.Text(string(r.key))
		rows.Int(int64(r.stamp))
		for _, x := range r.values {
			rows.Bits(x)
		}
	}
	listed := rows.Value()
	e.listed = len(value.Append(nil, listed))
	f.Add(listed)
	if e.over || e.revise > 0 {
		e.saveApart(&f)
	} else {
		e.lanes.lane("").runner.Save(&f)
	}
	out := append(slices.Clone(stateMagic), 0, 0, 0, 0)
	out = value.Append(out, f.Value())
	binary.LittleEndian.PutUint32(out[len(stateMagic):], crc32.ChecksumIEEE(out[len(stateMagic)+4:]))
	return out
}

// saveApart adds what there is more if keys go by themselves, or rows are computed again.
func (e *events) saveApart(f *value.Fields) {
	f.Add(saveLanes(e.lanes.save(e.reached)))
	lines := e.gate.Lines()
	var keys value.Fields
	for _, k := range lines.Keys {
		keys.Text(string(k.Key))
		keys.Int(int64(k.Mark))
		keys.Int(int64(k.Arrived))
		keys.Int(int64(k.Last))
	}
	f.Add(keys.Value())
	f.Int(int64(lines.Begun))
	if e.over && len(e.doneSeq) > 1 {
		f.Int(int64(lines.Clock))
		for _, at := range lines.Used {
			f.Int(int64(at))
		}
	}
	f.Int(int64(e.oldest))
	var bases value.Fields
	for _, b := range e.bases {
		bases.Int(int64(b.positions[0]))
		bases.Int(int64(b.reached))
		saveMark(&bases, b.marks[0])
		saveOthers(&bases, b.positions, b.marks)
		bases.Add(saveWaiting(b.wait))
		bases.Add(saveLanes(b.lanes()))
	}
	f.Add(bases.Value())
	var by value.Fields
	for _, b := range e.bases {
		by.Int(int64(b.judged.within))
		for _, least := range b.judged.least {
			by.Int(int64(least))
		}
		for _, seq := range b.judged.after {
			by.Int(int64(seq))
		}
	}
	f.Add(by.Value())
}

func (e *events) loadApart(in *value.Cursor) bool {
	good := true
	for _, k := range loadLanes(in) {
		good = e.lanes.restore(k, &e.reader) && good
	}
	var lines window.Lines
	for list := in.Inner(); list.More(); {
		lines.Keys = append(lines.Keys, window.KeyMark{Key: fleetscore.Key(list.Text()), Mark: fleetscore.Micros(list.Int()), Arrived: fleetscore.Micros(list.Int()), Last: fleetscore.Micros(list.Int())})
	}
	lines.Begun = fleetscore.Micros(in.Int())
	if e.over && len(e.doneSeq) > 1 {
		lines.Clock = fleetscore.Micros(in.Int())
		for range e.doneSeq {
			lines.Used = append(lines.Used, fleetscore.Micros(in.Int()))
		}
	}
	e.gate.ResumeLines(lines)
	e.oldest = fleetscore.Micros(in.Int())
	e.bases = nil
	for list := in.Inner(); list.More(); {
		b := base{positions: []uint64{uint64(list.Int())}, reached: fleetscore.Micros(list.Int()), marks: []window.Mark{loadMark(list)}, states: map[fleetscore.Key]kept{}}
		there := e.loadOthers(list, &b.positions, &b.marks)
		var ok bool
		b.wait, ok = e.loadWaiting(list)
		good = good && ok && there
		for _, k := range loadLanes(list) {
			b.states[k.key] = k
		}
		e.bases = append(e.bases, b)
	}
	if !in.More() { // states of older releases end here
		for i := range e.bases {
			e.bases[i].judged = judged{e.revise, slices.Repeat([]fleetscore.Micros{beginning}, len(e.doneSeq)), make([]uint64, len(e.doneSeq))}
		}
		return good
	}
	by := in.Inner()
	for i := range e.bases {
		j := judged{within: fleetscore.Micros(by.Int())}
		for range e.doneSeq {
			j.least = append(j.least, fleetscore.Micros(by.Int()))
		}
		for range e.doneSeq {
			j.after = append(j.after, uint64(by.Int()))
		}
		e.bases[i].judged = j
	}
	return good && by.OK()
}

func saveLanes(list []kept) value.Value {
	var f value.Fields
	for _, k := range list {
		f.Text(string(k.key))
		f.Int(int64(k.last))
		f.Text(k.state)
	}
	return f.Value()
}

func loadLanes(c *value.Cursor) (out []kept) {
	for in := c.Inner(); in.More(); {
		out = append(out, kept{fleetscore.Key(in.Text()), fleetscore.Micros(in.Int()), in.Text()})
	}
	return out
}

func saveWaiting(list []pending) value.Value {
	var f value.Fields
	for _, p := range list {
		savePast(&f, p.Past)
		f.Int(p.order)
		f.Add(value.OfRecord(p.row))
	}
	return f.Value()
}

// loadWaiting reads readings that wait; false if one has no record.
func (e *events) loadWaiting(c *value.Cursor) (out []pending, ok bool) {
	for in := c.Inner(); in.More(); {
		p := pending{Past: loadPast(in), order: in.Int(), row: in.Value().Record()}
		if p.row == nil {
			return nil, false
		}
		p.line = e.lineOf(p.Key, p.row)
		out = append(out, p)
	}
	return out, true
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

// saveOthers adds the positions and marks of all partitions but the first, if there are more.
func saveOthers(f *value.Fields, positions []uint64, marks []window.Mark) {
	if len(positions) == 1 {
		return
	}
	var others value.Fields
	for i := 1; i < len(positions); i++ {
		others.Int(int64(positions[i]))
		saveMark(&others, marks[i])
	}
	f.Add(others.Value())
}

// loadOthers reads them; false if it isn't as many partitions.
func (e *events) loadOthers(c *value.Cursor, positions *[]uint64, marks *[]window.Mark) bool {
	if len(e.doneSeq) == 1 {
		return true
	}
	for in := c.Inner(); in.More(); {
		*positions, *marks = append(*positions, uint64(in.Int())), append(*marks, loadMark(in))
	}
	return len(*positions) == len(e.doneSeq)
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
// is told by the checkpoints.
func (e *events) load(data []byte, list []window.Checkpoint) bool {
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
	positions := []uint64{uint64(in.Int())}
	e.done, e.order = fleetscore.Micros(in.Int()), in.Int()
	marks := []window.Mark{loadMark(in)}
	if !e.loadOthers(in, &positions, &marks) {
		return false
	}
	for places := in.Inner(); places.More(); {
		e.passed = append(e.passed, passed{uint64(places.Int()), fleetscore.Micros(places.Int()), loadMark(places)})
	}
	var now []uint64
	for _, c := range list {
		now = append(now, c.Position)
	}
	moved := !slices.Equal(positions, now) // another log begins, whose messages have other numbers
	if moved {
		e.passed = nil
	}
	wait, good := e.loadWaiting(in)
	if !good {
		return false
	}
	var seen []window.Print
	for _, p := range wait {
		seen = append(seen, p.Print)
	}
	var gone []window.Past
	for in := in.Inner(); in.More(); {
		gone = append(gone, loadPast(in))
	}
	var old []made
	for rows := in.Inner(); rows.More(); {
		r := made{key: fleetscore.Key(rows.Text()), stamp: fleetscore.Micros(rows.Int()), values: make([]float64, len(e.plan.Values()))}
		for i := range r.values {
			r.values[i] = rows.Bits()
		}
		old = append(old, r)
	}
	e.gate.Resume(marks, seen, gone)
	for _, r := range old {
		e.list(r)
	}
	e.reached, _ = e.gate.Watermark()
	if !e.over && e.revise == 0 {
		x := e.lanes.lane("")
		x.runner.Load(in)
		e.lanes.loaded(x)
	} else if !e.loadApart(in) {
		return false
	}
	e.lanes.load(wait)
	if e.revise > 0 {
		e.fit(now, list[0].Done, moved)
	}
	e.measure(len(data))
	return in.OK()
}

// fit makes the bases of a state that was loaded fit late_within, and the log if it is another one.
func (e *events) fit(positions []uint64, done fleetscore.Micros, moved bool) {
	if moved || len(e.bases) == 0 { // what was is in another log
		e.bases = []base{e.base(positions)}
		e.oldest = max(e.oldest, e.reached, done)
		return
	}
	if e.bases[len(e.bases)-1].judged.within != e.revise { // readings that came before stay judged by the old late_within when they are read again
		e.bases = append(e.bases, e.base(positions))
	}
	if first := e.bases[0].reached; first != beginning && first > e.reached-e.revise { // late_within was shorter
		e.oldest = max(e.oldest, first-1)
	}
}

// restore makes events that go on at the checkpoints of a pass's partitions, and says from which messages on: behind
// them if the state is there and is that of the query, else from where the log has to be
// read again.
func (a *Aggregator) restore(ctx context.Context, r *reading) (*events, []uint64, error) {
	var list []window.Checkpoint
	for _, t := range r.tracks {
		list = append(list, t.last)
	}
	data, err := store.ReadAll(ctx, a.catalog.Store(), catalog.QueryState(a.plan.Into, r.name(), r.count(r.committedAt())))
	if err != nil && !fleetscore.NotFound.Is(err) {
		return nil, nil, err
	}
	from := make([]uint64, len(list))
	if err == nil {
		e := newEvents(a.plan, r.config())
		if e.join(ctx, a.references); e.load(data, list) {
			for i, c := range list {
				from[i] = c.Position + 1
			}
			return e, from, nil
		}
	}
	if err := a.fromOldest(ctx, r, list); err != nil {
		return nil, nil, err
	}
	for i := range list {
		if len(list) > 1 { // where it has to begin isn't known
			list[i].ReplayFrom = 1
		}
		from[i] = list[i].ReplayFrom
	}
	a.log.Info("open windows are computed again from the hub's readings, because the query was changed or its state is gone", "partition", r.name(), "from", from)
	e := newEvents(a.plan, r.config())
	e.join(ctx, a.references)
	for _, t := range r.tracks {
		if slices.Equal(a.cfg.Hub.Key, a.plan.KeyNames) { // a partition's rows are those of its keys
			e.own = append(e.own, t.own)
		}
	}
	e.replay(list)
	return e, from, nil
}

// fromOldest sets the checkpoints of queries whose rows depend on readings of any age to the oldest messages that the hub has: where a
// session is cut depends on where it began, or the one that was cut before it; and the watermark of a key on all its readings.
func (a *Aggregator) fromOldest(ctx context.Context, r *reading, list []window.Checkpoint) error {
	if !a.plan.General.Plan.Sessions() && a.window.Apart == 0 {
		return nil
	}
	stats, err := a.hub.Stats(ctx)
	if err != nil {
		return err
	}
	for i, t := range r.tracks {
		c := &list[i]
		if first := max(1, stats[t.partition].First); first < c.ReplayFrom {
			*c = window.Checkpoint{Position: c.Position, Done: c.Done, ReplayFrom: first, Watermark: beginning}
		}
	}
	return nil
}

// stayBehind notes up to when rows of some keys were committed, if that is less than for others: the query was edited, and had a
// worker for each partition before.
func (e *events) stayBehind(keys []fleetscore.Key, own fleetscore.Micros) {
	for _, k := range keys {
		e.behind[k] = own
	}
}

// committed notes up to which messages the rows of a partition are committed, counted as in the table's entries.
func (a *Aggregator) committed(partition int, position int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[partition] = position
}

// forget deletes the states of the dataset that no query can need: those before the positions of the last commit, also of
// partitions that were read in another way before the query was edited. Later ones may be those of a server that has taken the
// lead. It reports whether any is left; an error only leaves them for the next time.
func (a *Aggregator) forget(ctx context.Context) (left bool) {
	prefix := catalog.QueryStateFolder(a.plan.Into)
	for info, err := range a.catalog.Store().List(ctx, prefix, store.ListOptions{}) {
		if err == nil && a.outlived(strings.TrimPrefix(string(info.Name), prefix)) {
			err = a.catalog.Store().Delete(ctx, info.Name)
		} else if err == nil {
			left = true
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("an old state of the query could not be deleted", "error", err)
		}
		if err != nil {
			return true
		}
	}
	return left
}

// outlived reports whether a state lies before what was committed last.
func (a *Aggregator) outlived(name string) bool {
	pass, rest, _ := strings.Cut(strings.TrimSuffix(name, ".bin"), "-")
	position, err := strconv.ParseInt(rest, 10, 64)
	if err != nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if pass == everyPartition {
		sum := int64(0)
		for _, n := range a.counts {
			sum += n
		}
		return position < sum
	}
	partition, err := strconv.Atoi(strings.TrimPrefix(pass, "p"))
	return err == nil && (partition >= len(a.counts) || position < a.counts[partition])
}
