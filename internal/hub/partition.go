package hub

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetscore/fleetscore"
)

const (
	groupBytes  = 8 << 20 // of messages that are written with one sync
	answerLimit = 10 * time.Second
	stuckAfter  = 3 * time.Second // while a write lasts longer than this, further appends fail at once
	markName    = "mark"
	markBytes   = 32
	markMagic   = "FSMARK01"
)

// partition is one partition of the log: its segments, and the goroutine that
// writes them.
//
// The writer takes all messages that wait, writes them and syncs once. Only then do
// readers see the messages and are appends answered. After an error the whole group
// is discarded, and the file isn't written again: the next append begins a new
// segment with the same sequences. So the part of the failed write that the disk kept
// doesn't matter, and the next append notices when the disk works again.
type partition struct {
	log   *segmentLog
	index int
	dir   string

	requests chan *request
	decoded  decodedLog
	busy     atomic.Int64 // since when the writer writes, by the log's stopwatch; 0 means that it waits

	mu       sync.Mutex    // guards what follows
	segments []segment     // in order; only the last one may be written
	last     uint64        // the highest sequence that is synced
	changed  chan struct{} // closed and replaced when last grows
	damage   []Damage      // what was found to be unreadable

	// Used by the writer alone.
	newest   fleetscore.Micros // arrival of the last message
	trimming Trouble           // why old messages can't be removed
	active   file              // of the last segment; nil means that the next append begins a segment
	mark     file              // nil until it is needed
	gone     uint64            // messages up to this one were removed by the retention
}

// request is one append.
type request struct {
	messages [][]byte // each of recordHeader bytes to fill in, then the message
	stamp    Stamp
	readings []*fleetscore.Readings // of the messages; nil for a tick
	seq      uint64
	err      error
	done     chan struct{} // closed when seq or err is set
}

func (r *request) bytes() (n int) {
	for _, m := range r.messages {
		n += len(m)
	}
	return n
}

// append hands messages to the writer and waits for its sync.
func (p *partition) append(ctx context.Context, stamp Stamp, readings []*fleetscore.Readings, messages [][]byte) (uint64, error) {
	if err := p.stuck(); err != nil {
		return 0, err
	}
	limit := time.NewTimer(answerLimit)
	defer limit.Stop()
	r := &request{messages: messages, stamp: stamp, readings: readings, done: make(chan struct{})}
	queue := p.requests
	for {
		select {
		case queue <- r:
			queue = nil
		case <-r.done:
			return r.seq, r.err
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-limit.C:
			return 0, fmt.Errorf("the disk didn't answer for %s", answerLimit)
		case <-p.log.done:
			return 0, errClosed
		}
	}
}

var errClosed = errors.New("the hub is closed")

// stuck returns an error if a write of this partition hangs.
func (p *partition) stuck() error {
	since := p.busy.Load()
	if since == 0 {
		return nil
	}
	if d := p.log.stopwatch() - time.Duration(since); d > stuckAfter {
		return fmt.Errorf("a write has not ended for %s", d.Round(time.Second))
	}
	return nil
}

// run is the writer. It ends with the log.
func (p *partition) run() {
	defer func() {
		_ = p.writeMark(true) // no message is lost without the mark
		p.closeActive()
		if p.mark != nil {
			_ = p.mark.Close() // everything that matters was synced before
		}
	}()
	p.trimming = p.log.trouble()
	trim := time.NewTicker(p.log.trimEvery())
	defer trim.Stop()
	segments := len(p.segments)
	for {
		select {
		case <-p.log.done:
			return
		case <-trim.C:
			p.trim()
			segments = len(p.segments)
		case r := <-p.requests:
			p.busy.Store(int64(max(p.log.stopwatch(), 1)))
			p.commit(p.gather(r))
			p.busy.Store(0)
			if n := len(p.segments); p.log.cfg.Size > 0 && n > segments { // don't wait for the ticker, because much may come until then
				p.trim()
			}
			segments = len(p.segments)
		}
	}
}

// gather takes the other waiting requests too, so that all of them share one sync.
func (p *partition) gather(r *request) []*request {
	group := []*request{r}
	for size := r.bytes(); size < groupBytes; {
		select {
		case r = <-p.requests:
			group = append(group, r)
			size += r.bytes()
		default:
			return group
		}
	}
	return group
}

// commit writes a group, syncs it, and answers.
func (p *partition) commit(group []*request) {
	err := p.write(group)
	p.log.wrote(p, err)
	for _, r := range group {
		r.err = err
		close(r.done)
	}
	if err == nil {
		_ = p.writeMark(false) // no message is lost without the mark
	}
}

