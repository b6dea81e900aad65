package simtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
)

// act lets one thing happen. Every action leaves a server that runs.
func (w *world) act(ctx context.Context) error {
	actions := []func(context.Context, *server) error{w.crash, w.crash, w.restart, w.crashAtStep, w.crashAtStep, w.crashAtStep, w.killNodes, w.killNodeAtStep, w.cutOff,
		w.submit, w.submit, w.again, w.overtake, w.overtake, w.crowd, w.cancel, w.changeModels, w.changeWeather, w.jump, w.takeOut, w.repeat,
		w.outage, w.pause, w.trigger, w.trigger, w.backfill, w.rerun, w.rerun}
	if w.several {
		actions = append(actions, w.freeze, w.freeze, w.crash, w.freezeAtStep, w.freezeAtStep, w.freezeAtStep, w.freezeAtStep, w.freezeAtStep, w.freezeAtStep)
	}
	return actions[w.rnd.IntN(len(actions))](ctx, w.some())
}

// within is a random time of less than d.
func (w *world) within(d time.Duration) time.Duration { return time.Duration(w.rnd.Int64N(int64(d))) }

// crash kills the server, and starts another one.
func (w *world) crash(ctx context.Context, s *server) error {
	w.kill(s)
	if w.streams() && w.query.timeout > 0 && w.query.within == 0 && w.query.apart == 0 && w.rnd.IntN(2) == 0 {
		if err := w.loseStates(ctx); err != nil {
			return err
		}
	}
	time.Sleep(w.within(20 * time.Second))
	return w.start()
}

// loseStates deletes the states of the query, which has to make the same rows without them; docs/query.md says which queries don't.
func (w *world) loseStates(ctx context.Context) error {
	for info, err := range w.store.List(ctx, catalog.QueryStateFolder(measured), store.ListOptions{}) {
		if err == nil {
			err = w.store.Delete(ctx, info.Name)
		}
		if err != nil {
			return err
		}
		w.conductor.note("loss of " + string(info.Name))
	}
	return nil
}

// outage kills the server, and starts another one when due times have passed.
func (w *world) outage(_ context.Context, s *server) error {
	w.kill(s)
	time.Sleep(time.Minute + w.within(2*time.Minute))
	return w.start()
}

// restart lets the server end as it should, and starts another one.
func (w *world) restart(_ context.Context, s *server) error {
	w.conductor.note("stop of " + s.process.name)
	s.stop()
	<-s.done
	time.Sleep(w.within(5 * time.Second))
	return w.start()
}

// crashAtStep kills the server in the middle of its work.
func (w *world) crashAtStep(context.Context, *server) error {
	kinds := []string{"store put", "store put done", "store create", "store create done", "store create done", "hub append", "hub append done", "hub read", "store delete", "ledger PlanJob done", "ledger EndAttempt", "ledger EndAttempt done", "ledger UpdateJob", "ledger UpdateJob done",
		"ledger DecideSchedule done", "ledger LeaseTasks done", "ledger UpdateNode done", "start node"}
	t := &trap{kind: kinds[w.rnd.IntN(len(kinds))], left: w.rnd.IntN(5)}
	if !w.ambush(t) {
		return nil
	}
	<-t.victim.done
	time.Sleep(w.within(10 * time.Second))
	return w.start()
}

// killNodes kills a node, or several.
func (w *world) killNodes(context.Context, *server) error {
	for i, id := range w.runningNodes() {
		if i == 0 || w.rnd.IntN(2) == 0 {
			w.conductor.note("kill of " + string(id))
			w.nodes.Kill(id)
		}
	}
	return nil
}

// killNodeAtStep kills a node in the middle of its work.
func (w *world) killNodeAtStep(context.Context, *server) error {
	kinds := []string{"store put", "store put done", "message complete", "answer complete", "answer lease", "answer register", "message log", "boot"}
	w.ambush(&trap{node: true, kind: kinds[w.rnd.IntN(len(kinds))], left: w.rnd.IntN(3)})
	return nil
}

// cutOff cuts nodes off from the server for a while, all of them or one.
func (w *world) cutOff(context.Context, *server) error {
	ids := w.runningNodes()
	if len(ids) > 1 && w.rnd.IntN(2) == 0 {
		ids = ids[:1]
	}
	w.conductor.note(fmt.Sprint("nodes cut off: ", ids))
	w.separate(ids, true)
	time.Sleep(w.within(time.Minute))
	w.separate(ids, false)
	w.conductor.note("nodes joined")
	return nil
}

