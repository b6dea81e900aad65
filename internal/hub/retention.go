package hub

import (
	"time"

	"github.com/fleetscore/fleetscore"
)

// trimEvery is the time between looks for segments that are too old.
func (h *segmentLog) trimEvery() time.Duration {
	return max(100*time.Millisecond, min(h.cfg.Retention/10, time.Minute))
}

// rollAfter is the age at which a segment is followed by a new one, so that messages
// don't outlive their retention by much.
func (h *segmentLog) rollAfter() fleetscore.Micros {
	return fleetscore.Micros((h.cfg.Retention / 10).Microseconds())
}

// trim removes the segments all of whose messages are older than the retention. The
// writer calls it.
func (p *partition) trim() {
	cutoff := fleetscore.MicrosOf(p.log.now()) - fleetscore.Micros(p.log.cfg.Retention.Microseconds())
	if n := len(p.segments); n > 0 && p.segments[n-1].first <= p.last && p.newest < cutoff {
		if err := p.begin(); err != nil {
			p.log.slog.Warn("old messages of the hub can't be removed yet", "partition", p.index, "error", err)
			return
		}
		p.removeSegments(len(p.segments) - 1)
		return
	}
	old := 0
	for old+1 < len(p.segments) && p.segments[old+1].began < cutoff {
		old++
	}
	p.removeSegments(old)
}

// removeSegments removes the n oldest segments, the oldest first, so that what
// stays has no gap. The mark says so before, lest their absence be taken for a loss.
// The writer calls it.
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
