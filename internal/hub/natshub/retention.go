package natshub

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// trim removes old messages now and then, until the hub is closed.
func (l *log) trim() {
	every := max(100*time.Millisecond, min(l.cfg.Retention/10, time.Minute))
	if l.cfg.Size > 0 {
		every = min(every, 10*time.Second) // much may come in a minute
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	trouble := l.trouble()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-ticker.C:
		}
		switch err := l.trimAll(l.ctx); {
		case l.closed():
		case err != nil:
			trouble.Failed(slog.LevelWarn, "old messages of the hub can't be removed yet", l.failure("remove old messages", l.cfg.Name, err))
		default:
			trouble.Works("old messages of the hub can be removed again")
		}
	}
}

func (l *log) trimAll(ctx context.Context) error {
	states, sizes := make([]jetstream.StreamState, len(l.partitions)), make([]int64, len(l.partitions))
	for i, p := range l.partitions {
		info, err := p.info(ctx)
		if err != nil {
			return err
		}
		states[i], sizes[i] = info.State, int64(info.State.Bytes)
	}
	share := int64(math.MaxInt64)
	if l.cfg.Size > 0 {
		share = hub.Share(sizes, l.cfg.Size)
		if l.cfg.MaxBytes > 0 { // readings are refused there, so that there has to be some room
			share = min(share, l.cfg.MaxBytes/10*9)
		}
	}
	for i, p := range l.partitions {
		if err := p.trim(ctx, states[i], share); err != nil {
			return err
		}
	}
	return nil
}

// trim removes the messages that are older than the retention and not needed, then the oldest ones
// while the stream is larger than its share.
func (p *partition) trim(ctx context.Context, s jetstream.StreamState, share int64) error {
	needed := p.log.needed(p.index)
	if needed == 0 { // the queries run in another process, or don't know their positions yet
		p.log.warnings.Overdue(p.index, 0)
		return nil
	}
	if s.Msgs == 0 {
		return nil
	}
	cutoff := fleetscore.MicrosOf(p.log.now()) - fleetscore.Micros(p.log.cfg.Retention.Microseconds())
	young, err := p.firstSince(ctx, s.FirstSeq, s.LastSeq, cutoff)
	if err != nil {
		return err
	}
	if s, err = p.purge(ctx, s, min(young, needed)); err != nil {
		return err
	}
	for int64(s.Bytes) > share && s.FirstSeq < min(needed, s.LastSeq) {
		// Messages differ in size, and JetStream doesn't say how large the oldest are. So half of what
		// is too much goes, by the mean size, and then the stream's size is looked at again.
		n := max(1, (s.Bytes-uint64(share))/2*s.Msgs/s.Bytes)
		was := s.FirstSeq
		if s, err = p.purge(ctx, s, min(s.FirstSeq+n, needed, s.LastSeq)); err != nil {
			return err
		}
		if s.FirstSeq == was {
			break // somebody else changes the stream
		}
	}
	overdue := max(0, int64(s.Bytes)-share)
	if needed < young && s.Msgs > 0 {
		overdue = max(overdue, int64(float64(s.Bytes)*float64(young-max(needed, s.FirstSeq))/float64(s.LastSeq+1-s.FirstSeq)))
	}
	p.log.warnings.Overdue(p.index, overdue)
	return nil
}

// purge removes the messages before a sequence, and returns the stream's state.
func (p *partition) purge(ctx context.Context, s jetstream.StreamState, keep uint64) (jetstream.StreamState, error) {
	if keep <= s.FirstSeq {
		return s, nil
	}
	limited, cancel := context.WithTimeout(ctx, apiLimit)
	defer cancel()
	stream, err := p.log.js.Stream(limited, p.stream)
	if err == nil {
		err = stream.Purge(limited, jetstream.WithPurgeSequence(keep))
	}
	if err != nil {
		return s, err
	}
	info, err := p.info(ctx)
	if err != nil {
		return s, err
	}
	return info.State, nil
}

// firstSince finds the first message that arrived at a time or later, last+1 if there is
// none. Usually few messages are older, so it looks at steps that become longer, and
// then between the last two.
func (p *partition) firstSince(ctx context.Context, first, last uint64, since fleetscore.Micros) (uint64, error) {
	old, young := first-1, last+1 // old is older, young isn't
	for step := uint64(1); old+step < young; step *= 2 {
		older, err := p.older(ctx, old+step, since)
		if err != nil {
			return 0, err
		}
		if !older {
			young = old + step
			break
		}
		old += step
	}
	for old+1 < young {
		mid := old + (young-old)/2
		older, err := p.older(ctx, mid, since)
		if err != nil {
			return 0, err
		}
		if older {
			old = mid
		} else {
			young = mid
		}
	}
	return young, nil
}

// older reports whether a message arrived before a time. A message that is gone or
// can't be read counts as older.
func (p *partition) older(ctx context.Context, seq uint64, since fleetscore.Micros) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, apiLimit)
	defer cancel()
	stream, err := p.log.js.Stream(ctx, p.stream)
	if err != nil {
		return false, err
	}
	m, err := stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	} else if err != nil {
		return false, err
	}
	arrived, err := hub.ArrivalOf(m.Data)
	return err != nil || arrived < since, nil
}
