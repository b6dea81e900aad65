package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// Place is a place in a log that a feed reads: all records before Offset, and the first
// Lines readings of the record at Offset.
type Place struct {
	Offset int64
	Lines  int
}

// String is the place as a hub's messages carry it: "1234", or "1234+2".
func (p Place) String() string {
	if p.Lines == 0 {
		return strconv.FormatInt(p.Offset, 10)
	}
	return fmt.Sprintf("%d+%d", p.Offset, p.Lines)
}

// Compare is negative if p lies before q, and positive if it lies after it.
func (p Place) Compare(q Place) int {
	switch {
	case p.Offset < q.Offset, p.Offset == q.Offset && p.Lines < q.Lines:
		return -1
	case p == q:
		return 0
	}
	return 1
}

// ParsePlace reads what String wrote.
func ParsePlace(text string) (Place, error) {
	offset, lines, more := strings.Cut(text, "+")
	var p Place
	var err error
	if p.Offset, err = strconv.ParseInt(offset, 10, 64); err == nil && more {
		p.Lines, err = strconv.Atoi(lines)
	}
	if err != nil || p.Offset < 0 || p.Lines < 0 || p.String() != text {
		return Place{}, fleetscore.Errorf(fleetscore.Corrupt, "read position", text, "not an offset such as 1234 or 1234+2")
	}
	return p, nil
}

// Feed takes the readings of a source that is a log itself, such as a partition of a Kafka
// topic. Each message of the hub carries the place in that log up to which the message's
// partition has it. So the hub alone says where to go on, and each reading is in it once,
// whenever the process is killed.
//
// A feed has one user at a time, apart from Caught. After an error of Begin or Wait it takes nothing more: the
// user closes it, opens it again and reads on from Start.
type Feed struct {
	g      *Gateway
	source fleetscore.Source
	states []*sourceState // per partition
	stored []Place        // per partition, when the feed was opened
	broken atomic.Bool
	caught atomic.Pointer[caught]
}

// caught says that a log has answered without a pause since a time, and that everything that
// was in it at another time was given to Begin.
type caught struct{ since, at time.Time }

// FeedConfig says which log a feed reads.
type FeedConfig struct {
	Source fleetscore.Source
	First  Place // where a partition begins that holds nothing of the log
	New    bool  // the hub can't hold anything of it, so it needn't be searched
}

const feedOp = "read positions from the hub"

// Feeds opens feeds. It searches the end of the hub for their positions. Run must be running.
// No two open feeds have the same source.
func (g *Gateway) Feeds(ctx context.Context, cfgs []FeedConfig) ([]*Feed, error) {
	wanted := map[fleetscore.Source]bool{}
	feeds := make([]*Feed, len(cfgs))
	for i, c := range cfgs {
		name := c.Source.At(g.cfg.Server)
		if !name.Valid() {
			return nil, fleetscore.Errorf(fleetscore.Invalid, feedOp, g.cfg.Name, "the source's name %q is empty or too long", name)
		}
		if !c.New {
			wanted[name] = true
		}
		feeds[i] = &Feed{g: g, source: name, stored: slices.Repeat([]Place{c.First}, len(g.committers))}
	}
	for _, c := range g.committers { // what an append without an answer has stored is known only after the next one
		if c.failed.Load() {
			return nil, fleetscore.Errorf(fleetscore.Unavailable, feedOp, g.cfg.Name, "the hub can't store readings at present").WithHint("this is tried again by itself")
		}
	}
	for i := range g.committers {
		found, err := g.positions(ctx, i, wanted)
		if err != nil {
			return nil, err
		}
		for _, f := range feeds {
			if p, ok := found[f.source]; ok {
				f.stored[i] = p
			}
		}
	}
	for i, c := range g.committers {
		c.mu.Lock()
		for _, f := range feeds {
			s := &sourceState{name: f.source, feed: f, position: f.stored[i].String(), quiet: g.now()}
			f.states = append(f.states, s)
			c.sources = append(c.sources, s)
		}
		c.mu.Unlock()
	}
	return feeds, nil
}

// errEnough ends a read of the hub.
var errEnough = errors.New("enough was read")

