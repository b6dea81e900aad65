package hub

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
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

// trim removes the segments all of whose messages are older than the retention and
// needed by nobody. The writer calls it.
func (p *partition) trim() {
	cutoff := fleetscore.MicrosOf(p.log.now()) - fleetscore.Micros(p.log.cfg.Retention.Microseconds())
	needed := p.log.needed(p.index)
	n := len(p.segments)
	if n > 0 && p.segments[n-1].first <= p.last && p.newest < cutoff && needed > p.last {
		if err := p.begin(); err != nil {
			p.log.slog.Warn("old messages of the hub can't be removed yet", "partition", p.index, "error", err)
			return
		}
		p.log.overdueBytes(p.index, 0)
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
	p.log.overdueBytes(p.index, overdue)
	p.removeSegments(old)
}

// overdueBytes notes how much of a partition is kept beyond its retention, and warns
// while that is anything: the folder grows until what needs it goes on.
func (h *segmentLog) overdueBytes(partition int, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n == h.overdue[partition] {
		return
	}
	h.overdue[partition] = n
	sum := int64(0)
	for _, n := range h.overdue {
		sum += n
	}
	text := ""
	if sum > 0 {
		text = fmt.Sprintf("%d MB of readings are older than hub.retention and are kept, because a query has not committed them or the clock is not trusted: GET /queries and the overview show what stands still; removing that query from fleet.yaml lets go of them", (sum+1<<20-1)>>20)
	}
	h.health.Warn("hub retention", text)
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

// LastArrival is the latest arrival time in the hub of a folder, and the latest time
// that it began a file, without opening it; zero if there is no hub. A server
// compares its clock with it before it takes anything. What can't be read is passed
// over: opening the hub tells of it.
func LastArrival(dir string) fleetscore.Micros {
	h := &segmentLog{cfg: Config{Dir: dir}, slog: slog.New(slog.DiscardHandler), health: noHealth{}, disk: osDisk{}}
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

// lastArrival is the arrival of a segment's last sound message; false if it has none.
func (p *partition) lastArrival(s *segment) (latest fleetscore.Micros, ok bool) {
	c, err := p.openCursor(s, s.end)
	if err != nil {
		return 0, false
	}
	defer c.close()
	if from := s.end - 2*MaxMessageBytes; from > c.offset { // whatever lies there, a whole message follows
		c.offset = from
	}
	for {
		r, err := c.next()
		if err != nil {
			return latest, ok
		}
		if arrived, err := arrivalOf(r.payload); err == nil {
			latest, ok = max(latest, arrived), true
		}
	}
}
