package window

import (
	"math"
	"time"

	"github.com/fleetscore/fleetscore"
)

// SourceMark is how far one source of a partition is.
type SourceMark struct {
	Source fleetscore.Source
	Mark   fleetscore.Micros // no more readings up to this time are expected from it
	Last   fleetscore.Micros // arrival of its last message
}

// state is what a partition knows besides its windows. The watermark is the least
// mark of the sources that are live, and never goes back. A source is live from
// its first mark on, as long as its last message arrived at most GoneAfter before
// the partition's latest one.
type state struct {
	watermark fleetscore.Micros
	arrived   fleetscore.Micros // the latest arrival
	sources   []SourceMark      // few, so a scan finds them; a source stays for good
}

// copy makes s equal to the other, in its own memory.
func (s *state) copy(other *state) {
	s.watermark, s.arrived = other.watermark, other.arrived
	s.sources = append(s.sources[:0], other.sources...)
}

// enter notes the arrival of a message and returns the index of its source. That
// other sources are gone by then shows at once.
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
	s.move(s.sources[at].Mark, s.others(at, goneAfter))
	return at
}

// others is the least mark of the live sources but one.
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

// raise moves the mark of a source, and the watermark with it as far as the other
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
