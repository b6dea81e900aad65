package python

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/fleetscore/fleetscore/internal/scorer"
)

// scoring is one call of Score: the parts of a batch, which several processes score at the same time, as far as
// they are free.
type scoring struct {
	*Pool
	whole   part
	running sync.WaitGroup // of parts

	mu    sync.Mutex // held while ended is called, and guards what requests have to do
	ended func(sensor int, e scorer.Ended)
}

// work is what is left to do of a batch.
type work struct {
	sensors []int
	suspect bool // a process ended while it scored this sensor, which now gets a fresh one
	turn    bool // it has one of the pool's turns already
}

// Score implements scorer.Foreign.
func (p *Pool) Score(ctx context.Context, b *scorer.Batch, ended func(sensor int, e scorer.Ended)) error {
	s := &scoring{Pool: p, whole: part{Batch: b, starts: make([]int, len(b.Sensors)+1)}, ended: ended}
	for i := range b.Sensors {
		s.whole.starts[i+1] = s.whole.starts[i] + b.Sensors[i].Rows
		s.whole.sensors = append(s.whole.sensors, i)
	}
	s.start(ctx, p.cut(s.whole.sensors)...)
	s.running.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// start scores parts, each as soon as there is a process for it.
func (s *scoring) start(ctx context.Context, parts ...work) {
	for _, part := range parts {
		s.running.Go(func() { s.start(ctx, s.do(ctx, part)...) })
	}
}

// do scores a part, and gives what is still to be done of it.
func (s *scoring) do(ctx context.Context, next work) (todo []work) {
	w, err := s.take(ctx, next.suspect, next.turn)
	switch {
	case err == nil && ctx.Err() != nil:
		s.give(w)
		return nil
	case ctx.Err() != nil:
		return nil
	case err != nil:
		s.unstarted(next.sensors, err)
		return nil
	}
	r := &request{scoring: s, process: w, part: s.whole, suspect: next.suspect, pending: map[int]bool{}}
	r.sensors, r.notes = s.fit(w, s.whole.Batch, next.sensors, s.end)
	usable := true
	if len(r.sensors) > 0 {
		todo, usable = r.run(ctx)
	}
	if usable {
		s.give(w)
	} else {
		s.drop(w)
	}
	return todo
}

// end tells how a sensor of the batch ended.
func (s *scoring) end(sensor int, e scorer.Ended) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended(sensor, e)
}

// unstarted ends sensors for which no process could be started.
func (s *scoring) unstarted(sensors []int, err error) {
	if t, ok := errors.AsType[*traced](err); ok {
		s.whole.Log("Python can't be started: %s", t.trace)
		err = t.error
	}
	for _, i := range sensors {
		s.end(i, scorer.Ended{Err: err})
	}
}

// cut cuts work for a script into calls as large as the last ones that were done in time.
func (p *Pool) cut(sensors []int) (out []work) {
	size := int(p.size.Load())
	if p.cfg.Script == "" || p.cfg.PerModel {
		size = len(sensors)
	}
	for n := 0; n < len(sensors); n += size {
		out = append(out, work{sensors: sensors[n:min(n+size, len(sensors))]})
	}
	return out
}

// outcome is how a request to a process ended.
type outcome struct {
	at      int64  // the worker's position when it ended early
	hung    bool   // it was killed because a sensor took too long
	died    bool   // it ended by itself
	refused *fault // the script raised; the process goes on
}

// request is a part that a process scores.
type request struct {
	*scoring
	part
	process *process
	suspect bool           // its one sensor has ended a process before, and has a fresh one now
	notes   map[int]string // what is said of sensors although they are scored
	pending map[int]bool   // those that have no result yet and weren't given away, by their numbers in the request; guarded by the scoring's lock
	stopped bool           // the process was told to score no further sensor; guarded likewise
}

// run has the process score the request. It returns what is still to be done, and whether the
// process can be used on.
func (r *request) run(ctx context.Context) (todo []work, usable bool) {
	for k := range r.sensors {
		r.pending[k] = true
	}
	w, began := r.process, r.cfg.Now()
	w.done += len(r.sensors)
	end, err := w.score(ctx, r.part, r.one, func() bool { return r.giveAway(ctx) })
	if ctx.Err() != nil {
		return nil, false
	}
	usable = err == nil && !end.hung && !end.died
	rest := r.left(-1)
	if len(rest) == 0 && usable {
		return nil, true
	}
	took := r.cfg.Now().Sub(began)
	var cause error
	switch {
	case end.hung:
		took = r.Timeout
		cause = fmt.Errorf("not done after %s; raise the time that a model may take if that is expected", r.Timeout)
	case end.refused != nil:
		cause = end.refused
	case end.died:
		w.signal() // what it left behind
		cause = &scorer.HarmError{Cause: w.cause()}
		r.Log("Python ended while it scored: %v", cause)
	case err == nil && r.stopped && len(rest) < len(r.sensors): // a process that has scored nothing isn't believed
		return []work{{sensors: rest}}, true
	case err == nil:
		cause = errors.New("its process answered without results of all sensors")
	default:
		cause = fmt.Errorf("what its process answered can't be understood: %w", err)
	}
	k := int(end.at)
	one := len(rest) == 1 && len(r.sensors) == 1
	switch {
	case one && (r.suspect || end.hung || end.refused != nil):
		r.one(0, scorer.Ended{Err: cause, TimedOut: end.hung, Scoring: took})
	case k >= 0 && r.pending[k] && end.hung:
		r.one(k, scorer.Ended{Err: cause, TimedOut: end.hung, Scoring: took})
	case one:
		return []work{{sensors: rest, suspect: true}}, usable
	case k >= 0 && r.pending[k]:
		// It is scored alone before it is blamed: another sensor, or the machine, may have done the harm.
		todo = append(todo, work{sensors: []int{r.sensors[k]}, suspect: true})
	case len(rest) > 1:
		return r.halves(rest, end.hung), usable
	}
	if rest := r.left(k); len(rest) > 0 {
		todo = append(todo, work{sensors: rest})
	}
	return todo, usable
}

// one ends a sensor by its number in the request, unless that is somebody else's by now.
func (r *request) one(k int, e scorer.Ended) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending[k] {
		delete(r.pending, k)
		e.Note = r.notes[r.sensors[k]]
		r.ended(r.sensors[k], e)
	}
}

// giveAway gives the other sensors of the request to another process, while this one takes long for one of them. It
// tells whether that is done: there may be no free turn.
func (r *request) giveAway(ctx context.Context) bool {
	select {
	case r.turns <- struct{}{}:
	default:
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	r.process.goOn(false)
	k := int(r.process.position())
	rest := r.others(k)
	if !r.pending[k] || len(rest) == 0 { // if it has gone on meanwhile, it ends here; what it scores it may also hide
		<-r.turns
		return true
	}
	for other := range r.pending {
		if other != k {
			delete(r.pending, other)
		}
	}
	r.start(ctx, work{sensors: rest, turn: true})
	return true
}

// left are the sensors but one that have no result yet, in order.
func (r *request) left(but int) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.others(but)
}

// others is left; the lock is held.
func (r *request) others(but int) (out []int) {
	for k, i := range r.sensors {
		if r.pending[k] && k != but {
			out = append(out, i)
		}
	}
	return out
}

// halves cuts what is left in two: nobody knows which of the sensors did the harm. A
// script that takes too long gets fewer sensors with each call from now on.
func (r *request) halves(rest []int, late bool) []work {
	half := (len(rest) + 1) / 2
	if late {
		r.size.Store(int64(half))
	}
	return []work{{sensors: rest[:half]}, {sensors: rest[half:]}}
}
