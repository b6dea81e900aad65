package hub

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
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

// Share returns the most that each part of a log may have, so that all parts together have no more
// than limit: the parts have equal shares, and what one of them doesn't use goes to the others.
func Share(sizes []int64, limit int64) int64 {
	left := limit
	for i, size := range slices.Sorted(slices.Values(sizes)) {
		if share := left / int64(len(sizes)-i); size > share {
			return share
		}
		left -= size
	}
	return limit
}

// excess is by how much a partition is larger than its share of the log's size.
func (h *segmentLog) excess(p *partition) int64 {
	if h.cfg.Size == 0 {
		return 0
	}
	sizes := make([]int64, len(h.partitions))
	for i, q := range h.partitions {
		sizes[i] = q.size()
	}
	return sizes[p.index] - Share(sizes, h.cfg.Size)
}

// trim removes the segments whose messages are all older than the retention and no
// longer needed, and the oldest ones while the partition is larger than its share. The writer calls it.
func (p *partition) trim() {
	cutoff := fleetscore.MicrosOf(p.log.now()) - fleetscore.Micros(p.log.cfg.Retention.Microseconds())
	needed := p.log.needed(p.index)
	n := len(p.segments)
	if n > 0 && p.segments[n-1].first <= p.last && p.newest < cutoff && needed > p.last {
		if err := p.begin(); err != nil {
			p.removed(err)
			return
		}
		p.log.warnings.Overdue(p.index, 0)
		p.removeSegments(len(p.segments) - 1)
		return
	}
	old, overdue, excess := 0, int64(0), p.log.excess(p)
	for i := 0; i+1 < n && (p.segments[i+1].began < cutoff || excess > 0); i++ {
		excess -= p.segments[i].size()
		if p.segments[i+1].first <= needed && old == i {
			old++
		} else {
			overdue += p.segments[i].size()
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
		p.removed(nil)
		return
	}
	p.gone = p.segments[n].first - 1
	err := p.writeMark(true)
	for i := 0; err == nil && i < n; i++ {
		all := p.segments
		p.setSegments(all[1:])
		if err = p.log.disk.Remove(p.file(&all[0])); errors.Is(err, fs.ErrNotExist) {
			err = nil // somebody else removed the file
		} else if err != nil {
			p.setSegments(all) // the next check tries again
		}
	}
	if err != nil {
		err = storageError("remove old messages", p.dir, err)
	}
	p.removed(err)
}

// removed notes how a check for old segments ended.
func (p *partition) removed(err error) {
	if err != nil {
		p.trimming.Failed(slog.LevelWarn, "old messages of the hub can't be removed yet", err, "partition", p.index)
		return
	}
	p.trimming.Works("old messages of the hub can be removed again", "partition", p.index)
}

func (p *partition) setSegments(s []segment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.segments = slices.Clone(s)
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
