package natshub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// A reader asks for at most this much in advance, and takes a consumer for lost when it
// hears nothing for twice the heartbeat.
const (
	aheadMessages = 512
	aheadBytes    = 16 << 20
	heartbeat     = 2 * time.Second
	forgetAfter   = time.Minute // in which the servers remove a consumer that nobody reads
)

const opRead = "read hub"

// reader is one Read in progress.
type reader struct {
	p    *partition
	from uint64 // the next message
	last string // the id of the message before, if this Read delivered it
	fn   func(hub.Message) error
}

// Read implements hub.Hub.
func (l *log) Read(ctx context.Context, partition int, from uint64, fn func(hub.Message) error) error {
	p, err := l.partition(opRead, partition)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(l.errClosed(opRead)) })()
	if l.closed() {
		cancel(l.errClosed(opRead))
	}
	r := &reader{p: p, from: max(from, 1), fn: fn}
	for pause := 50 * time.Millisecond; ; {
		before := r.from
		err := r.pass(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var end stopped
		if errors.As(err, &end) {
			return end.error
		}
		if errors.Is(err, jetstream.ErrNoHeartbeat) {
			l.probe(ctx)
		}
		l.slog.Debug("reading goes on with a new consumer", "stream", p.stream, "from", r.from, "why", err)
		if r.from > before {
			pause = 50 * time.Millisecond
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, 2*time.Second)
	}
}

// stopped is an error that ends a Read.
type stopped struct{ error }

// pass reads with one consumer until something happens to it. It begins with the last
// message that was delivered, to see that the stream is still the same one.
func (r *reader) pass(ctx context.Context) error {
	p := r.p
	start := r.from
	if r.last != "" {
		start--
	}
	limited, cancel := context.WithTimeout(ctx, apiLimit)
	defer cancel()
	c, err := p.log.js.CreateConsumer(limited, p.stream, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: start, AckPolicy: jetstream.AckNonePolicy,
		InactiveThreshold: forgetAfter, Replicas: 1, MemoryStorage: true})
	if err != nil {
		return err
	}
	defer p.forget(c.CachedInfo().Name)
	info, err := p.info(ctx)
	if err != nil {
		return err
	}
	if r.last != "" && info.State.LastSeq+1 < r.from {
		return stopped{fleetscore.Errorf(fleetscore.Unavailable, opRead, p.stream, "the stream ends at message %d, before message %d that is to be read", info.State.LastSeq, r.from)}
	}
	messages, err := c.Messages(jetstream.PullMaxMessagesWithBytesLimit(aheadMessages, aheadBytes), jetstream.PullHeartbeat(heartbeat), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for number := uint64(1); ; number++ {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Consumer != number {
			return fmt.Errorf("message %d of the consumer came in place of message %d", meta.Sequence.Consumer, number)
		}
		if err := r.take(m, meta.Sequence.Stream); err != nil {
			return err
		}
	}
}

// take delivers a message.
func (r *reader) take(m jetstream.Msg, seq uint64) error {
	p := r.p
	id := m.Headers().Get(jetstream.MsgIDHeader)
	if seq < r.from {
		if id != r.last {
			return stopped{fleetscore.Errorf(fleetscore.Unavailable, opRead, p.stream, "message %d isn't the one that was read before: the stream was replaced", seq)}
		}
		return nil
	}
	stamp, readings, err := hub.Decode(m.Data())
	if fleetscore.Corrupt.Is(err) {
		p.damaged(seq, err)
		r.from, r.last = seq+1, id
		return nil
	}
	if err != nil {
		return stopped{fleetscore.Wrap(opRead, fmt.Sprintf("%s message %d", p.stream, seq), err)}
	}
	r.from, r.last = seq+1, id
	p.noteSeen(seq)
	err = r.fn(hub.Message{Stamp: stamp, Partition: p.index, Seq: seq, Epoch: p.epochOf(m.Subject()), Tick: readings == nil, Readings: readings})
	if err != nil {
		return stopped{err}
	}
	return nil
}

// forget removes a consumer. If it fails, the servers remove the consumer themselves
// after a while.
func (p *partition) forget(name string) {
	if p.log.closed() {
		return
	}
	p.log.background.Go(func() {
		ctx, cancel := context.WithTimeout(p.log.ctx, apiLimit)
		defer cancel()
		_ = p.log.js.DeleteConsumer(ctx, p.stream, name)
	})
}
