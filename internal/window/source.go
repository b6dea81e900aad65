package window

import (
	"math"
	"time"

	"github.com/fleetscore/fleetscore"
)

// SourceMark is the state of one source of a partition.
type SourceMark struct {
	Source fleetscore.Source
	Mark   fleetscore.Micros // the source's own watermark: no more readings up to this time are expected from it
	Last   fleetscore.Micros // the arrival of the source's last message
}

// state is a partition's state without its windows. The partition's watermark is the
// least mark of the live sources, and never goes back. A source is live from its first
// mark on, as long as its last message arrived at most GoneAfter before the partition's
// latest message.
type state struct {
	watermark fleetscore.Micros
	arrived   fleetscore.Micros // the latest arrival
	sources   []SourceMark      // there are few sources, so a scan is fast enough; sources are never removed
}

// copy makes s equal to the other state without sharing memory.
func (s *state) copy(other *state) {
	s.watermark, s.arrived = other.watermark, other.arrived
	s.sources = append(s.sources[:0], other.sources...)
}

// enter records the arrival of a message and returns the index of its source. Sources
// that aren't live at this time no longer hold the watermark back.
func (s *state) enter(m Stamp, goneAfter time.Duration) int {
	s.arrived = max(s.arrived, m.Arrived)
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
	s.sources[at].Last = s.arrived
	mark, others := s.sources[at].Mark, s.others(at, goneAfter)
	if mark == unset { // a source without a mark doesn't hold the watermark back
		mark = others
	}
	if min(mark, others) != math.MaxInt64 {
		s.move(mark, others)
	}
	return at
}

// others returns the least mark of all live sources except one.
func (s *state) others(but int, goneAfter time.Duration) fleetscore.Micros {
	least := fleetscore.Micros(math.MaxInt64)
	for i := range s.sources {
		o := &s.sources[i]
		if i != but && o.Mark != unset && s.arrived-o.Last <= micros(goneAfter) {
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
