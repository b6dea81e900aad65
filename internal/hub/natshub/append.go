package natshub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// windowBytes is how much of an append is published before it waits for answers. A NATS
// server refuses messages when more than 128 MB wait for one stream.
const windowBytes = 32 << 20

const opAppend = "append to hub"

// message is one message of an append.
type message struct {
	id   string
	data []byte
	seq  uint64 // 0 until it was acknowledged
}

// newMessageID returns an id that no other message of any process has.
func newMessageID() string { return fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()) }

// Append implements hub.Hub. Readings that are too large for one message of NATS are
// divided into several.
func (l *log) Append(ctx context.Context, partition int, stamp hub.Stamp, readings ...*fleetscore.Readings) (uint64, error) {
	p, err := l.partition(opAppend, partition)
	if err != nil {
		return 0, err
	}
	if len(readings) == 0 {
		readings = []*fleetscore.Readings{nil}
	}
	var messages []*message
	for _, r := range readings {
		if messages, err = l.encode(messages, stamp, r); err != nil {
			return 0, err
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, fleetscore.Wrap(opAppend, p.stream, err)
	}
	if l.closed() {
		return 0, l.errClosed(opAppend)
	}
	limit := answerLimit
	if l.failed(p) { // while nothing works, requests don't wait for long
		limit = silentLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = p.append(ctx, messages)
	if l.closed() && err != nil {
		return 0, l.errClosed(opAppend)
	}
	l.wrote(p, err)
	if err != nil {
		err = l.failure(opAppend, p.stream, err)
		if fleetscore.Unavailable.Is(err) {
			var e *fleetscore.Error
			if errors.As(err, &e) && e.Hint == "" {
				err = e.WithHint("send the readings again; repeated readings count once")
			}
		}
		return 0, err
	}
	last := uint64(0)
	for _, m := range messages {
		last = max(last, m.seq)
	}
	return last, nil
}

// encode appends the messages of some readings to the list.
func (l *log) encode(list []*message, stamp hub.Stamp, r *fleetscore.Readings) ([]*message, error) {
	data, err := hub.Marshal(nil, l.cfg.Name, stamp, r)
	if err != nil {
		return list, err
	}
	if len(data) <= l.maxBytes {
		return append(list, &message{id: newMessageID(), data: data}), nil
	}
	if r.Len() < 2 {
		return list, fleetscore.Errorf(fleetscore.Invalid, opAppend, l.cfg.Name, "a reading of %d bytes is over the %d bytes that a message of the NATS servers can hold", len(data), l.maxBytes).
			WithHint("raise max_payload in the configuration of the NATS servers")
	}
	first := stamp
	first.Position = "" // it is true only once the second half is stored
	if list, err = l.encode(list, first, part(r, 0, r.Len()/2)); err != nil {
		return list, err
	}
	return l.encode(list, stamp, part(r, r.Len()/2, r.Len()))
}

// part returns the readings from one index to another. It shares memory with r.
func part(r *fleetscore.Readings, from, to int) *fleetscore.Readings {
	out := &fleetscore.Readings{Times: r.Times[from:to]}
	index := make(map[uint32]uint32, to-from)
	for _, k := range r.KeyIndex[from:to] {
		at, ok := index[k]
		if !ok {
			at = uint32(len(out.Keys))
			index[k] = at
			out.Keys = append(out.Keys, r.Keys[k])
		}
		out.KeyIndex = append(out.KeyIndex, at)
	}
	if r.IDs != nil {
		out.IDs = r.IDs[from:to]
	}
	for _, c := range r.Columns {
		if c.Numbers != nil {
			c.Numbers = c.Numbers[from:to]
		}
		if c.Strings != nil {
			c.Strings = c.Strings[from:to]
		}
		if c.Present != nil {
			c.Present = c.Present[from:to]
		}
		out.Columns = append(out.Columns, c)
	}
	return out
}

// append publishes messages until all are acknowledged, ctx ends, or an error comes that
// a repeat doesn't cure.
func (p *partition) append(ctx context.Context, messages []*message) error {
	pause := 50 * time.Millisecond
	for {
		err := p.log.away()
		if err != nil {
			return err
		}
		if err = p.send(ctx, messages); err == nil {
			return nil
		}
		p.renew()
		if !repeats(err) || ctx.Err() != nil {
			return err
		}
		if errors.Is(err, errSilent) {
			p.log.probe(ctx)
		}
		p.log.slog.Debug("messages are published again", "stream", p.stream, "error", err)
		if errors.Is(err, jetstream.ErrNoStreamResponse) {
			if err := p.missing(ctx); err != nil {
				p.log.slog.Debug("the stream can't be made yet", "stream", p.stream, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return err
		case <-p.log.ctx.Done():
			return err
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

// missing makes the stream if it doesn't exist. While a cluster agrees on a leader nobody
// answers this question, so it doesn't wait for long.
func (p *partition) missing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return p.ensure(ctx)
}

var (
	errSilent  = errors.New("the NATS servers didn't acknowledge a message in time")
	errGoneEnd = errors.New("the stream lost its end")
)

// repeats reports whether publishing again may help.
func repeats(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		full := []jetstream.ErrorCode{errAccount, errResources, errMemory, errStorage, errStore}
		return api.Code == 503 && !slices.Contains(full, api.ErrorCode) || api.Code == 429 || api.ErrorCode == errInProcess
	}
	return !errors.Is(err, nats.ErrMaxPayload)
}

// errInProcess says that the same message is being stored.
const errInProcess jetstream.ErrorCode = 10158

// send publishes the messages that weren't acknowledged yet, and waits for the answers.
func (p *partition) send(ctx context.Context, messages []*message) error {
	for len(messages) > 0 {
		n, size := 0, 0
		for n < len(messages) && (n == 0 || size+len(messages[n].data) <= windowBytes) {
			size += len(messages[n].data)
			n++
		}
		if err := p.sendWindow(ctx, messages[:n]); err != nil {
			return err
		}
		messages = messages[n:]
	}
	return nil
}

func (p *partition) sendWindow(ctx context.Context, messages []*message) error {
	futures, floor, err := p.publish(ctx, messages)
	silent := time.NewTimer(silentLimit)
	defer silent.Stop()
	for i, f := range futures {
		if f == nil {
			continue
		}
		select {
		case ack := <-f.Ok():
			silent.Reset(silentLimit)
			if ack.Sequence <= floor && !ack.Duplicate {
				err = p.shortened(messages, ack.Sequence, floor)
				continue
			}
			messages[i].seq = ack.Sequence
			p.noteSeen(ack.Sequence)
		case e := <-f.Err():
			err = e
		case <-silent.C:
			return errSilent
		case <-ctx.Done():
			return ctx.Err()
		case <-p.log.ctx.Done():
			return errSilent
		}
	}
	return err
}

// publish sends the messages that aren't acknowledged. floor is the highest sequence that
// the stream is known to have had before.
func (p *partition) publish(ctx context.Context, messages []*message) (futures []jetstream.PubAckFuture, floor uint64, err error) {
	select {
	case p.order <- struct{}{}:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	defer func() { <-p.order }()
	p.mu.Lock()
	epoch, floor := p.epoch, p.seen
	p.mu.Unlock()
	futures = make([]jetstream.PubAckFuture, len(messages))
	for i, m := range messages {
		if m.seq != 0 {
			continue
		}
		futures[i], err = p.log.js.PublishMsgAsync(&nats.Msg{Subject: p.subject(epoch), Data: m.data},
			jetstream.WithMsgID(m.id), jetstream.WithExpectStream(p.stream), jetstream.WithRetryAttempts(0))
		if err != nil {
			futures[i] = nil
			return futures, floor, err
		}
	}
	return futures, floor, nil
}

// shortened notes that the stream has an earlier end than before, as after the restore of
// an older copy. The messages of this append are stored again, in another epoch, because
// readers may take the sequence of this one for a message that they know.
func (p *partition) shortened(messages []*message, now, before uint64) error {
	for _, m := range messages {
		m.id, m.seq = newMessageID(), 0
	}
	p.mu.Lock()
	first := p.seen == before
	p.seen = 0
	p.mu.Unlock()
	p.noteSeen(now)
	if first {
		p.log.problem("partition %d: the stream %s went back: messages %d to %d that it had are lost", p.index, p.stream, now, before)
	}
	return fmt.Errorf("%w: message %d was stored before, now %d", errGoneEnd, before, now)
}
