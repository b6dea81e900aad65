// Package device sends the readings of simulated devices, as devices do: in order, when they are due, and again
// until they are acknowledged. A Way is how they are sent: by HTTP, MQTT or Kafka.
//
// What is sent, and with which faults, package simulator decides. A Way isn't safe for concurrent use.
package device

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/simulator"
)

// Way is how readings are sent.
type Way interface {
	// Send sends readings in order. It returns how many of the first ones are acknowledged; an error of a
	// retryable kind if the others may be sent again.
	Send(context.Context, []simulator.Reading) (int, error)
	Close()
}

const (
	step      = 500 * time.Millisecond // the time between two sends
	most      = time.Minute            // the longest time of readings that are made before they are sent
	maxSend   = 5000                   // readings that are sent at once, far below what a server accepts
	sendLimit = 30 * time.Second       // for these
	awayAfter = time.Second            // how long a server may not answer before a message says so
)

// Run sends what a sender hands out from a time on, as fast as it is taken, and then when it is due, until the end, or without
// end if that is zero. It returns how many readings were acknowledged.
func Run(ctx context.Context, s *simulator.Sender, w Way, from, end time.Time, now func() time.Time, progress io.Writer) (acknowledged int64, err error) {
	for {
		to := now().UTC().Truncate(time.Millisecond)
		if to.Sub(from) > most {
			to = from.Add(most)
		}
		if !end.IsZero() && to.After(end) {
			to = end
		}
		batch := make([]simulator.Reading, 0, maxSend)
		for r := range s.Until(to) {
			if batch = append(batch, r); len(batch) == maxSend {
				if err := deliver(ctx, w, batch, now, progress, &acknowledged); err != nil {
					return acknowledged, err
				}
				batch = batch[:0]
			}
		}
		if err := deliver(ctx, w, batch, now, progress, &acknowledged); err != nil {
			return acknowledged, err
		}
		if from = to; !end.IsZero() && !to.Before(end) {
			return acknowledged, nil
		}
		if now().Sub(to) < step {
			select {
			case <-ctx.Done():
				return acknowledged, ctx.Err()
			case <-time.After(step):
			}
		}
	}
}

// deliver sends readings until they are acknowledged or refused for good. Repeats of a
// reading count once, so sending again is safe.
func deliver(ctx context.Context, w Way, batch []simulator.Reading, now func() time.Time, progress io.Writer, acknowledged *int64) error {
	wait, told, begun := 100*time.Millisecond, false, now()
	for len(batch) > 0 {
		limited, cancel := context.WithTimeout(ctx, sendLimit)
		n, err := w.Send(limited, batch)
		cancel()
		*acknowledged += int64(n)
		batch = batch[n:]
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !fleetscore.KindOf(err).Retryable() {
			return err
		}
		if !told && now().Sub(begun) > awayAfter {
			fmt.Fprintf(progress, "%v; trying again until it is there\n", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, 2*time.Second)
	}
	return nil
}