// submit scores what is next, or an interval that somebody names. These begin half a
// second after half minutes, by which they are known.
func (w *world) submit(ctx context.Context, s *server) error {
	name := w.pipelines[w.rnd.IntN(len(w.pipelines))]
	var iv *fleetscore.Interval
	if w.rnd.IntN(3) > 0 {
		iv = w.someInterval()
		if len(w.named) > 0 && w.rnd.IntN(2) == 0 {
			*iv = w.named[w.rnd.IntN(len(w.named))] // once more
		}
		w.named = append(w.named, *iv)
	}
	j, err := s.scheduler.Submit(ctx, name, iv)
	w.conductor.note(fmt.Sprint("submit of ", j.ID, " ", iv, ": ", err))
	return nil
}

// someInterval is an interval that somebody may name, of the first minutes.
func (w *world) someInterval() *fleetscore.Interval {
	from := w.began.Truncate(time.Minute).Add(time.Duration(w.rnd.IntN(3)) * time.Minute).Add(-30*time.Second + 500*time.Millisecond)
	return &fleetscore.Interval{From: from, To: from.Add(time.Duration(1+w.rnd.IntN(2)) * time.Minute)}
}

// jobIs waits until a job is in one of some states, but not for ever.
func (w *world) jobIs(ctx context.Context, id fleetscore.JobID, limit time.Duration, states ...fleetscore.JobState) (bool, error) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		j, err := w.ledger.Job(ctx, id)
		if err != nil {
			return false, err
		}
		if slices.Contains(states, j.State) {
			return true, nil
		}
		if j.State.Ended() {
			return false, nil
		}
	}
	return false, nil
}

var ended = []fleetscore.JobState{fleetscore.JobSucceeded, fleetscore.JobPartlyFailed, fleetscore.JobFailed}

// again scores an interval and, once that job has ended, the same one again.
func (w *world) again(ctx context.Context, s *server) error {
	name, iv := w.pipelines[w.rnd.IntN(len(w.pipelines))], w.someInterval()
	for range 2 {
		j, err := s.scheduler.Submit(ctx, name, iv)
		w.conductor.note(fmt.Sprint("again: submit of ", j.ID, " ", iv, ": ", err))
		if err != nil {
			return nil
		}
		if ok, err := w.jobIs(ctx, j.ID, 2*time.Minute, ended...); !ok || err != nil {
			return err
		}
	}
	return nil
}

// overtake holds a job up when its results are to become visible, until a later job
// over a part of the same rows, mostly with other models, has ended.
func (w *world) overtake(ctx context.Context, s *server) error {
	name, iv := w.pipelines[w.rnd.IntN(len(w.pipelines))], w.someInterval()
	first, err := s.scheduler.Submit(ctx, name, iv)
	w.conductor.note(fmt.Sprint("overtake: submit of ", first.ID, " ", iv, ": ", err))
	if err != nil {
		return nil
	}
	hold := func(id fleetscore.JobID) {
		w.mu.Lock()
		w.held = id
		w.mu.Unlock()
	}
	hold(first.ID)
	defer hold("")
	if ok, err := w.jobIs(ctx, first.ID, 2*time.Minute, fleetscore.JobCommitting); !ok || err != nil {
		return err
	}
	if err := w.changeModels(ctx, s); err != nil {
		return err
	}
	iv.To = iv.To.Add(time.Duration(1+w.rnd.IntN(2)) * time.Minute)
	second, err := s.scheduler.Submit(ctx, name, iv)
	w.conductor.note(fmt.Sprint("overtake: submit of ", second.ID, " ", iv, ": ", err))
	if err != nil {
		return nil
	}
	_, err = w.jobIs(ctx, second.ID, 2*time.Minute, ended...)
	if w.rnd.IntN(4) == 0 { // so long that maintenance would delete the first job's files if they weren't in use
		time.Sleep(graceHere + maintainEvery)
	}
	w.conductor.note("overtake: the first job goes on")
	return err
}

// crowd submits several times at once, at the moment when due times come.
func (w *world) crowd(ctx context.Context, s *server) error {
	at := time.Now().Truncate(time.Minute).Add(time.Minute)
	time.Sleep(time.Until(at.Add(w.within(6*time.Millisecond) - 3*time.Millisecond)))
	var all sync.WaitGroup
	for range 3 {
		name := w.pipelines[w.rnd.IntN(len(w.pipelines))]
		all.Go(func() { _, _ = s.scheduler.Submit(ctx, name, nil) }) // at most one wins
	}
	all.Wait()
	return nil
}

// cancel cancels a job that hasn't ended.
func (w *world) cancel(ctx context.Context, s *server) error {
	jobs, err := w.ledger.Jobs(ctx, ledger.JobFilter{States: active})
	if err != nil || len(jobs) == 0 {
		return err
	}
	id := jobs[w.rnd.IntN(len(jobs))].ID
	_, err = s.scheduler.Cancel(ctx, id)
	w.conductor.note(fmt.Sprint("cancel of ", id, ": ", err))
	return nil
}

