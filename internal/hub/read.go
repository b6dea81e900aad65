package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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

	segment uint64 // which holds the last message that was taken without reading its file; 0 if there is none
	after   int64  // where that message ends in the segment
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
	p.decoded.enter(r)
	defer p.decoded.leave(r)
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
	if m := r.p.decoded.written(r.from); m != nil {
		r.segment, r.after = m.segment, m.end
		return r.hand(m.seq, m.epoch, m.stamp, m.readings)
	}
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
	if r.segment == s.first { // messages before this place were taken without the file
		r.cursor.offset = max(r.cursor.offset, r.after)
	}
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
	// Older messages were removed by the retention, or all segments are gone.
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
	return r.hand(rec.seq, rec.epoch, stamp, readings)
}

func (r *reader) hand(seq uint64, epoch int64, stamp Stamp, readings *fleetscore.Readings) error {
	r.from = seq + 1
	r.p.decoded.passed(r)
	return r.fn(Message{Stamp: stamp, Partition: r.p.index, Seq: seq, Epoch: epoch, Tick: readings == nil, Readings: readings})
}