func (p *partition) write(group []*request) error {
	if left, err := p.log.disk.free(p.log.cfg.Dir); err == nil {
		p.log.left(left)
		if left < reserveBytes {
			return diskFull("append to hub", p.log.cfg.Dir, fmt.Errorf("only %d MB are left on the disk", left>>20))
		}
	}
	if p.active == nil || p.full() {
		if err := p.begin(); err != nil {
			return err
		}
	}
	s := &p.segments[len(p.segments)-1] // only the writer changes it
	offset, seq := s.end, p.last
	for _, r := range group {
		for _, data := range r.messages {
			seq++
			r.seq = seq
			fillRecordHeader(data, seq, s.epoch)
			if _, err := p.active.WriteAt(data, offset); err != nil {
				return p.failed(err)
			}
			offset += int64(len(data))
		}
	}
	if err := p.active.Sync(); err != nil {
		return p.failed(err)
	}
	p.newest = max(p.newest, group[len(group)-1].stamp.Arrived)
	p.keep(group, s)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.end, p.last = offset, seq
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

// keep hands the messages of a group that was synced to the readers.
func (p *partition) keep(group []*request, s *segment) {
	end, seq := s.end, p.last
	for _, r := range group {
		for i, data := range r.messages {
			seq++
			end += int64(len(data))
			p.decoded.wrote(&decodedMessage{seq: seq, segment: s.first, end: end, epoch: s.epoch, stamp: r.stamp, readings: r.readings[i]})
		}
	}
}

// full reports whether the next append should begin a new segment.
func (p *partition) full() bool {
	s := &p.segments[len(p.segments)-1]
	return s.first <= p.last && (s.end >= p.log.cfg.segmentBytes || fleetscore.MicrosOf(p.log.now())-s.began > p.log.rollAfter())
}

// failed closes the file of a failed write and uses the file no more. Nobody knows
// which part of the group the disk holds, and after a failed sync a later sync of the
// same file may report success wrongly.
func (p *partition) failed(err error) error {
	p.closeActive()
	return storageError("append to hub", p.log.cfg.Dir, err)
}

func (p *partition) closeActive() {
	if p.active != nil {
		_ = p.active.Close() // all acknowledged messages in it are synced
		p.active = nil
	}
}

// begin makes a new segment for the messages after the last one. It is durable,
// with its name, before anything is written into it.
func (p *partition) begin() error {
	p.closeActive()
	now := fleetscore.MicrosOf(p.log.now())
	s := segment{first: p.last + 1, hub: p.log.hub, epoch: p.log.epoch, began: now, end: segmentHeader}
	n := len(p.segments)
	if n > 0 && p.segments[n-1].first == s.first { // nothing in it was ever acknowledged
		n--
	}
	if n > 0 {
		s.previous = p.segments[n-1].first
	}
	f, err := p.log.disk.open(p.file(&s), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if errors.Is(err, os.ErrNotExist) { // somebody removed the folder
		if err = p.log.disk.Mkdir(p.dir, 0o700); err == nil {
			f, err = p.log.disk.open(p.file(&s), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
		}
	}
	if err == nil {
		if _, err = f.WriteAt(s.header(p.index), 0); err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = p.log.disk.SyncDir(p.dir)
		}
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		return storageError("append to hub", p.log.cfg.Dir, err)
	}
	p.active = f
	p.mu.Lock()
	p.segments = append(p.segments[:n:n], s)
	p.mu.Unlock()
	return nil
}

// writeMark notes the last sequence beside the segments, and how far messages were
// removed by the retention. The mark isn't synced with each append, so after a power cut the
// mark may be too low, but never too high. If the mark names a message that the
// segments don't hold, damage destroyed acknowledged messages; their sequences are
// not used again.
func (p *partition) writeMark(sync bool) (err error) {
	if p.mark == nil {
		if p.last == 0 {
			return nil
		}
		if p.mark, err = p.log.disk.open(filepath.Join(p.dir, markName), os.O_RDWR|os.O_CREATE); err != nil {
			p.mark = nil
			return err
		}
	}
	b := append(make([]byte, 0, markBytes), markMagic...)
	b = binary.LittleEndian.AppendUint64(b, p.last)
	b = binary.LittleEndian.AppendUint64(b, p.gone)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	_, err = p.mark.WriteAt(append(b, 0, 0, 0, 0), 0)
	if err == nil && sync {
		err = p.mark.Sync()
	}
	if err != nil {
		_ = p.mark.Close()
		p.mark = nil
	}
	return err
}

// readMark returns what the mark says; ok is false if the mark is missing or damaged.
func (p *partition) readMark() (last, gone uint64, ok bool) {
	b, err := readFile(p.log.disk, filepath.Join(p.dir, markName), markBytes)
	if err != nil || len(b) != markBytes || string(b[:8]) != markMagic || binary.LittleEndian.Uint32(b[24:]) != crc32.Checksum(b[:24], castagnoli) {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:]), true
}

// look returns the last sequence and a channel that is closed when it grows.
func (p *partition) look() (last uint64, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, p.changed
}

// found notes messages that are gone or can't be read. Each is noted once.
func (p *partition) found(d Damage) {
	p.mu.Lock()
	for _, have := range p.damage {
		if have.First <= d.First && d.Last <= have.Last {
			p.mu.Unlock()
			return
		}
	}
	if len(p.damage) < maxDamage {
		p.damage = append(p.damage, d)
	}
	p.mu.Unlock()
	p.log.damaged(p, d)
}

// stats describes the partition.
func (p *partition) stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Partition: p.index, First: p.last + 1, Last: p.last, Damage: append([]Damage(nil), p.damage...)}
	if len(p.segments) > 0 {
		s.First = min(p.segments[0].first, p.last+1)
	}
	s.Messages = p.last + 1 - s.First
	for _, d := range s.Damage {
		if d.First >= s.First {
			s.Messages -= d.Last - d.First + 1
		}
	}
	if s.SizeBytes = uint64(p.sizeLocked()); s.Messages > 0 {
		s.Oldest = p.segments[0].began
	}
	s.OverdueBytes = p.log.warnings.OverdueOf(p.index)
	return s
}

// size is that of the partition's records.
func (p *partition) size() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sizeLocked()
}

func (p *partition) sizeLocked() (n int64) {
	for i := range p.segments {
		n += p.segments[i].size()
	}
	return n
}

// reaches finds the last message that an opening of the hub wrote.
func (p *partition) reaches(epoch int64) (last uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.segments) - 1; i >= 0; i-- {
		if p.segments[i].epoch != epoch || p.segments[i].first > p.last {
			continue
		}
		if i+1 < len(p.segments) {
			return p.segments[i+1].first - 1, true
		}
		return p.last, true
	}
	return 0, false
}
