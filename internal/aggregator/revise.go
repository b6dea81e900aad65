package aggregator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/window"
)

// A query of the simple form with late: revise computes committed rows again for which late readings come. The
// rows that are touched are collected until the next commit. Before that commit the log is
// read again from the first message that may hold readings of their windows; the rows that
// come out otherwise than they stand in the dataset take their places, in the commit
// that moves the position behind the late readings. So a crash anywhere neither loses nor
// repeats a revision: what wasn't committed is found again in the log.

// maxTouched is how many rows wait for their revision at most; then they are committed before the cut.
const maxTouched = 1 << 18

// touched is how many rows, or keys of a query that package stream runs, late readings touched since the last commit.
func (r *reading) touched() int {
	switch w := r.windows.(type) {
	case *windows:
		return len(w.Touched())
	case *events:
		return len(w.touched)
	}
	return 0
}

// ahead is how many rows wait for keys that are further behind.
func (r *reading) ahead() int {
	if e, ok := r.windows.(*events); ok {
		return len(e.ahead)
	}
	return 0
}

// revise computes again what was touched, from the messages up to the positions. It returns the
// rows that aren't in the dataset as they are now, and which of them have to vanish; nil if none have.
func (r *reading) revise(positions []uint64) (rows *fleetscore.Rows, gone []bool, err error) {
	if r.touched() == 0 {
		return nil, nil, nil
	}
	before := r.cost.reread
	if e, ok := r.windows.(*events); ok {
		rows, gone, err = r.reviseLanes(e, positions)
	} else {
		rows, err = r.reviseWindows(r.windows.(*windows).Touched(), positions[0])
	}
	n := r.cost.reread - before
	r.cost.revisions++
	r.a.metrics.revised.Inc()
	r.a.metrics.reread.Add(float64(n))
	r.a.update(r.tracks[0].partition, func(s *PartitionStatus) { s.Revisions, s.Reread = s.Revisions+1, s.Reread+n })
	return rows, gone, err
}

// cost is what revisions cost beside the readings, since it was looked at last.
type cost struct {
	since     time.Time
	taken     int64 // readings that came
	reread    int64 // readings that were read again
	revisions int64
}

const (
	costEvery   = 10 * time.Minute // how often it is looked whether revisions cost too much
	leastReread = 100_000          // readings that are read again in that time and cost next to nothing
)

// tellCost warns if revisions read more readings again than come, and takes the warning back if they don't.
func (r *reading) tellCost() {
	c, now := &r.cost, r.a.now()
	if c.since.IsZero() {
		c.since = now
	}
	if now.Sub(c.since) < costEvery {
		return
	}
	text := ""
	if c.reread > max(c.taken, leastReread) {
		text = fmt.Sprintf("late readings cost more than the others: since %s %d readings of %s came, and %d were read again for %d revisions. A longer queries.%s.cut makes fewer revisions, a shorter late_within makes each of them shorter",
			c.since.UTC().Format(time.RFC3339), c.taken, r.where(), c.reread, c.revisions, r.a.cfg.Name)
		r.a.log.Warn(text)
	}
	*c = cost{since: now}
	r.a.mu.Lock()
	defer r.a.mu.Unlock()
	all := ""
	for i := range r.a.status.Partitions {
		p := &r.a.status.Partitions[i]
		if i == r.tracks[0].partition {
			p.Costly = text
		}
		all = cmp.Or(all, p.Costly) // one stands for all
	}
	r.a.health.Warn("revisions of query "+r.a.subject, all)
}

// remember tells the windows how far back the hub's readings go.
func (r *reading) remember(last uint64) error {
	w, ok := r.windows.(*windows)
	if !ok || r.a.window.Revise == 0 {
		return nil
	}
	oldest := fleetscore.Micros(math.MaxInt64) // nothing can be computed again
	err := r.a.persist(r.ctx, "reading the oldest message", func() error {
		return hub.Range(r.ctx, r.a.hub, r.tracks[0].partition, 1, last, func(m hub.Message) error {
			if m.Seq == 1 && r.tracks[0].at.offset == 0 { // all rows were made from this log, which has its beginning
				oldest = beginning
				return hub.ErrEnough
			}
			// Readings from there on can't have been in an earlier message, or they were early.
			oldest = m.Arrived + m.Unsure + fleetscore.Micros(maxEarly.Microseconds())
			return hub.ErrEnough
		})
	})
	w.Since(oldest)
	return err
}