// changeModels writes other models.
func (w *world) changeModels(ctx context.Context, _ *server) error {
	kind := []string{"good", "wild"}[w.rnd.IntN(2)]
	w.conductor.note("models become " + kind)
	return w.writeModels(ctx, kind)
}

// changeWeather lets other things go wrong.
func (w *world) changeWeather(context.Context, *server) error {
	w.weather = draw(w.rnd)
	w.conductor.note(fmt.Sprintf("weather becomes %+v", w.weather))
	return nil
}

// jump sets the machine's clock: by so little that it is followed, or by more.
func (w *world) jump(context.Context, *server) error {
	by := w.within(3*time.Minute) - 90*time.Second
	if w.rnd.IntN(2) == 0 {
		by /= 40
	}
	w.conductor.note(fmt.Sprint("the clock jumps by ", by))
	w.never.Store(false)
	w.off.Add(int64(by))
	return nil
}

// takeOut lets a configuration without the last pipeline be in force for a while.
func (w *world) takeOut(ctx context.Context, _ *server) error {
	if w.retention {
		return nil // what only that pipeline still needs may then be removed
	}
	if _, err := w.ledger.PutConfig(ctx, time.Now(), fmt.Sprint("without, ", time.Now()), w.config(true, w.pipelines[:len(w.pipelines)-1])); err != nil {
		return err
	}
	w.conductor.note("the last pipeline is taken out")
	time.Sleep(w.within(90 * time.Second))
	w.conductor.note("the last pipeline is put back")
	_, err := w.ledger.PutConfig(ctx, time.Now(), fmt.Sprint("with, ", time.Now()), w.config(true, w.pipelines))
	return err
}

// repeat lets readings be uploaded that were uploaded before.
func (w *world) repeat(context.Context, *server) error {
	w.resend.Store(true)
	return nil
}

// somePipeline is one of the pipelines.
func (w *world) somePipeline() string { return w.pipelines[w.rnd.IntN(len(w.pipelines))] }

// pause pauses a schedule for a while. Now and then it is triggered meanwhile.
func (w *world) pause(ctx context.Context, s *server) error {
	name := w.somePipeline()
	_, err := s.scheduler.SetPaused(ctx, name, true)
	w.conductor.note(fmt.Sprint("pause of ", name, ": ", err))
	time.Sleep(w.within(time.Minute))
	if w.rnd.IntN(2) == 0 {
		if err := w.triggerOf(ctx, s, name); err != nil {
			return err
		}
	}
	time.Sleep(w.within(time.Minute))
	_, err = s.scheduler.SetPaused(ctx, name, false)
	w.conductor.note(fmt.Sprint("resume of ", name, ": ", err))
	return nil
}

// trigger makes a schedule due now.
func (w *world) trigger(ctx context.Context, s *server) error {
	return w.triggerOf(ctx, s, w.somePipeline())
}

func (w *world) triggerOf(ctx context.Context, s *server, name string) error {
	j, err := s.scheduler.Trigger(context.WithValue(ctx, byHand{}, true), name)
	w.conductor.note(fmt.Sprint("trigger of ", name, ", job ", j.ID, ": ", err))
	return nil
}

// backfill scores the first minutes in pieces.
func (w *world) backfill(ctx context.Context, s *server) error {
	name, iv := w.somePipeline(), w.someInterval()
	iv.To = iv.From.Add(time.Duration(1+w.rnd.IntN(3)) * time.Minute)
	jobs, err := s.scheduler.Backfill(ctx, name, *iv, time.Minute)
	w.conductor.note(fmt.Sprint("backfill of ", name, " ", iv, ", ", len(jobs), " jobs: ", err))
	return nil
}

// rerun scores some sensors of a job that ended once more: those that failed, one, or
// those without a model. Mostly it waits for it and reruns that job in the same way.
func (w *world) rerun(ctx context.Context, s *server) error {
	jobs, err := w.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: w.somePipeline(), States: ended})
	if err != nil || len(jobs) == 0 {
		return err
	}
	which := fleetscore.Rerun{Of: jobs[w.rnd.IntN(len(jobs))].ID}
	switch w.rnd.IntN(4) {
	case 0:
		which.Failed = true
	case 1:
		which.Cause = "no model"
	default:
		which.Keys = []string{string(w.devices[w.rnd.IntN(len(w.devices))])}
	}
	for range 1 + w.rnd.IntN(2) {
		j, err := s.scheduler.Rerun(ctx, which)
		w.conductor.note(fmt.Sprintf("rerun of %+v, job %s: %v", which, j.ID, err))
		if err != nil {
			return nil
		}
		if ok, err := w.jobIs(ctx, j.ID, 2*time.Minute, ended...); !ok || err != nil {
			return err
		}
		which.Of = j.ID
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
	case <-time.After(w.within(70 * time.Second)):
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.trap != t {
		return true
	}
	w.trap = nil
	return false
}
