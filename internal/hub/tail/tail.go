// Package tail reads readings of a hub for people: the last ones, or those from a time or an offset on,
// of one sensor or of all, once or as they come. It reads the log as queries do, and changes nothing.
package tail

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// Reading is one reading of the log.
type Reading struct {
	Partition int               `json:"partition"`
	Offset    uint64            `json:"offset"` // of its message in the partition
	Arrived   time.Time         `json:"arrived"`
	Source    fleetscore.Source `json:"source"`
	Time      time.Time         `json:"time"` // of the event
	Key       []string          `json:"key"`
	ID        string            `json:"id,omitempty"`
	Values    map[string]any    `json:"values"`
}

// Query says which readings are read.
type Query struct {
	Key       fleetscore.Key // of one sensor; empty means all
	Partition int            // the only partition to read; negative means all
	From      time.Time      // arrivals from this time on; zero means that another field says where to begin
	Offset    uint64         // the first message of the partition; 0 means that another field says where to begin
	Follow    bool           // goes on with what comes
	Limit     int            // the most readings; 0 means no limit. Without From, Offset and Follow these are the last ones
}

// lookBack is how many messages are searched for the last readings.
const lookBack = 1000

var errEnough = errors.New("enough was read")

// Read calls fn with readings, one after the other. Those of a partition come in the order of the log; without From, Offset and
// Follow, all come in the order of their arrival. It returns fn's error.
func Read(ctx context.Context, h hub.Hub, q Query, fn func(Reading) error) error {
	r := &reader{hub: h, query: q, fn: fn}
	err := read(ctx, h, q, r.message)
	if err == nil {
		err = r.flush()
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// read calls fn with the messages that a query chooses, those of several partitions at once.
func read(ctx context.Context, h hub.Hub, q Query, fn func(hub.Message) error) error {
	const op = "read readings"
	all, err := h.Stats(ctx)
	if err != nil {
		return err
	}
	if q.Key != "" {
		at := slices.IndexFunc(fleetscore.SplitShards(h.Partitions()), func(r fleetscore.ShardRange) bool { s := q.Key.Shard(); return r.First <= s && s <= r.Last })
		if q.Partition >= 0 && q.Partition != at {
			return fleetscore.Errorf(fleetscore.Invalid, op, "", "the readings of this key are in partition %d", at)
		}
		q.Partition = at
	}
	if q.Partition >= len(all) {
		return fleetscore.Errorf(fleetscore.NotFound, op, "", "there is no partition %d; the hub has %d", q.Partition, len(all))
	}
	if q.Offset > 0 && q.Partition < 0 {
		if len(all) > 1 {
			return fleetscore.Errorf(fleetscore.Invalid, op, "", "each partition has offsets of its own").WithHint("name the partition, or a key")
		}
		q.Partition = 0
	}
	if q.Partition >= 0 {
		all = all[q.Partition : q.Partition+1]
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range all {
		group.Go(func() error { return q.partition(ctx, h, s, fn) })
	}
	return group.Wait()
}

type reader struct {
	hub   hub.Hub
	query Query

	mu    sync.Mutex // guards what follows
	fn    func(Reading) error
	count int
	last  []Reading // that may be the last ones of all partitions
}

// lasting reports whether only the last readings are wanted.
func (q Query) lasting() bool { return q.From.IsZero() && q.Offset == 0 && !q.Follow }

func (q Query) partition(ctx context.Context, h hub.Hub, s hub.Stats, fn func(hub.Message) error) error {
	end := s.Last
	for _, d := range s.Damage { // a read would wait for messages behind them
		if d.First <= end && end <= d.Last {
			end = d.First - 1
		}
	}
	from := max(s.First, 1)
	var err error
	switch {
	case q.Offset > 0:
		from = q.Offset
	case !q.From.IsZero():
		if from, err = q.seek(ctx, h, s, end); err != nil {
			return err
		}
	case q.Follow:
		from = s.Last + 1
	case end >= lookBack:
		from = max(from, end-lookBack+1)
	}
	if !q.Follow && (end == 0 || from > end) {
		return nil
	}
	err = h.Read(ctx, s.Partition, from, func(m hub.Message) error {
		if !q.Follow && m.Seq > end {
			return errDone
		}
		if err := fn(m); err != nil {
			return err
		}
		if !q.Follow && m.Seq >= end {
			return errDone
		}
		return nil
	})
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// errDone ends the read of one partition.
var errDone = errors.New("the partition was read")

// seek finds the first message that arrived at the time or later. Arrivals never go back.
func (q Query) seek(ctx context.Context, h hub.Hub, s hub.Stats, end uint64) (uint64, error) {
	low, high := max(s.First, 1), end+1
	for low < high {
		middle := low + (high-low)/2
		var at uint64
		var arrived fleetscore.Micros
		err := h.Read(ctx, s.Partition, middle, func(m hub.Message) error {
			at, arrived = m.Seq, m.Arrived
			return errDone
		})
		if !errors.Is(err, errDone) {
			return 0, err
		}
		if arrived < fleetscore.MicrosOf(q.From) {
			low = at + 1
		} else {
			high = middle
		}
	}
	return low, nil
}

// message hands out the readings of a message.
func (r *reader) message(m hub.Message) error {
	if m.Tick || m.Readings == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range m.Readings.Times {
		key := m.Readings.Keys[m.Readings.KeyIndex[i]]
		if r.query.Key != "" && key != r.query.Key {
			continue
		}
		if err := r.hand(readingOf(m, i, key)); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) hand(x Reading) error {
	if r.query.lasting() && r.query.Limit > 0 {
		if r.last = append(r.last, x); len(r.last) > 2*r.query.Limit*r.hub.Partitions() {
			r.shrink()
		}
		return nil
	}
	if err := r.fn(x); err != nil {
		return err
	}
	if r.count++; r.count == r.query.Limit {
		return errEnough
	}
	return nil
}

// shrink keeps the last readings, in the order of their arrival.
func (r *reader) shrink() {
	slices.SortStableFunc(r.last, func(x, y Reading) int {
		return cmp.Or(x.Arrived.Compare(y.Arrived), cmp.Compare(x.Partition, y.Partition), cmp.Compare(x.Offset, y.Offset))
	})
	r.last = slices.Clone(r.last[max(0, len(r.last)-r.query.Limit):])
}

func (r *reader) flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shrink()
	for _, x := range r.last {
		if err := r.fn(x); err != nil {
			return err
		}
	}
	return nil
}

func readingOf(m hub.Message, i int, key fleetscore.Key) Reading {
	x := Reading{Partition: m.Partition, Offset: m.Seq, Arrived: m.Arrived.Time(), Source: m.Source, Time: m.Readings.Times[i].Time(), Key: key.Values(), Values: map[string]any{}}
	if m.Readings.IDs != nil {
		x.ID = m.Readings.IDs[i]
	}
	for _, c := range m.Readings.Columns {
		switch {
		case c.Strings != nil && (c.Present == nil || c.Present[i]):
			x.Values[c.Name] = c.Strings[i]
		case c.Strings == nil && !math.IsNaN(c.Numbers[i]):
			x.Values[c.Name] = c.Numbers[i]
		}
	}
	return x
}
