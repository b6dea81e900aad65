package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/fleetscore/fleetscore"
)

const (
	fetchMessages = 64               // messages asked for at once; small ones (ticks) come many at a time
	fetchBytes    = 4 << 20          // bound of what waits for a slow reader
	fetchTimeout  = 10 * time.Second // without the next message of a fetch
	fetchRetries  = 5                // fetches in a row without progress, while the engine restarts, before Read gives up
)

// errReader wraps what fn returned, to tell it from failures of the engine.
type errReader struct{ error }

// Read implements Hub.
func (h *jetStream) Read(ctx context.Context, partition int, from uint64, fn func(Message) error) error {
	const op = "read hub"
	if err := h.checkPartition(op, partition); err != nil {
		return err
	}
	from = max(from, 1)
	for failures := 0; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		last, changed := h.tails[partition].look()
		if from > last {
			select {
			case <-ctx.Done():
			case <-h.done:
				return h.unavailable(op)
			case <-changed:
			}
			continue
		}
		next, err := h.fetch(ctx, partition, from, fn)
		var fromReader errReader
		switch {
		case errors.As(err, &fromReader):
			return fromReader.error
		case fleetscore.Corrupt.Is(err) || fleetscore.Invalid.Is(err):
			return err
		case err != nil && ctx.Err() == nil:
			if failures++; failures > fetchRetries {
				return err
			}
			select {
			case <-ctx.Done():
			case <-h.done:
				return h.unavailable(op)
			case <-time.After(time.Duration(failures) * 200 * time.Millisecond):
			}
		case err == nil && next == from:
			from = last + 1 // all up to last are gone by age
		}
		if next > from {
			from, failures = next, 0
		}
	}
}

// fetch passes some messages from a sequence on to fn and returns the sequence
// after the last one.
func (h *jetStream) fetch(ctx context.Context, partition int, from uint64, fn func(Message) error) (next uint64, err error) {
	h.mu.RLock()
	e := h.engine
	h.mu.RUnlock()
	if e == nil {
		return from, h.unavailable("read hub")
	}
	inbox := e.nc.NewInbox()
	sub, err := e.nc.SubscribeSync(inbox)
	if err != nil {
		return from, fleetscore.Errorf(fleetscore.Unavailable, "read hub", h.cfg.Dir, "%w", err)
	}
	defer sub.Unsubscribe()
	request, err := json.Marshal(struct {
		Seq      uint64 `json:"seq"`
		Batch    int    `json:"batch"`
		MaxBytes int    `json:"max_bytes"`
	}{from, fetchMessages, fetchBytes})
	if err == nil {
		err = e.nc.PublishRequest("$JS.API.DIRECT.GET."+streamOf(partition), inbox, request)
	}
	for next = from; err == nil; {
		var (
			msg *nats.Msg
			end bool
		)
		if msg, err = nextMsg(ctx, sub); err != nil {
			break
		}
		if end, err = endOfFetch(msg); err != nil || end {
			break
		}
		if next, err = h.deliver(ctx, partition, msg, fn); err != nil {
			return next, err
		}
	}
	if err != nil {
		return next, fleetscore.Errorf(fleetscore.Unavailable, "read hub", h.cfg.Dir, "%w", err)
	}
	return next, nil
}

func nextMsg(ctx context.Context, sub *nats.Subscription) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	return sub.NextMsgWithContext(ctx)
}

// endOfFetch tells whether the message is the server's mark that no more come
// (204 after a batch, 404 if there was nothing).
func endOfFetch(msg *nats.Msg) (bool, error) {
	switch status := msg.Header.Get("Status"); status {
	case "":
		return false, nil
	case "204", "404":
		return true, nil
	default:
		return false, fmt.Errorf("the engine answered %s %s", status, msg.Header.Get("Description"))
	}
}

func (h *jetStream) deliver(ctx context.Context, partition int, msg *nats.Msg, fn func(Message) error) (next uint64, err error) {
	seq, err := strconv.ParseUint(msg.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("a message without sequence: %w", err)
	}
	stamp, r, err := Decode(msg.Data)
	if err != nil {
		return 0, fleetscore.Wrap("read hub", fmt.Sprintf("partition %d message %d", partition, seq), err)
	}
	if err := ctx.Err(); err != nil {
		return seq, err
	}
	m := Message{Stamp: stamp, Partition: partition, Seq: seq, Tick: r == nil, Readings: r}
	if err := fn(m); err != nil {
		return seq + 1, errReader{err}
	}
	return seq + 1, nil
}
