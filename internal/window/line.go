package window

import (
	"container/heap"
	"math"
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
// in which all live sources of all partitions worked. Besides, each message of a source says that nothing older than Apart is
// expected of it, and each tick that nothing older than IdleAfter is: the least of that over
// the live sources is a lower bound. So a key holds the watermark back by Apart at most. In the first
// Apart of a log the watermark is the lower bound alone, because it isn't known yet which keys there are.
//
// The clock of the lines is that of the partition. Of several partitions, whose readings may be of the same key, it
// goes on by the time for which all of them have worked. A partition that has worked for longer, because another one failed, is ahead by maxStep at most, so
// that its own failure is none of the others' silence later.
type lines struct {
	Lines
	by   map[fleetscore.Key]*line
	heap lineHeap
}

// Lines describe the watermarks of the live keys, for checkpoints.
type Lines struct {
	Keys  []KeyMark           // in the order of the keys
	Begun fleetscore.Micros   // of the clock, at the first message; unset before it
	Clock fleetscore.Micros   // of several partitions
	Used  []fleetscore.Micros // by partition, if there are several: up to where its own clock is part of Clock; unset before a source lives
}

// line is the watermark of one key.
type line struct {
	key     fleetscore.Key
	mark    fleetscore.Micros
	arrived fleetscore.Micros // the latest reading
	last    fleetscore.Micros // of the clock, at that reading
	at      fleetscore.Micros // the place in the heap: mark, or an earlier one
}

// KeyMark describes the watermark of one key.
type KeyMark struct {
	Key     fleetscore.Key
	Mark    fleetscore.Micros
	Arrived fleetscore.Micros // when its latest reading arrived
	Last    fleetscore.Micros // of the clock, at that reading
}

func newLines(partitions int) *lines {
	l := &lines{Lines: Lines{Begun: unset, Used: make([]fleetscore.Micros, partitions)}, by: map[fleetscore.Key]*line{}}
	for i := range l.Used {
		l.Used[i] = unset
	}
	return l
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

// worked is up to when, by a partition's clock, all of its live sources worked; false if there is none.
func (g *Gate) worked(partition int) (at fleetscore.Micros, some bool) {
	state := &g.states[partition]
	for _, s := range state.sources {
		if s.Mark != unset && state.clock-s.Last <= micros(g.cfg.GoneAfter) && (!some || s.Last < at) {
			at, some = s.Last, true
		}
	}
	return at, some
}

// clock moves the clock of the lines on; false if sources live in none, or not in all partitions.
func (g *Gate) clock() (at fleetscore.Micros, some bool) {
	if len(g.states) == 1 {
		return g.worked(0)
	}
	l := g.lines
	for i := range g.states {
		if _, some := g.worked(i); !some {
			return l.Clock, false
		}
	}
	on := fleetscore.Micros(math.MaxInt64)
	for i := range g.states {
		worked, _ := g.worked(i)
		if l.Used[i] == unset {
			l.Used[i] = worked
		}
		on = min(on, worked-l.Used[i])
	}
	on = max(on, 0)
	l.Clock += on
	for i := range g.states {
		worked, _ := g.worked(i)
		l.Used[i] = max(l.Used[i]+on, worked-g.cfg.maxStep())
	}
	return l.Clock, true
}

// heard is the time by the clock of the lines, at a message of a source of a partition, when the source's last message came by the
// partition's clock.
func (g *Gate) heard(partition int, last fleetscore.Micros) fleetscore.Micros {
	if used := g.lines.Used[partition]; len(g.states) > 1 && used != unset {
		return g.lines.Clock + last - used
	} else if len(g.states) > 1 {
		return g.lines.Clock
	}
	return last
}

// young reports whether it isn't known yet which keys there are.
func (g *Gate) young(clock fleetscore.Micros, some bool) bool {
	return !some || clock-g.lines.Begun < micros(g.cfg.Apart)
}

// settle moves the watermark to the least one of the live keys, and forgets those that aren't
// live any more. Whether a key is forgotten is judged when no other key is further behind;
// until then its readings are judged by its own watermark, and afterwards by one that isn't less.
func (g *Gate) settle() {
	if g.lines == nil {
		return
	}
	clock, some := g.clock()
	l := g.lines
	if l.Begun == unset && len(g.states) == 1 {
		l.Begun = g.states[0].clock
	} else if l.Begun == unset && some {
		l.Begun = clock
	}
	for len(l.heap) > 0 {
		x := l.heap[0]
		switch {
		case x.at < x.mark: // first, so that no key is forgotten before those that are further behind
			x.at = x.mark
			heap.Fix(&l.heap, 0)
			continue
		case some && clock-x.last > micros(g.cfg.Apart):
			heap.Pop(&l.heap)
			delete(l.by, x.key)
			continue
		}
		if !g.young(clock, some) {
			for i := range g.states { // nothing older is let in, whatever its partition
				g.states[i].watermark = max(g.states[i].watermark, x.mark)
			}
		}
		return
	}
}

// WatermarkOf is the time before which no more readings of a key are let in.
func (g *Gate) WatermarkOf(k fleetscore.Key) fleetscore.Micros {
	if g.lines != nil {
		if x := g.lines.by[k]; x != nil {
			return max(g.least(-1), x.mark)
		}
	}
	return g.least(-1)
}

// Lines are the watermarks of the live keys.
func (g *Gate) Lines() Lines {
	if g.lines == nil {
		return Lines{Begun: unset}
	}
	out := g.lines.Lines
	out.Keys, out.Used = nil, slices.Clone(out.Used)
	for _, x := range g.lines.by {
		out.Keys = append(out.Keys, x.KeyMark())
	}
	slices.SortFunc(out.Keys, func(a, b KeyMark) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return out
}

// ResumeLines sets a gate that was resumed to what Lines returned.
func (g *Gate) ResumeLines(list Lines) {
	if g.lines == nil {
		return
	}
	for _, k := range list.Keys {
		x := &line{key: k.Key, mark: k.Mark, arrived: k.Arrived, last: k.Last, at: k.Mark}
		g.lines.by[k.Key] = x
		heap.Push(&g.lines.heap, x)
	}
	g.lines.Begun, g.lines.Clock = list.Begun, list.Clock
	copy(g.lines.Used, list.Used)
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
