package store

import (
	"context"
	"errors"
	"io"

	"github.com/fleetscore/fleetscore"
)

// reader reads a range. When a connection breaks, it goes on at the same place, as
// long as the blob is still the same.
type reader struct {
	ctx  context.Context // of Get, which bounds the whole reading
	c    *cloud
	name fleetscore.BlobName
	etag string
	next int64 // offset of the next byte
	left int64 // bytes still to come; negative until known
	body io.ReadCloser

	broken   int   // how often the connection broke since
	brokenAt int64 // this offset
}

// healed is how many bytes must be read before breaks are counted from 0 again.
const healed = 1 << 20

func (r *reader) open() error {
	return r.c.try(r.ctx, "read", r.name, func(ctx context.Context) error {
		body, info, err := r.c.svc.open(ctx, string(r.name), r.next, r.left, r.etag)
		if err != nil {
			return err
		}
		r.body, r.etag = body, info.ETag
		if rest := max(0, info.SizeBytes-r.next); r.left < 0 || r.left > rest {
			r.left = rest
		}
		return nil
	})
}

// Read implements io.Reader.
func (r *reader) Read(b []byte) (int, error) {
	for {
		if r.left == 0 {
			return 0, io.EOF
		}
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		if int64(len(b)) > r.left {
			b = b[:r.left]
		}
		n, err := r.body.Read(b)
		r.next += int64(n)
		r.left -= int64(n)
		if n > 0 || err == nil {
			return n, nil // an error comes again at the next read
		}
		if err := r.resume(err); err != nil {
			return 0, err
		}
	}
}

// resume opens the rest after the connection broke.
func (r *reader) resume(cause error) error {
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	if r.next-r.brokenAt >= healed {
		r.broken = 0
	}
	r.broken, r.brokenAt = r.broken+1, r.next
	if errors.Is(cause, io.EOF) {
		cause = io.ErrUnexpectedEOF
	}
	if r.broken >= maxTries {
		return judgeNetwork(cause).error("read", r.c.subject(r.name))
	}
	if err := rest(r.ctx, r.c.pause<<(r.broken-1)); err != nil {
		return err
	}
	r.body.Close()
	err := r.open()
	if fleetscore.Conflict.Is(err) || fleetscore.NotFound.Is(err) {
		return fleetscore.Errorf(fleetscore.Unavailable, "read", r.c.subject(r.name), "the blob was changed while it was read").WithHint("read the blob again")
	}
	return err
}

// Close ends the reading.
func (r *reader) Close() error {
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}
