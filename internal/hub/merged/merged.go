// Package merged reads the partitions of a hub's log as one log, in an order that depends on
// the log alone.
//
// Of the messages that come next in each partition, the one that arrived first is next, and of those
// that arrived at the same time the one of the lowest partition. So a message is
// handed on once every other partition has one behind it: a reader goes on as far as the partition that is
// furthest behind, which ticks move when no readings come. A partition that can't be written holds
// the reader up, as it holds a watermark up.
//
// Read and Range call their function from one goroutine, and have ended all others when they return.
package merged

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore/internal/hub"
)

// Read calls fn with the messages of all partitions, each from a sequence on, and waits for more, as
// Read of a hub does.
func Read(ctx context.Context, h hub.Hub, from []uint64, fn func(hub.Message) error) error {
	return merge(ctx, len(from), fn, func(ctx context.Context, partition int, fn func(hub.Message) error) error {
		return h.Read(ctx, partition, from[partition], fn)
	})
}

// Range calls fn with the messages of all partitions, each from one sequence to another, both included, as
// Range of a hub does.
func Range(ctx context.Context, h hub.Hub, from, to []uint64, fn func(hub.Message) error) error {
	return merge(ctx, len(from), fn, func(ctx context.Context, partition int, fn func(hub.Message) error) error {
		return hub.Range(ctx, h, partition, from[partition], to[partition], fn)
	})
}

// merge hands on what read gives for each partition. fn is called by the caller's goroutine, which may
// recover from its panics.
func merge(ctx context.Context, partitions int, fn func(hub.Message) error, read func(ctx context.Context, partition int, fn func(hub.Message) error) error) (err error) {
	child, cancel := context.WithCancel(ctx)
	group, child := errgroup.WithContext(child)
	next := make([]chan hub.Message, partitions) // without buffers: messages may be large
	for p := range next {
		next[p] = make(chan hub.Message)
		group.Go(func() error {
			err := read(child, p, func(m hub.Message) error {
				select {
				case next[p] <- m:
					return nil
				case <-child.Done():
					return child.Err()
				}
			})
			if err == nil {
				close(next[p]) // the range has ended
			}
			return err
		})
	}
	ended := false
	defer func() {
		cancel()
		if failed := group.Wait(); ended && ctx.Err() == nil {
			err = failed
		}
	}()
	err = inOrder(child, next, fn)
	if ended = child.Err() != nil && errors.Is(err, child.Err()); errors.Is(err, hub.ErrEnough) {
		return nil
	}
	return err
}

// inOrder hands messages on until all partitions have ended, or ctx has.
func inOrder(ctx context.Context, next []chan hub.Message, fn func(hub.Message) error) error {
	heads := make([]*hub.Message, len(next))
	for {
		first := -1
		for p := range next {
			if heads[p] == nil && next[p] != nil {
				select {
				case m, ok := <-next[p]:
					if !ok {
						next[p] = nil
						continue
					}
					heads[p] = &m
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if heads[p] != nil && (first < 0 || heads[p].Arrived < heads[first].Arrived) {
				first = p
			}
		}
		if first < 0 {
			return nil
		}
		if err := fn(*heads[first]); err != nil {
			return err
		}
		heads[first] = nil
	}
}