// reviseWindows computes the touched rows again from the messages up to a position, and returns
// those that aren't in the dataset as they are now.
func (r *reading) reviseWindows(cells map[window.Cell]uint64, position uint64) (*fleetscore.Rows, error) {
	a := r.a
	from, to := fleetscore.Micros(math.MaxInt64), fleetscore.Micros(math.MinInt64)
	keys := map[fleetscore.Key]bool{}
	for c := range cells {
		keys[c.Key] = true
		from, to = min(from, c.End-fleetscore.Micros(a.plan.Window.Microseconds())), max(to, c.End)
	}
	again := &windows{Partition: window.New(a.window), plan: a.plan}
	err := a.persist(r.ctx, "reading readings again", func() error {
		again.Partition = window.New(a.window)
		partition := r.tracks[0].partition
		first, err := firstOf(r.ctx, a.hub, partition, from, position)
		if err != nil {
			return err
		}
		return hub.Range(r.ctx, a.hub, partition, first, position, func(m hub.Message) error {
			if m.Readings == nil {
				return nil
			}
			r.cost.reread += int64(m.Readings.Len())
			if keep, some := again.keptOf(m, a.cfg.Hub.Key, keys); some {
				again.Again(window.Stamp{Seq: m.Seq, Arrived: m.Arrived, Unsure: m.Unsure}, m.Readings, keep, cells)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	rows := again.Rest()
	rows.TimeName, rows.KeyNames, rows.ValueNames = a.plan.StampName, a.plan.KeyNames, a.plan.Values()
	return rows, a.persist(r.ctx, "reading rows again", func() error { return r.changed(rows, from, to) })
}

// keptOf says which readings of some keys fulfil the query's condition, and whether the message has any of these keys.
func (w *windows) keptOf(m hub.Message, key []string, keys map[fleetscore.Key]bool) (keep []bool, some bool) {
	of := make([]bool, len(m.Readings.Keys))
	for i, k := range m.Readings.Keys {
		of[i] = keys[k]
		some = some || of[i]
	}
	if !some {
		return nil, false
	}
	if keep = w.kept(m, key); keep == nil {
		keep = slices.Grow(w.keep[:0], m.Readings.Len())[:m.Readings.Len()]
		for i := range keep {
			keep[i] = true
		}
		w.keep = keep
	}
	for i, k := range m.Readings.KeyIndex {
		keep[i] = keep[i] && of[k]
	}
	return keep, true
}

// firstOf is the first message that may hold a reading later than a time which isn't early.
func firstOf(ctx context.Context, h hub.Hub, partition int, from fleetscore.Micros, position uint64) (uint64, error) {
	at := from - fleetscore.Micros(maxEarly.Microseconds())
	for {
		first, err := hub.Seek(ctx, h, partition, 1, position, at)
		if err != nil || first <= 1 {
			return first, err
		}
		// Messages before it may have arrived later than they say.
		unsure := fleetscore.Micros(0)
		err = hub.Range(ctx, h, partition, first-1, position, func(m hub.Message) error {
			if m.Seq < first && m.Arrived+m.Unsure >= at {
				unsure = m.Unsure
			}
			return hub.ErrEnough
		})
		if err != nil || unsure == 0 {
			return first, err
		}
		at -= unsure
	}
}

// changed removes the rows that the dataset has with the same values.
func (r *reading) changed(rows *fleetscore.Rows, from, to fleetscore.Micros) error {
	snap, err := r.a.table.Snapshot(r.ctx)
	if err != nil {
		return err
	}
	q := table.ReadQuery{Interval: &fleetscore.Interval{From: from.Time(), To: to.Time()}, Keys: rows.Keys}
	old, err := r.a.table.ReadRows(r.ctx, q.Prune(snap.Files), q)
	if err != nil {
		return err
	}
	there := make(map[window.Cell]int, old.Len())
	for i, t := range old.Times {
		there[window.Cell{Key: old.Keys[old.KeyIndex[i]], End: t}] = i
	}
	n := 0
	for i, t := range rows.Times {
		at, ok := there[window.Cell{Key: rows.Keys[rows.KeyIndex[i]], End: t}]
		for c := range rows.Values {
			ok = ok && same(rows.Values[c][i], old.Values[c][at])
		}
		if ok {
			continue
		}
		rows.KeyIndex[n], rows.Times[n] = rows.KeyIndex[i], t
		for c := range rows.Values {
			rows.Values[c][n] = rows.Values[c][i]
		}
		n++
	}
	rows.KeyIndex, rows.Times = rows.KeyIndex[:n], rows.Times[:n]
	for c := range rows.Values {
		rows.Values[c] = rows.Values[c][:n]
	}
	return nil
}

func same(x, y float64) bool {
	return math.Float64bits(x) == math.Float64bits(y) || x != x && y != y
}

// revisions counts rows by the cut of their stamps, for the commit.
func revisions(rows *fleetscore.Rows, cut fleetscore.Micros) []table.Revised {
	by := map[fleetscore.Micros]*table.Revised{}
	for _, t := range rows.Times {
		from := floor(t-1, cut)
		if by[from] == nil {
			by[from] = &table.Revised{From: from, To: from + cut}
		}
		by[from].Rows++
	}
	var out []table.Revised
	for _, v := range by {
		out = append(out, *v)
	}
	slices.SortFunc(out, func(x, y table.Revised) int { return cmp.Compare(x.To, y.To) })
	return out
}

// put makes files visible in a commit, and revised rows in the place of the old ones, besides
// those that are gone.
func (r *reading) put(commit table.Commit, revised *fleetscore.Rows, gone []bool) error {
	if revised == nil || revised.Len() == 0 {
		_, err := r.a.table.Commit(r.ctx, commit)
		return err
	}
	_, err := r.a.table.Revise(r.ctx, revised, gone, func(*table.Snapshot) (table.Commit, error) {
		c := commit
		c.Add, c.Info = slices.Clip(commit.Add), maps.Clone(commit.Info)
		return c, nil
	})
	return err
}
