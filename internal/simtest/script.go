package simtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
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
	ledgerSlow              float64 // as a disk that others use
	storeFails, storeLost   float64 // storeLost: it was written, and says that it wasn't
	storeHangs              float64 // it never answers, whether it did what was asked or not
	storeLate, storeAgain   float64 // of commits: see the fates
	hubFails                float64 // also after the hub has synced what it was given
	messageFails            float64 // on the way there or back
	messageHangs            float64
	messageTwice            float64
	startFails              float64
	machineFails            float64 // the commands that start, stop and list machines
	machineLies             float64
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
		ledgerSlow: some(0.1), storeHangs: some(0.02), hubFails: some(0.1), storeLate: some(0.4), storeAgain: some(0.5),
		messageFails: some(0.3), messageHangs: some(0.1), messageTwice: some(0.3), startFails: some(0.5), machineFails: some(0.4), machineLies: some(0.4)}
}

// odds decides about one request.
func (w *world) odds(rnd *rand.Rand, r *request) (time.Duration, fate) {
	x := w.weather
	kind, op, _ := strings.Cut(r.kind, " ")
	if w.trapped(r) {
		if w.frozen(r.by) {
			return 0, served // when it wakes
		}
		return 0, fatal
	}
	delay := time.Duration(rnd.Int64N(int64(2 * time.Millisecond)))
	if rnd.Float64() < x.slow {
		delay = time.Duration(rnd.Int64N(int64(2 * time.Second)))
		if rnd.IntN(20) == 0 && kind != "ledger" {
			delay *= 10
		}
	}
	if kind == "ledger" && rnd.Float64() < x.ledgerSlow {
		delay = time.Duration(rnd.Int64N(int64(10 * time.Second)))
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
	case kind == "store" && under(x.storeHangs):
		return delay, lost
	case r.kind == "store create" && under(x.storeLate):
		return delay, late
	case r.kind == "store create done" && under(x.storeAgain):
		return delay, again
	case kind == "late": // up to a minute
		return delay * time.Duration(1+rnd.IntN(30000)), served
	case kind == "hub" && under(x.hubFails):
		return delay, failed
	case w.isHeld(r):
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
	case kind == "machine" && under(x.machineFails):
		return delay, failed
	case kind == "machine" && under(x.machineFails/2):
		return delay, broken
	case kind == "machine" && under(x.machineLies):
		return delay, late
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
	if w.rnd.IntN(3) > 0 {
		w.weather = draw(w.rnd)
	}
	if err := w.startAll(); err != nil {
		return err
	}
	length := 3*time.Minute + time.Duration(w.rnd.Int64N(int64(3*time.Minute)))
	end := w.began.Add(length)
	fed := make(chan struct{})
	ctx, giveUp := context.WithCancel(ctx)
	lends := rand.New(rand.NewPCG(w.rnd.Uint64(), 5))
	go func() {
		defer close(fed)
		var all sync.WaitGroup
		all.Go(func() { w.feed(ctx) })
		all.Go(func() { w.revise(ctx) })
		all.Go(func() { w.browse(ctx) })
		if w.low > 0 {
			all.Go(func() {
				if err := w.lend(ctx, lends); err != nil {
					w.record.problem("nodes can't be listed: %v", err)
				}
			})
		}
		if w.streams() {
			all.Go(func() { w.devicesSend(ctx) })
		}
		all.Wait()
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
	close(w.calmed)
	w.conductor.note("calm")
	w.off.Store(0)
	time.Sleep(15 * time.Second) // a server that has just started decides the due times that came before
	if _, err := w.ledger.PutConfig(ctx, time.Now(), "no schedules", w.config(false, w.pipelines)); err != nil {
		return err
	}
	time.Sleep(10 * time.Second) // until the schedules' loops have seen it
	last := time.Now()
	jobs, err := w.ledger.Jobs(ctx, ledger.JobFilter{States: active})
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if j.Interval.To.After(last) { // by a clock that was ahead
			last = j.Interval.To
		}
	}
	w.mu.Lock()
	w.lastMinute = last.Truncate(time.Minute).Add(time.Minute) // beyond what any job waits for
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
	if w.streams() {
		if err := w.wait("the query's dataset is complete", w.complete(ctx, time.Now().Add(time.Minute))); err != nil {
			return err
		}
		if err := w.wait("what late readings changed is scored again", w.rescored(ctx)); err != nil {
			return err
		}
	}
	if err := w.wait("all nodes have ended", func() (bool, string, error) {
		ids := w.runningNodes()
		return len(ids) == 0, fmt.Sprint(ids, " run"), nil
	}); err != nil {
		return err
	}
	if err := w.wait("all machines are gone", func() (bool, string, error) {
		left := w.machinesLeft()
		return len(left) == 0, fmt.Sprint(": ", left, " exist"), nil
	}); err != nil {
		return err
	}
	time.Sleep(40 * time.Second)                                                               // for what comes late
	if err := w.wait("the nodes of late messages are given up", func() (bool, string, error) { // one that came again may say that a node is there
		nodes, err := w.ledger.Nodes(ctx, "")
		left := slices.DeleteFunc(nodes, func(n fleetscore.Node) bool { return n.State.Ended() })
		return len(left) == 0, fmt.Sprintf(": %d are expected to work", len(left)), err
	}); err != nil {
		return err
	}
	w.conductor.note("the end")
	for s := w.first(); s != nil; s = w.first() {
		s.stop()
		<-s.done
	}
	w.closeHub()
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
			return fmt.Errorf("promises are broken:\nin %s of calm it never came that %s%s", patience, what, state)
		}
	}
}
