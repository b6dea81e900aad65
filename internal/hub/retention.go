package hub

import (
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/fleetscore/fleetscore"
)

// trimEvery is the time between two checks for segments that are too old.
func (h *segmentLog) trimEvery() time.Duration {
	return max(100*time.Millisecond, min(h.cfg.Retention/10, time.Minute))
}

// rollAfter is the age at which a segment is followed by a new one, so that messages
// don't outlive their retention by much.
func (h *segmentLog) rollAfter() fleetscore.Micros {
	return fleetscore.Micros((h.cfg.Retention / 10).Microseconds())
}

// trim removes the segments whose messages are all older than the retention and no
// longer needed. The writer calls it.
func (p *partition) trim() {
	cutoff := fleetscore.MicrosOf(p.log.now()) - fleetscore.Micros(p.log.cfg.Retention.Microseconds())
	needed := p.log.needed(p.index)
	n := len(p.segments)
	if n > 0 && p.segments[n-1].first <= p.last && p.newest < cutoff && needed > p.last {
		if err := p.begin(); err != nil {
			p.log.slog.Warn("old messages of the hub can't be removed yet", "partition", p.index, "error", err)
			return
		}
		p.log.warnings.Overdue(p.index, 0)
		p.removeSegments(len(p.segments) - 1)
		return
	}
	old, overdue := 0, int64(0)
	for i := 0; i+1 < n && p.segments[i+1].began < cutoff; i++ {
		if p.segments[i+1].first <= needed && old == i {
			old++
		} else {
			overdue += p.segments[i].end
		}
	}
	p.log.warnings.Overdue(p.index, overdue)
	p.removeSegments(old)
}

// removeSegments removes the n oldest segments, the oldest first, so that the
// remaining messages have no gap. The mark is written before, so that the missing
// segments aren't reported as lost. The writer calls it.
func (p *partition) removeSegments(n int) {
	if n == 0 {
		return
	}
	p.gone = p.segments[n].first - 1
	err := p.writeMark(true)
	for i := 0; err == nil && i < n; i++ {
		s := p.segments[0]
		p.mu.Lock()
		p.segments = append([]segment(nil), p.segments[1:]...)
		p.mu.Unlock()
		err = p.log.disk.Remove(p.file(&s))
	}
	if err != nil {
		p.log.slog.Warn("old messages of the hub can't be removed yet", "partition", p.index, "error", err)
	}
}

// LastArrival returns the latest time in a hub's folder: an arrival or the beginning of a
// file. It returns zero if there is no hub. It doesn't open the hub. A server
// compares its clock with this time before it takes any reading. Unreadable files are
// skipped, because opening the hub reports them.
func LastArrival(dir string) fleetscore.Micros {
	h := &segmentLog{cfg: Config{Dir: dir}, slog: slog.New(slog.DiscardHandler), health: noHealth{}, warnings: NewWarnings(noHealth{}), disk: osDisk{}}
	var latest fleetscore.Micros
	for i := range fleetscore.Shards {
		segments, err := h.segments(i)
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		p := h.newPartition(i)
		for n, found := len(segments)-1, false; n >= 0 && !found; n-- {
			latest = max(latest, segments[n].began)
			var arrived fleetscore.Micros
			arrived, found = p.lastArrival(&segments[n])
			latest = max(latest, arrived)
		}
	}
	return latest
}

// lastArrival returns the arrival of a segment's last intact message. ok is false if there
// is none.
func (p *partition) lastArrival(s *segment) (latest fleetscore.Micros, ok bool) {
	c, err := p.openCursor(s, s.end)
	if err != nil {
		return 0, false
	}
	defer c.close()
	if from := s.end - 2*MaxMessageBytes; from > c.offset { // a complete message follows every such position
		c.offset = from
	}
	for {
		r, err := c.next()
		if err != nil {
			return latest, ok
		}
		if arrived, err := ArrivalOf(r.payload); err == nil {
			latest, ok = max(latest, arrived), true
		}
	}
}
