package window

import (
	"container/heap"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// lines are the watermarks of keys, of a gate whose keys have watermarks of their own. A
// key's watermark is the largest time of its readings, never later than that reading's arrival,
// minus the disorder; it is never less than the gate's watermark, below which nothing is
// let in.
//
// The gate's watermark is the least one of the live keys. A key is live from a reading on that
// wasn't older than Config.Apart at its arrival, until no reading of it came for Config.Apart,
// in which all live sources worked. Besides, each message of a source says that nothing older than Apart is
// expected of it, and each tick that nothing older than IdleAfter is: the least of that over
// the live sources is a lower bound. So a key holds the watermark back by Apart at most. In the first
// Apart of a log the watermark is the lower bound alone, because it isn't known yet which keys there are.
type lines struct {
	begun fleetscore.Micros // of the partition's clock, at the first message; unset before it
	by    map[fleetscore.Key]*line
	heap  lineHeap
}

// line is the watermark of one key.
type line struct {
	key     fleetscore.Key
	mark    fleetscore.Micros
	arrived fleetscore.Micros // the latest reading
	last    fleetscore.Micros // of the partition's clock, at that reading
	at      fleetscore.Micros // the place in the heap: mark, or an earlier one
}

// KeyMark describes the watermark of one key.
type KeyMark struct {
	Key     fleetscore.Key
	Mark    fleetscore.Micros
	Arrived fleetscore.Micros // when its latest reading arrived
	Last    fleetscore.Micros // of the partition's clock, at that reading
}

// KeyMark describes the line.
func (x *line) KeyMark() KeyMark { return KeyMark{x.key, x.mark, x.arrived, x.last} }

// of finds or begins the line of a key.
func (l *lines) of(k fleetscore.Key) *line {
	x := l.by[k]
	if x == nil {
		k = fleetscore.Key(strings.Clone(string(k)))
		x = &line{key: k, mark: unset, at: unset}
		l.by[k] = x
		heap.Push(&l.heap, x)
	}
	return x
}

func (x *line) raise(mark, arrived, last fleetscore.Micros) {
	x.mark, x.arrived, x.last = max(x.mark, mark), max(x.arrived, arrived), max(x.last, last)
}

// worked is up to when, by the partition's clock, all live sources worked; false if there is none.
func (g *Gate) worked() (at fleetscore.Micros, some bool) {
	for _, s := range g.states[0].sources {
		if s.Mark != unset && g.states[0].clock-s.Last <= micros(g.cfg.GoneAfter) && (!some || s.Last < at) {
			at, some = s.Last, true
		}
	}
	return at, some
}

// young reports whether it isn't known yet which keys there are.
func (g *Gate) young() bool {
	at, some := g.worked()
	return !some || at-g.lines.begun < micros(g.cfg.Apart)
}

// settle moves the watermark to the least one of the live keys, and forgets those that aren't
// live any more. Whether a key is forgotten is judged when no other key is further behind;
// until then its readings are judged by its own watermark, and afterwards by one that isn't less.
func (g *Gate) settle() {
	if g.lines == nil {
		return
	}
	worked, some := g.worked()
	l := g.lines
	if l.begun == unset {
		l.begun = g.states[0].clock
	}
	for len(l.heap) > 0 {
		x := l.heap[0]
		switch {
		case x.at < x.mark: // first, so that no key is forgotten before those that are further behind
			x.at = x.mark
			heap.Fix(&l.heap, 0)
			continue
		case some && worked-x.last > micros(g.cfg.Apart):
			heap.Pop(&l.heap)
			delete(l.by, x.key)
			continue
		}
		if !g.young() {
			g.states[0].watermark = max(g.states[0].watermark, x.mark)
		}
		return
	}
}

// WatermarkOf is the time before which no more readings of a key are let in.
func (g *Gate) WatermarkOf(k fleetscore.Key) fleetscore.Micros {
	if g.lines != nil {
		if x := g.lines.by[k]; x != nil {
			return max(g.states[0].watermark, x.mark)
		}
	}
	return g.least(-1)
}

// Keys are the watermarks of the live keys, in the order of the keys, and when the log began
// by the partition's clock.
func (g *Gate) Keys() (out []KeyMark, begun fleetscore.Micros) {
	if g.lines == nil {
		return nil, unset
	}
	for _, x := range g.lines.by {
		out = append(out, x.KeyMark())
	}
	slices.SortFunc(out, func(a, b KeyMark) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return out, g.lines.begun
}

// ResumeKeys sets a gate that was resumed to what Keys returned.
func (g *Gate) ResumeKeys(list []KeyMark, begun fleetscore.Micros) {
	if g.lines == nil {
		return
	}
	g.lines.begun = begun
	for _, k := range list {
		x := &line{key: k.Key, mark: k.Mark, arrived: k.Arrived, last: k.Last, at: k.Mark}
		g.lines.by[k.Key] = x
		heap.Push(&g.lines.heap, x)
	}
}

// lineHeap is a heap by the places.
type lineHeap []*line

func (h lineHeap) Len() int           { return len(h) }
func (h lineHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h lineHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lineHeap) Push(x any)        { *h = append(*h, x.(*line)) }
func (h *lineHeap) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return last
}
