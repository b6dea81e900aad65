package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
)

const readRetries = 5 // failed reads in a row after which Read gives up

// reader is one Read in progress.
type reader struct {
	p    *partition
	from uint64 // the next message
	fn   func(Message) error

	cursor *cursor // nil between segments
	first  uint64  // of the cursor's segment
	bound  uint64  // the last message that may be read from it now
}

// Read implements Hub.
func (h *segmentLog) Read(ctx context.Context, partition int, from uint64, fn func(Message) error) error {
	const op = "read hub"
	p, err := h.partition(op, partition)
	if err != nil {
		return err
	}
	r := &reader{p: p, from: max(from, 1), fn: fn}
	defer r.leave()
	p.decoded.enter()
	defer p.decoded.leave()
	for failures := 0; ; {
		last, changed := p.look()
		for r.from <= last {
			if err := r.check(ctx); err != nil {
				return err
			}
			err := r.step()
			var of errOfDisk
			if err == nil {
				failures = 0
				continue
			}
			if !errors.As(err, &of) {
				return err
			}
			r.leave()
			if failures++; failures > readRetries {
				return storageError(op, h.cfg.Dir, of.error)
			}
			select {
			case <-ctx.Done():
			case <-h.done:
			case <-time.After(time.Duration(failures) * 100 * time.Millisecond):
			}
		}
		select {
		case <-ctx.Done():
		case <-h.done:
		case <-changed:
		}
		if err := r.check(ctx); err != nil {
			return err
		}
	}
}

// check returns the reason why reading can't go on, or nil.
func (r *reader) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-r.p.log.done:
		return fleetscore.Errorf(fleetscore.Unavailable, "read hub", r.p.log.cfg.Dir, "%w", errClosed)
	default:
		return nil
	}
}

// errOfDisk is an error of the disk, to tell it from what fn returned.
type errOfDisk struct{ error }

// step delivers the next message, or moves on to the segment that holds it.
func (r *reader) step() error {
	s, ok := r.locate()
	if !ok {
		return nil
	}
	if r.cursor == nil || r.first != s.first {
		r.leave()
		c, err := r.p.openCursor(&s, s.end)
		if errors.Is(err, os.ErrNotExist) {
			if _, still := r.locate(); still {
				r.lost(r.bound, "the file "+segmentName(s.first)+" is gone")
			}
			return nil
		}
		if err != nil {
			return errOfDisk{err}
		}
		r.cursor, r.first = c, s.first
	}
	r.cursor.end = s.end
	rec, err := r.cursor.next()
	switch {
	case errors.Is(err, io.EOF) || err == nil && rec.seq > r.bound: // after the bound there may be the rest of a failed write
		r.lost(r.bound, unreadable)
		r.leave()
		return nil
	case err != nil:
		return errOfDisk{err}
	case rec.seq < r.from:
		return nil
	case rec.seq > r.from:
		r.lost(rec.seq-1, unreadable)
	}
	return r.deliver(rec)
}

// locate finds the segment of the next message; false if the segments changed
// meanwhile and the caller must look again.
func (r *reader) locate() (segment, bool) {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.segments) - 1; i >= 0; i-- {
		s := p.segments[i]
		if s.first > r.from {
			continue
		}
		r.bound = p.last
		if i+1 < len(p.segments) {
			r.bound = p.segments[i+1].first - 1
		}
		return s, true
	}
	// Older messages were removed by age, or all segments are gone.
	r.from = p.last + 1
	if len(p.segments) > 0 {
		r.from = p.segments[0].first
	}
	return segment{}, false
}

// lost notes that the messages up to last can't be read, and goes on after them.
func (r *reader) lost(last uint64, why string) {
	if r.from <= last {
		r.p.found(Damage{First: r.from, Last: last, Reason: why})
		r.from = last + 1
	}
}

func (r *reader) leave() {
	if r.cursor != nil {
		r.cursor.close()
		r.cursor = nil
	}
}

func (r *reader) deliver(rec record) error {
	stamp, readings, err := r.p.decoded.decode(rec)
	if fleetscore.Corrupt.Is(err) { // the checksum is right, so the message was written like that
		r.lost(rec.seq, err.Error())
		return nil
	}
	if err != nil {
		return fleetscore.Wrap("read hub", fmt.Sprintf("partition %d message %d", r.p.index, rec.seq), err)
	}
	r.from = rec.seq + 1
	return r.fn(Message{Stamp: stamp, Partition: r.p.index, Seq: rec.seq, Epoch: rec.epoch, Tick: readings == nil, Readings: readings})
}

// sharedBytes is how much of a partition's newest messages is kept decoded while several
// readers read them; decoded, this is up to about four times as much memory.
const sharedBytes = 4 << 20

// decodedLog keeps the newest messages of a partition decoded, while there are several readers,
// so that each message is decoded once for all of them. A reader that is further behind decodes
// its messages itself.
type decodedLog struct {
	mu       sync.Mutex // guards what follows
	readers  int
	messages []*decodedMessage // by sequence
	bytes    int               // of the messages
}

type decodedMessage struct {
	seq      uint64
	bytes    int
	once     sync.Once // guards what follows
	stamp    Stamp
	readings *fleetscore.Readings
	err      error
}

func (d *decodedLog) enter() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readers++
}

func (d *decodedLog) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.readers--; d.readers < 2 {
		d.messages, d.bytes = nil, 0
	}
}

func (d *decodedLog) decode(rec record) (Stamp, *fleetscore.Readings, error) {
	m := d.message(rec)
	if m == nil {
		return Decode(rec.payload)
	}
	m.once.Do(func() { m.stamp, m.readings, m.err = Decode(rec.payload) })
	return m.stamp, m.readings, m.err
}

// message returns the place of a message among those that are kept; nil if it isn't to be kept.
func (d *decodedLog) message(rec record) *decodedMessage {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.readers < 2 {
		return nil
	}
	i, found := slices.BinarySearchFunc(d.messages, rec.seq, func(m *decodedMessage, seq uint64) int { return cmp.Compare(m.seq, seq) })
	if found {
		return d.messages[i]
	}
	if i == 0 && d.bytes+len(rec.payload) > sharedBytes {
		return nil
	}
	m := &decodedMessage{seq: rec.seq, bytes: len(rec.payload)}
	d.messages, d.bytes = slices.Insert(d.messages, i, m), d.bytes+m.bytes
	for len(d.messages) > 1 && d.bytes > sharedBytes {
		d.bytes -= d.messages[0].bytes
		d.messages = slices.Delete(d.messages, 0, 1)
	}
	return m
}
