package hub

import (
	"errors"
	"io"
	"os"
)

// load finds the partition's segments and where the log ends.
func (p *partition) load() error {
	segments, err := p.log.segments(p.index)
	if errors.Is(err, os.ErrNotExist) {
		p.log.damageText("partition %d: its folder %s is gone; the partition starts again empty", p.index, p.dir)
		return p.log.disk.Mkdir(p.dir, 0o700)
	}
	if err != nil {
		return err
	}
	p.segments = segments
	mark, gone, marked := p.readMark()
	p.gone = gone
	if n := len(segments); n > 0 && marked && segments[0].first > gone+1 {
		p.found(Damage{First: gone + 1, Last: segments[0].first - 1, Reason: "the oldest files are gone"})
	}
	for i := 1; i < len(segments); i++ {
		if have, want := segments[i-1].first, segments[i].previous; want > have {
			p.found(Damage{First: want, Last: segments[i].first - 1, Reason: "the file " + segmentName(want) + " is gone"})
		}
	}
	if n := len(segments); n > 0 {
		if err := p.loadLast(&segments[n-1], mark); err != nil {
			return err
		}
	}
	if mark > p.last {
		p.found(Damage{First: p.last + 1, Last: mark, Reason: "the end of the log is missing or damaged"})
		p.last = mark
	}
	return nil
}

// loadLast reads the whole last segment, because only the last segment may end in the
// middle of a write.
func (p *partition) loadLast(s *segment, mark uint64) error {
	size := s.end
	p.last, s.end = s.first-1, segmentHeader
	if size <= segmentHeader {
		return nil
	}
	c, err := p.openCursor(s, size)
	if err != nil {
		return err
	}
	defer c.close()
	known := int64(segmentHeader) // where the records end that were surely synced
	for {
		r, err := c.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if r.seq <= p.last {
			continue
		}
		if r.seq > p.last+1 {
			p.found(Damage{First: p.last + 1, Last: r.seq - 1, Reason: unreadable})
		}
		p.last, s.end, s.epoch = r.seq, c.offset, r.epoch
		if r.seq <= mark {
			known = s.end
		}
		if arrived, err := ArrivalOf(r.payload); err == nil {
			p.newest = max(p.newest, arrived)
		}
	}
	if s.end < size {
		p.log.slog.Info("the bytes after the last complete message of the hub were never acknowledged and are ignored",
			"dir", p.dir, "segment", segmentName(s.first), "bytes", size-s.end)
	}
	return p.makeDurable(s, known)
}

// makeDurable writes the records after an offset again and syncs them. A process that
// was killed, or whose sync failed, may have left the records only in the memory of
// the operating system; from now on readers see them.
func (p *partition) makeDurable(s *segment, from int64) error {
	if from == s.end {
		return nil
	}
	f, err := p.log.disk.open(p.file(s), os.O_RDWR)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for err == nil && from < s.end {
		part := buf[:min(int64(len(buf)), s.end-from)]
		if _, err = f.ReadAt(part, from); err == nil || errors.Is(err, io.EOF) {
			_, err = f.WriteAt(part, from)
		}
		from += int64(len(part))
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = p.log.disk.SyncDir(p.dir)
	}
	return errors.Join(err, f.Close())
}

const unreadable = "the file is damaged or cut short at their place"
