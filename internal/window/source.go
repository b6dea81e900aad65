package window

import (
	"math"
	"slices"

	"github.com/fleetscore/fleetscore"
)

// SourceMark is the state of one source of a partition.
type SourceMark struct {
	Source  fleetscore.Source
	Mark    fleetscore.Micros // the source's own watermark: no more readings up to this time are expected from it
	Arrived fleetscore.Micros // the latest arrival of a message of the source
	Last    fleetscore.Micros // of the partition's clock, at the source's last message
}

// state is a partition's state without its windows. The partition's watermark is the
// least mark of the live sources, and never goes back. A source is live from its first
// mark on, as long as the partition's clock has gone on by at most GoneAfter since its
// last message.
//
// The clock goes on by the time between two messages of one source that has a mark, and by no more than
// maxStep at once. So it stands still while no source can write to the log, and sources
// whose servers' clocks differ count the same time: neither an outage of the log, nor a
// server whose clock is wrong, makes the other sources seem silent.
type state struct {
	watermark fleetscore.Micros
	clock     fleetscore.Micros // begins at the first arrival
	sources   []SourceMark      // there are few sources, so a scan is fast enough; sources are never removed
}

// maxStep is the longest silence of a source that works: it writes ticks when it is idle.
func (c *Config) maxStep() fleetscore.Micros { return 3 * micros(c.IdleAfter) }

// copy makes s equal to the other state without sharing memory.
func (s *state) copy(other *state) {
	s.watermark, s.clock = other.watermark, other.clock
	s.sources = append(s.sources[:0], other.sources...)
}

// enter records the arrival of a message and returns the index of its source. Sources
// that aren't live at this time no longer hold the watermark back.
func (s *state) enter(m Stamp, c *Config) int {
	at := -1
	for i := range s.sources {
		if s.sources[i].Source == m.Source {
			at = i
		}
	}
	if at < 0 {
		at = len(s.sources)
		s.sources = append(s.sources, SourceMark{Source: m.Source, Mark: unset})
	}
	src := &s.sources[at]
	switch {
	case src.Mark != unset:
		step := min(max(m.Arrived-src.Arrived, 0), c.maxStep())
		src.Arrived = max(src.Arrived, m.Arrived)
		src.Last = max(src.Last+step, s.clock-c.maxStep()) // a source that was away counts from now on
		s.clock = max(s.clock, src.Last)
	default: // checkpoints don't hold such sources, so they mustn't move the clock
		if !slices.ContainsFunc(s.sources, func(o SourceMark) bool { return o.Mark != unset }) {
			s.clock = m.Arrived
		}
		src.Arrived, src.Last = m.Arrived, s.clock
	}
	mark, others := src.Mark, s.others(at, c)
	if mark == unset { // a source without a mark doesn't hold the watermark back
		mark = others
	}
	if min(mark, others) != math.MaxInt64 {
		s.move(mark, others)
	}
	return at
}

// others returns the least mark of all live sources except one.
func (s *state) others(but int, c *Config) fleetscore.Micros {
	least := fleetscore.Micros(math.MaxInt64)
	for i := range s.sources {
		o := &s.sources[i]
		if i != but && o.Mark != unset && s.clock-o.Last <= micros(c.GoneAfter) {
			least = min(least, o.Mark)
		}
	}
	return least
}

// raise moves the mark of a source forward, and the watermark as far as the other
// sources allow.
func (s *state) raise(source int, mark, others fleetscore.Micros) {
	if src := &s.sources[source]; mark > src.Mark {
		src.Mark = mark
		s.move(mark, others)
	}
}

func (s *state) move(mark, others fleetscore.Micros) {
	s.watermark = max(s.watermark, min(mark, others))
}
