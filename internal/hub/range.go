package hub

import (
	"context"
	"errors"
	"time"

	"github.com/fleetscore/fleetscore"
)

// ErrEnough is what the function of a Range returns when it needs no further message.
var ErrEnough = errors.New("enough was read")

// damageEvery is how often Range looks whether the last message it waits for is damaged.
const damageEvery = time.Second

// Range calls fn with the messages from one sequence to another, both included, which must
// have been appended, and returns. Messages that the log doesn't have any more are left
// out, as by Read. fn owns the message, and ends the range early with ErrEnough.
func Range(ctx context.Context, h Hub, partition int, from, to uint64, fn func(Message) error) error {
	if to < max(from, 1) {
		return nil
	}
	child, cancel := context.WithCancelCause(ctx)
	watching := make(chan struct{})
	defer func() {
		cancel(nil)
		<-watching
	}()
	go func() {
		defer close(watching)
		ticker := time.NewTicker(damageEvery)
		defer ticker.Stop()
		for {
			select {
			case <-child.Done():
				return
			case <-ticker.C:
			}
			if stats, err := h.Stats(child); err == nil && lost(stats[partition], to) {
				cancel(ErrEnough) // Read would wait for what comes after it
			}
		}
	}()
	err := h.Read(child, partition, from, func(m Message) error {
		if m.Seq > to {
			return ErrEnough
		}
		if err := fn(m); err != nil { // perhaps ErrEnough
			return err
		}
		if m.Seq == to {
			return ErrEnough
		}
		return nil
	})
	if errors.Is(err, ErrEnough) || errors.Is(context.Cause(child), ErrEnough) {
		return nil
	}
	return err
}

// lost reports whether a message isn't in the log any more.
func lost(s Stats, seq uint64) bool {
	for _, d := range s.Damage {
		if d.First <= seq && seq <= d.Last {
			return true
		}
	}
	return seq < s.First
}

// Seek returns the first of the messages from one sequence to another that arrived at a time
// or later; the one behind them if there is none. It reads a few messages.
func Seek(ctx context.Context, h Hub, partition int, from, to uint64, at fleetscore.Micros) (uint64, error) {
	low, high := max(from, 1), to+1
	for low < high {
		mid := low + (high-low)/2
		var got *Message
		err := Range(ctx, h, partition, mid, to, func(m Message) error {
			got = &m
			return ErrEnough
		})
		if err != nil {
			return 0, err
		}
		if got == nil || got.Arrived >= at { // arrivals never decrease
			high = mid
		} else {
			low = got.Seq + 1
		}
	}
	return low, nil
}
