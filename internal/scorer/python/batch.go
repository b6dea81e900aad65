package python

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleetscore/fleetscore/internal/scorer"
)

// look is how often the position of a worker is looked at, so that a sensor's time is known to a hundredth of its limit.
func look(limit time.Duration) time.Duration {
	return min(max(limit/100, 5*time.Millisecond), 50*time.Millisecond)
}

// slow is how long a sensor may take until the others of its request are given to another process, if one is free.
func slow(limit time.Duration) time.Duration { return limit / 20 }

// score sends a part and reads the answers. ended is called with the numbers of the
// request. late is called from time to time while a sensor takes long, until it returns true. An error means that the
// process can't be used on, because it answered nonsense.
func (w *process) score(ctx context.Context, b part, ended func(k int, e scorer.Ended), late func() bool) (end outcome, err error) {
	req, body, err := b.request(w.parent.models)
	if err != nil {
		return end, err
	}
	w.setPosition(-1)
	w.goOn(true)
	w.said.begin(b)
	defer w.said.end()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_ = writeFrame(w.requests, req, body...) // if it fails, no answer comes, which says why
	}()
	watching := make(chan struct{})
	watched := make(chan bool, 1)
	go func() { watched <- w.watch(ctx, b.Timeout, late, watching) }()
	err = w.read(b, &end, ended)
	var broken *nonsense
	if errors.As(err, &broken) || err != nil && ctx.Err() != nil {
		w.signal()
	}
	close(watching)
	end.hung = <-watched
	if err != nil {
		w.finish() // the pipe's end says that the process is ending; what it printed has been read then
		end.at = w.position()
	}
	<-sent
	if broken != nil && !end.hung {
		return end, broken
	}
	end.died = err != nil && !end.hung
	return end, nil
}

// watch kills the process when a sensor takes longer than the limit, and says so.
//
// The time in which modules are imported for the first time doesn't count, because it isn't
// the model's; it has the limit of a start.
func (w *process) watch(ctx context.Context, limit time.Duration, late func() bool, done <-chan struct{}) bool {
	tick := time.NewTicker(look(limit))
	defer tick.Stop()
	at, since := w.position(), w.now()
	var imports time.Duration // since then
	last := since
	told := false
	for {
		select {
		case <-done:
			return false
		case <-ctx.Done():
			w.signal()
			return false
		case <-tick.C:
		}
		now, passed := w.position(), w.now().Sub(last)
		last = last.Add(passed)
		if w.importing() {
			imports += passed
		}
		switch {
		case now != at:
			at, since, imports = now, last, 0
		case now == -1 && last.Sub(since) <= w.startLimit: // it reads the batch or sends answers
		case last.Sub(since)-imports > limit, imports > w.startLimit:
			w.signal()
			return true
		case now >= 0 && !told && last.Sub(since)-imports > slow(limit):
			told = late()
		}
	}
}

// nonsense is an answer that no worker gives: the process was changed by what it runs.
type nonsense struct{ error }

// read reads answers until the last one.
func (w *process) read(b part, end *outcome, ended func(k int, e scorer.Ended)) error {
	rows := 0
	for _, i := range b.sensors {
		rows += b.Sensors[i].Rows
	}
	seen := make([]bool, len(b.sensors))
	for {
		h, body, err := readFrame(w.in, uint64(rows)*16)
		if err != nil {
			return err
		}
		prediction, score, err := values(body)
		if err != nil {
			return &nonsense{err}
		}
		if h.Printed != nil {
			w.said.add(*h.Printed)
			continue
		}
		if h.Error != nil {
			end.refused, end.at = h.Error, -2
			b.Log("%s", h.Error.Trace)
			return nil
		}
		for _, s := range h.Keys {
			if s.Key == -1 {
				end.refused, end.at = s.Error, -2
				b.Log("%s", s.Error.Trace)
				continue
			}
			if s.Key < 0 || s.Key >= len(seen) || seen[s.Key] || s.Rows < 0 || s.Rows > len(prediction) {
				return &nonsense{fmt.Errorf("an answer names sensor %d with %d rows", s.Key, s.Rows)}
			}
			seen[s.Key] = true
			e := scorer.Ended{Detector: s.Detector, Prediction: prediction[:s.Rows], Score: score[:s.Rows], Loading: duration(s.Load), Scoring: duration(s.Score)}
			prediction, score = prediction[s.Rows:], score[s.Rows:]
			key := b.Sensors[b.sensors[s.Key]].Key
			if s.Error != nil {
				e.Err = s.Error
				if s.Loading {
					e.Err = fmt.Errorf("the model can't be loaded by Python: %w", s.Error)
				}
				if s.Error.Trace != "" {
					b.Log("%s: %s", key, s.Error.Trace)
				}
			}
			ended(s.Key, e)
		}
		w.pool.learn(h.Imported)
		if h.End {
			return nil
		}
	}
}
