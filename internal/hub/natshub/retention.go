package natshub

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// trim removes old messages now and then, until the hub is closed.
func (l *log) trim() {
	ticker := time.NewTicker(max(100*time.Millisecond, min(l.cfg.Retention/10, time.Minute)))
	defer ticker.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-ticker.C:
		}
		for _, p := range l.partitions {
			if err := p.trim(l.ctx); err != nil && !l.closed() {
				l.slog.Warn("old messages of the hub can't be removed yet", "stream", p.stream, "error", err)
				break
			}
		}
	}
}

// trim removes the messages that are older than the retention and not needed.
func (p *partition) trim(ctx context.Context) error {
	needed := p.log.needed(p.index)
	if needed == 0 { // the queries run in another process, or don't know their positions yet
		p.log.warnings.Overdue(p.index, 0)
		return nil
	}
	info, err := p.info(ctx)
	if err != nil {
		return err
	}
	s := info.State
	if s.Msgs == 0 {
		return nil
	}
	cutoff := fleetscore.MicrosOf(p.log.now()) - fleetscore.Micros(p.log.cfg.Retention.Microseconds())
	young, err := p.firstSince(ctx, s.FirstSeq, s.LastSeq, cutoff)
	if err != nil {
		return err
	}
	overdue := int64(0)
	if needed < young {
		overdue = int64(float64(s.Bytes) * float64(young-max(needed, s.FirstSeq)) / float64(s.LastSeq+1-s.FirstSeq))
	}
	p.log.warnings.Overdue(p.index, overdue)
	keep := min(young, needed)
	if keep <= s.FirstSeq {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, apiLimit)
	defer cancel()
	stream, err := p.log.js.Stream(ctx, p.stream)
	if err != nil {
		return err
	}
	return stream.Purge(ctx, jetstream.WithPurgeSequence(keep))
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
