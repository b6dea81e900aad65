package aggregator

import (
	"context"
	"math"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/window"
)

// Replay makes the rows of a query again, from readings that were kept. Readings go by their
// times alone, in whatever order they came; only early ones are left out.
type Replay struct {
	Name         string // of the query
	Plan         *query.Plan
	Key          []string // the hub's key columns
	Time         string   // its time column
	Interval     fleetscore.Interval
	MaxHeldBytes int64      // bound of the memory, by estimate; 0 means DefaultHeldBytes
	References   References // reference data that the query joins with; nil if it has no JOIN
}

// Replayed is what a replay has made.
type Replayed struct {
	Rows     *fleetscore.Rows // with stamps in the interval
	Readings int64            // that were counted
	Repeats  int64
}

// History calls fn with the messages of one partition that may hold readings later than a time, in
// their order.
type History func(ctx context.Context, after fleetscore.Micros, fn func(hub.Message) error) error

// HistoryOf is what a hub still has of a partition, from a message on.
func HistoryOf(h hub.Hub, partition int, from uint64) History {
	return func(ctx context.Context, after fleetscore.Micros, fn func(hub.Message) error) error {
		stats, err := h.Stats(ctx)
		if err != nil {
			return err
		}
		last, first := stats[partition].Last, uint64(1)
		if after > beginning {
			if first, err = firstOf(ctx, h, partition, after, last); err != nil {
				return err
			}
		}
		return hub.Range(ctx, h, partition, max(first, from), last, fn)
	}
}

// ever is longer than readings can be late.
const ever = 250 * 365 * 24 * time.Hour

// Run makes the rows of the readings of some partitions. Where groups have readings of several keys, each key's
// readings come in one history.
func (r Replay) Run(ctx context.Context, partitions []History) (out Replayed, err error) {
	out.Rows = noRows(r.Plan)
	if r.Plan.TimestampBy == "" {
		r.Plan.TimestampBy = r.Time
	}
	if r.Plan.General != nil && r.Plan.General.Merged {
		partitions = []History{chained(partitions)}
	}
	for _, history := range partitions {
		var rows *fleetscore.Rows
		if r.Plan.General != nil {
			rows, err = r.inOrder(ctx, history, &out)
		} else {
			rows, err = r.inWindows(ctx, history, &out)
		}
		if err != nil {
			return out, err
		}
		r.add(out.Rows, rows)
	}
	return out, nil
}

// chained are histories one after the other: the order of readings depends on their times and keys alone.
func chained(list []History) History {
	return func(ctx context.Context, after fleetscore.Micros, fn func(hub.Message) error) error {
		for _, history := range list {
			if err := history(ctx, after, fn); err != nil {
				return err
			}
		}
		return nil
	}
}

// noRows has the columns of a query's dataset.
func noRows(plan *query.Plan) *fleetscore.Rows {
	return &fleetscore.Rows{TimeName: plan.StampName, KeyNames: plan.KeyNames, ValueNames: plan.Values(), Values: make([][]float64, len(plan.Values()))}
}

// config is that of windows to which no reading is late.
func (r Replay) config() window.Config {
	c := window.Config{Window: r.Plan.Window, Hop: r.Plan.Hop, Disorder: ever, IdleAfter: time.Minute, MaxEarly: maxEarly, GoneAfter: goneAfter}
	for _, g := range r.Plan.Aggregates {
		c.Aggregates = append(c.Aggregates, window.Aggregate{Func: g.Func, Column: g.Column})
	}
	return c
}

// span is the times of the readings that can influence rows of the interval: those later than
// after, up to the last one.
func (r Replay) span() (after, last fleetscore.Micros) {
	after, last = fleetscore.MicrosOf(r.Interval.From)-fleetscore.Micros(r.Plan.Window.Microseconds()), fleetscore.MicrosOf(r.Interval.To)
	if r.Plan.General != nil && r.Plan.General.Plan.Sessions() {
		after = beginning // where a session is cut depends on where it began
	}
	return after, last
}

// bound refuses a replay that needs too much memory.
func (r Replay) bound(bytes int64) error {
	limit := r.MaxHeldBytes
	if limit == 0 {
		limit = DefaultHeldBytes
	}
	if bytes <= limit {
		return nil
	}
	const op = "replay query"
	if after, _ := r.span(); after == beginning {
		return fleetscore.Errorf(fleetscore.Invalid, op, r.Name, "the query has sessions, so that all readings up to %s are read, and these need more than the allowed %d MB of memory", r.Interval.To.Format(time.RFC3339), limit>>20).
			WithHint("set queries.%s.memory_mb to more", r.Name)
	}
	return fleetscore.Errorf(fleetscore.Invalid, op, r.Name, "the readings of %s need more than the allowed %d MB of memory", r.Interval, limit>>20).
		WithHint("replay shorter intervals one after the other, or set queries.%s.memory_mb to more", r.Name)
}

func (r Replay) inWindows(ctx context.Context, history History, out *Replayed) (*fleetscore.Rows, error) {
	w := &windows{Partition: window.New(r.config()), plan: r.Plan}
	after, last := r.span()
	var keep []bool
	err := history(ctx, after, func(m hub.Message) error {
		if m.Readings == nil {
			return nil
		}
		kept := w.kept(m, r.Key)
		keep = keep[:0]
		for i, t := range m.Readings.Times {
			keep = append(keep, t > after && t <= last && (kept == nil || kept[i]))
		}
		counted, repeats := w.Again(window.Stamp{Seq: m.Seq, Arrived: m.Arrived, Unsure: m.Unsure}, m.Readings, keep, nil)
		out.Readings, out.Repeats = out.Readings+counted, out.Repeats+repeats
		open, over := w.HeldBytes()
		return r.bound(open + over)
	})
	return w.Rest(), err
}

func (r Replay) inOrder(ctx context.Context, history History, out *Replayed) (*fleetscore.Rows, error) {
	e := newEvents(r.Plan, r.config())
	e.join(ctx, r.References)
	after, last := r.span()
	e.only = func(_ fleetscore.Key, t fleetscore.Micros) bool { return t > after && t <= last }
	err := history(ctx, after, func(m hub.Message) error {
		if m.Readings == nil {
			return nil
		}
		err := e.Take(m, window.Stamp{Seq: m.Seq, Source: m.Source, Arrived: m.Arrived, Unsure: m.Unsure}, r.Key, func(_ int, v window.Verdict, _ fleetscore.Micros) {
			switch v {
			case window.Counted:
				out.Readings++
			case window.Repeat:
				out.Repeats++
			}
		})
		if err != nil {
			return err
		}
		open, over := e.HeldBytes()
		return r.bound(open + over)
	})
	if err != nil {
		return nil, err
	}
	if err := e.advanceTo(last + 1); err != nil {
		return nil, err
	}
	return e.Close(last), nil
}

// add adds the rows of the interval to those of other partitions.
func (r Replay) add(to, rows *fleetscore.Rows) {
	index := make([]uint32, len(rows.Keys))
	for i := range index {
		index[i] = math.MaxUint32
	}
	for i, t := range rows.Times {
		if !r.Interval.ContainsMicros(t) {
			continue
		}
		k := rows.KeyIndex[i]
		if index[k] == math.MaxUint32 {
			index[k] = uint32(len(to.Keys))
			to.Keys = append(to.Keys, rows.Keys[k])
		}
		to.KeyIndex, to.Times = append(to.KeyIndex, index[k]), append(to.Times, t)
		for c := range rows.Values {
			to.Values[c] = append(to.Values[c], rows.Values[c][i])
		}
	}
}
