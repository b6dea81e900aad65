package store

import (
	"context"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
)

// upload is a blob that comes in parts. Nothing is visible before commit.
type upload interface {
	lanes() int // parts that may be sent at once; 1 means in order
	part(ctx context.Context, number int, data []byte) error
	commit(ctx context.Context, parts int) (Info, error)
	abort(ctx context.Context) // forgets the parts; may fail, then the service does later
}

// Parts grow, so that S3's 10,000 hold 440 GiB without small blobs costing much
// memory: a Put holds a part per lane and one more.
const maxParts = 10_000

func partBytes(number int) int { return 8 << 20 * (1 + number/1000) }

// readPart reads up to n bytes; last tells that the body ended.
func readPart(body io.Reader, n int) (data []byte, last bool, err error) {
	data, err = io.ReadAll(io.LimitReader(body, int64(n)))
	return data, len(data) < n, err
}

// abortLimit bounds the cleaning up after an upload that failed.
const abortLimit = 30 * time.Second

func (c *cloud) putParts(ctx context.Context, p putting, data []byte, body io.Reader) (info Info, err error) {
	name := fleetscore.BlobName(p.name)
	var up upload
	if err := c.limited(ctx, "write", name, func(ctx context.Context) (err error) {
		up, err = c.svc.begin(ctx, p)
		return err
	}); err != nil {
		return Info{}, err
	}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortLimit)
			defer cancel()
			up.abort(ctx)
		}
	}()
	group, child := errgroup.WithContext(ctx)
	group.SetLimit(up.lanes())
	number, size := 0, int64(0)
	var bodyErr error
	for last := false; child.Err() == nil; {
		number++
		size += int64(len(data))
		n, part := number, data
		group.Go(func() error {
			return c.try(child, "write", name, func(ctx context.Context) error { return up.part(ctx, n, part) })
		})
		if last {
			break
		}
		if data, last, bodyErr = readPart(body, partBytes(number)); bodyErr != nil || last && len(data) == 0 {
			break
		}
		if number == maxParts {
			bodyErr = fleetscore.Errorf(fleetscore.Exhausted, "write", c.subject(name), "it is larger than %d bytes", size).WithHint("write it in several blobs")
			break
		}
	}
	if err := group.Wait(); err != nil {
		return Info{}, err
	}
	if bodyErr != nil {
		return Info{}, c.bodyError(ctx, name, bodyErr)
	}
	err = c.try(ctx, "write", name, func(ctx context.Context) (err error) {
		info, err = up.commit(ctx, number)
		return err
	})
	info.SizeBytes = size
	return info, err
}
