package simtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// weather is how likely what goes wrong.
type weather struct {
	slow                    float64 // a request takes long
	ledgerFails, ledgerLost float64
	storeFails, storeLost   float64 // storeLost: it was written, and says that it wasn't
	messageFails            float64 // on the way there or back
	messageHangs            float64
	messageTwice            float64
	startFails              float64
}

// calm is when nothing goes wrong.
var calm weather

// draw makes a weather, mostly with a few faults of some kinds.
func draw(rnd *rand.Rand) weather {
	some := func(most float64) float64 {
		switch rnd.IntN(4) {
		case 0:
			return most * rnd.Float64()
		case 1:
			return most * rnd.Float64() / 5
		}
		return 0
	}
	return weather{slow: some(0.3), ledgerFails: some(0.1), ledgerLost: some(0.1), storeFails: some(0.1), storeLost: some(0.2),
		messageFails: some(0.3), messageHangs: some(0.1), messageTwice: some(0.3), startFails: some(0.5)}
}

// odds decides about one request.
func (w *world) odds(rnd *rand.Rand, r *request) (time.Duration, fate) {
	x := w.weather
	kind, op, _ := strings.Cut(r.kind, " ")
	if w.trapped(r) {
		return 0, fatal
	}
	delay := time.Duration(rnd.Int64N(int64(2 * time.Millisecond)))
	if rnd.Float64() < x.slow {
		delay = time.Duration(rnd.Int64N(int64(2 * time.Second)))
		if rnd.IntN(20) == 0 && kind != "ledger" {
			delay *= 10
		}
	}
	luck := rnd.Float64()
	under := func(p float64) bool {
		luck -= p
		return luck < 0
	}
	done := strings.HasSuffix(op, " done")
	switch {
	case kind == "ledger" && done && under(x.ledgerLost), kind == "ledger" && !done && under(x.ledgerFails):
		return delay, failed
	case kind == "store" && done && under(x.storeLost), kind == "store" && !done && under(x.storeFails):
		if op == "get" && rnd.IntN(2) == 0 {
			return delay, broken
		}
		return delay, failed
	case (kind == "message" || kind == "answer") && w.isSeparated(r.by.name):
		return delay, lost
	case (kind == "message" || kind == "answer") && under(x.messageFails):
		return delay, failed
	case (kind == "message" || kind == "answer") && under(x.messageHangs):
		return delay, lost
	case kind == "message" && under(x.messageTwice):
		return delay, twice
	case kind == "repeated":
		return delay * time.Duration(1+rnd.IntN(20000)), served // up to half a minute later, mostly
	case r.kind == "start node" && under(x.startFails/2):
		return delay, failed
	case kind == "boot" && under(x.startFails/4):
		return delay, broken
	case kind == "boot" && under(x.startFails/4):
		return delay, lost
	case kind == "boot":
		return delay + time.Duration(rnd.Int64N(int64(3*time.Second))), served
	}
	return delay, served
}

// play is the run's script: some minutes in which anything can happen, and then a
// calm in which everything has to come to its end. It says what doesn't.
func (w *world) play(ctx context.Context) error {
	if err := w.start(); err != nil {
		return err
	}
	length := 3*time.Minute + time.Duration(w.rnd.Int64N(int64(3*time.Minute)))
	end := w.began.Add(length)
	fed := make(chan struct{})
	ctx, giveUp := context.WithCancel(ctx)
	go func() {
		defer close(fed)
		w.feed(ctx)
	}()
	defer func() { giveUp(); <-fed }()
	for n := 3 + w.rnd.IntN(10); n > 0; n-- {
		left := time.Until(end)
		if left <= 0 {
			break
		}
		time.Sleep(time.Duration(w.rnd.Int64N(int64(2*left)/int64(n) + 1)))
		if err := w.act(ctx); err != nil {
			return err
		}
	}
	time.Sleep(time.Until(end))
	return w.settle(ctx, fed)
}