// positions reads a partition from its end until it has found the wanted sources, or all of it.
func (g *Gateway) positions(ctx context.Context, partition int, wanted map[fleetscore.Source]bool) (map[fleetscore.Source]Place, error) {
	stats, err := g.hub.Stats(ctx)
	if err != nil {
		return nil, err
	}
	found := map[fleetscore.Source]Place{}
	first, end := stats[partition].First, stats[partition].Last
	for count := uint64(64); len(found) < len(wanted) && end >= first && end > 0; count *= 2 {
		from := first
		if end-first >= count {
			from = end - count + 1
		}
		latest := map[fleetscore.Source]Place{}
		err := g.hub.Read(ctx, partition, from, func(m hub.Message) error {
			if m.Seq <= end && wanted[m.Source] && m.Position != "" {
				p, err := ParsePlace(m.Position)
				if err != nil {
					return err
				}
				latest[m.Source] = p
			}
			if m.Seq >= end {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return nil, err
		}
		for source, p := range latest {
			if _, ok := found[source]; !ok {
				found[source] = p
			}
		}
		end = from - 1
	}
	return found, nil
}

// Start is the first place that isn't stored everywhere. What lies after it and is stored
// already is left out by Begin.
func (f *Feed) Start() Place { return slices.MinFunc(f.stored, Place.Compare) }

// Record is a record of the log: where it lies, and how many lines of the text it became.
type Record struct {
	Offset int64
	Lines  int
}

// Refused is a record with readings that were rejected.
type Refused struct {
	Record int       // its place among the records
	Why    Rejection // of the first one
}

// Begin parses readings and hands them to the hub, as
// Gateway.Begin does. The records say where the lines come from, in order and without a
// record missing that has lines; next is the offset after them. The error's kind is Exhausted,
// and the feed still sound, while too many readings wait to be aggregated.
//
// refused is called once with the records of which readings were rejected, before the others can be stored;
// nil isn't called.
func (f *Feed) Begin(text *Lines, records []Record, next int64, refused func([]Refused)) (*Pending, error) {
	if err := f.sound(); err != nil {
		return nil, err
	}
	if err := f.g.ready(); err != nil {
		return nil, err
	}
	ends := make([]int, len(records)) // the last line of each record
	lines := 0
	for i, r := range records {
		lines += r.Lines
		ends[i] = lines
	}
	m := Message{Format: NDJSON, Body: text.Text, lines: text, after: make([]int, len(f.stored)), refused: func(out *parsed) {
		var list []Refused
		for i, row := range out.rows {
			at, _ := slices.BinarySearch(ends, row)
			if at < len(records) && !slices.ContainsFunc(list, func(r Refused) bool { return r.Record == at }) {
				list = append(list, Refused{at, out.reasons[i]})
			}
		}
		refused(list)
	}}
	if refused == nil {
		m.refused = nil
	}
	for i, stored := range f.stored {
		for j, r := range records {
			if r.Offset < stored.Offset {
				m.after[i] = ends[j]
			} else if r.Offset == stored.Offset {
				m.after[i] = ends[j] - r.Lines + min(stored.Lines, r.Lines)
			}
		}
	}
	place := func(line int) string {
		j, whole := slices.BinarySearch(ends, line)
		if whole {
			return Place{Offset: records[j].Offset + 1}.String()
		}
		return Place{records[j].Offset, line - (ends[j] - records[j].Lines)}.String()
	}
	out, waits, err := f.g.parse((*parser).lines, m, func(c *committer, list []*batch) (*sourceState, string) {
		end := Place{Offset: next}
		if stored := f.stored[c.partition]; end.Compare(stored) < 0 {
			end = stored // a partition never goes back behind what it has
		}
		for _, b := range list {
			b.position = end.String()
			if b.through > 0 {
				b.position = place(b.through)
			}
		}
		return f.states[c.partition], end.String()
	})
	if err != nil {
		f.fail()
	}
	return &Pending{f.g, WayKafka, out, waits, err}, nil
}

// Caught says that everything that was in the log at a time has been given to Begin, and that
// the log has answered without a pause since another time. Only silence after that counts:
// while the log was away, devices couldn't write to it, and they write late once it is back.
func (f *Feed) Caught(since, at time.Time) { f.caught.Store(&caught{since, at}) }

// silentAt returns a time at which the log is known to have held nothing more, and since when
// it has answered without a pause. The first lies at most half of idle_after back, so that it
// can stand for now.
func (f *Feed) silentAt(now time.Time, idle time.Duration) (since, at time.Time, ok bool) {
	c := f.caught.Load()
	if c == nil || f.broken.Load() {
		return since, at, false
	}
	return c.since, c.at, now.Sub(c.at) < idle/2 && !c.at.After(now)
}

// sound returns an error if an append of the feed failed, so that nobody knows what is stored.
func (f *Feed) sound() error {
	if f == nil || !f.broken.Load() {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Unavailable, takeOp, f.g.cfg.Name, "readings before these could not be stored").WithHint("the source is read again from where the hub ends")
}

func (f *Feed) fail() {
	if f != nil {
		f.broken.Store(true)
	}
}

// Close ends the feed. Everything that was begun must have been waited for.
func (f *Feed) Close() {
	f.fail()
	for i, c := range f.g.committers {
		c.mu.Lock()
		c.sources = slices.DeleteFunc(c.sources, func(s *sourceState) bool { return s == f.states[i] })
		c.mu.Unlock()
	}
}