// act lets one thing happen.
func (w *world) act(ctx context.Context) error {
	switch s := w.up(); w.rnd.IntN(14) {
	case 0, 1: // the server is killed, and comes back
		if s != nil {
			w.kill(s)
			time.Sleep(time.Duration(w.rnd.Int64N(int64(20 * time.Second))))
			return w.start()
		}
	case 2: // it is restarted
		if s != nil {
			w.conductor.note("stop of " + s.process.name)
			s.stop()
			<-s.done
			time.Sleep(time.Duration(w.rnd.Int64N(int64(5 * time.Second))))
			return w.start()
		}
	case 3: // a node is killed, or all are
		ids := w.runningNodes()
		for i, id := range ids {
			if i == 0 || w.rnd.IntN(2) == 0 {
				w.conductor.note("kill of " + string(id))
				w.nodes.Kill(id)
			}
		}
	case 4: // nodes are cut off for a while
		ids := w.runningNodes()
		w.conductor.note(fmt.Sprint("nodes cut off: ", ids))
		w.separate(ids, true)
		time.Sleep(time.Duration(w.rnd.Int64N(int64(time.Minute))))
		w.separate(ids, false)
		w.conductor.note("nodes joined")
	case 5: // somebody scores what is next, or again what was
		if s != nil {
			name := w.pipelines[w.rnd.IntN(len(w.pipelines))]
			var iv *fleetscore.Interval
			if w.rnd.IntN(3) > 0 {
				from := w.began.Truncate(time.Minute).Add(time.Duration(w.rnd.IntN(3)) * time.Minute).Add(-30 * time.Second) // by hand: at half minutes
				iv = &fleetscore.Interval{From: from, To: from.Add(time.Duration(1+w.rnd.IntN(2)) * time.Minute)}
			}
			j, err := s.scheduler.Submit(ctx, name, iv)
			w.conductor.note(fmt.Sprint("submit of ", j.ID, " ", iv, ": ", err))
		}
	case 6: // a job is canceled
		if s != nil {
			jobs, err := w.ledger.Jobs(ctx, ledger.JobFilter{States: active})
			if err != nil {
				return err
			}
			if len(jobs) > 0 {
				id := jobs[w.rnd.IntN(len(jobs))].ID
				_, err := s.scheduler.Cancel(ctx, id)
				w.conductor.note(fmt.Sprint("cancel of ", id, ": ", err))
			}
		}
	case 7: // models change
		kind := []string{"good", "wild"}[w.rnd.IntN(2)]
		w.conductor.note("models become " + kind)
		return w.writeModels(ctx, kind)
	case 8: // the weather changes
		w.weather = draw(w.rnd)
		w.conductor.note(fmt.Sprintf("weather becomes %+v", w.weather))
	case 9, 10, 11: // the server dies in the middle of its work, and comes back
		if s != nil {
			kinds := []string{"store put", "store put done", "ledger PlanJob done", "ledger EndAttempt", "ledger EndAttempt done", "ledger UpdateJob", "ledger UpdateJob done",
				"ledger DecideSchedule done", "ledger LeaseTasks done", "ledger UpdateNode done", "start node"}
			if w.ambush(&trap{kind: kinds[w.rnd.IntN(len(kinds))], left: w.rnd.IntN(5)}) {
				<-s.done
				time.Sleep(time.Duration(w.rnd.Int64N(int64(10 * time.Second))))
				return w.start()
			}
		}
	case 12: // a node dies in the middle of its work
		kinds := []string{"store put", "store put done", "message complete", "answer complete", "answer lease", "answer register", "message log", "boot"}
		w.ambush(&trap{node: true, kind: kinds[w.rnd.IntN(len(kinds))], left: w.rnd.IntN(3)})
	case 13: // many submit at once, when due times come
		if s != nil {
			at := time.Now().Truncate(time.Minute).Add(time.Minute)
			time.Sleep(time.Until(at.Add(time.Duration(w.rnd.Int64N(int64(6*time.Millisecond))) - 3*time.Millisecond)))
			var all sync.WaitGroup
			for range 3 {
				name := w.pipelines[w.rnd.IntN(len(w.pipelines))]
				all.Go(func() { _, _ = s.scheduler.Submit(ctx, name, nil) }) // one may win
			}
			all.Wait()
		}
	}
	return nil
}

// ambush sets a trap and waits for a while. It tells whether somebody was caught.
func (w *world) ambush(t *trap) bool {
	w.conductor.note(fmt.Sprintf("trap: node %v, %s after %d others", t.node, t.kind, t.left))
	t.struck = make(chan struct{})
	w.mu.Lock()
	w.trap = t
	w.mu.Unlock()
	select {
	case <-t.struck:
		return true
	case <-time.After(time.Duration(w.rnd.Int64N(int64(70 * time.Second)))):
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.trap != t {
		return true
	}
	w.trap = nil
	return false
}

// active are the states of jobs that haven't ended.
var active = []fleetscore.JobState{fleetscore.JobWaiting, fleetscore.JobQueued, fleetscore.JobRunning, fleetscore.JobCommitting}

// patience is how long things may take to come to their end in the calm: leases of
// nodes that were lost, waits of half a minute after failures, nodes that wait for
// two minutes for a server.
const patience = 10 * time.Minute

// settle ends the run: nothing goes wrong any more, no new jobs come, and all that
// was begun has to end.
func (w *world) settle(ctx context.Context, fed <-chan struct{}) error {
	w.weather = calm
	w.conductor.note("calm")
	if w.up() == nil {
		if err := w.start(); err != nil {
			return err
		}
	}
	if _, err := w.ledger.PutConfig(ctx, "no schedules", w.config(false)); err != nil {
		return err
	}
	w.mu.Lock()
	w.lastMinute = time.Now().Truncate(time.Minute).Add(time.Minute) // beyond what any job waits for
	w.mu.Unlock()
	<-fed
	if err := w.wait("all jobs have ended", func() (bool, string, error) {
		jobs, err := w.ledger.Jobs(ctx, ledger.JobFilter{States: active})
		state := ""
		for _, j := range jobs {
			state += fmt.Sprintf("; job %s is %s (%s)", j.ID, j.State, j.Reason)
		}
		return len(jobs) == 0, state, err
	}); err != nil {
		return err
	}
	if err := w.wait("all nodes have ended", func() (bool, string, error) {
		ids := w.runningNodes()
		return len(ids) == 0, fmt.Sprint(ids, " run"), nil
	}); err != nil {
		return err
	}
	time.Sleep(40 * time.Second) // for what comes late
	w.conductor.note("the end")
	s := w.up()
	s.stop()
	<-s.done
	return nil
}

// wait waits until something holds.
func (w *world) wait(what string, holds func() (bool, string, error)) error {
	for end := time.Now().Add(patience); ; time.Sleep(time.Second) {
		ok, state, err := holds()
		switch {
		case err != nil:
			return err
		case ok:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("in %s of calm it never came that %s%s", patience, what, state)
		}
	}
}
