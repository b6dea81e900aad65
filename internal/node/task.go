package node

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/alone"
	"github.com/fleetscore/fleetscore/internal/table"
)

// do carries out one lease and delivers its result.
func (n *Node) do(ctx context.Context, l dispatch.Lease) {
	start := n.now()
	n.log.Info("task begins", "task", l.Task, "attempt", l.Attempt)
	out := n.newTaskLog(ctx, l.ID)
	result, err := n.score(dispatch.WithLease(ctx, l.ID), l, out)
	if err != nil {
		result = dispatch.Result{Error: err.Error(), Kind: fleetscore.KindOf(err).String()}
		var known *fleetscore.Error
		if fleetscore.Corrupt.Is(err) && errors.As(err, &known) {
			result.Damaged = known.Subject
		}
		out.printf("the attempt failed: %v", err)
	}
	out.printf("done in %s", n.now().Sub(start).Round(time.Millisecond))
	out.close(ctx)
	if ctx.Err() != nil {
		n.log.Warn("task given up", "task", l.Task, "attempt", l.Attempt, "reason", context.Cause(ctx))
		return // nobody wants the result, or the goodbye gives the task back
	}
	if err := n.deliver(ctx, l, result); err != nil {
		n.log.Warn("result is lost", "task", l.Task, "attempt", l.Attempt, "error", err)
		return
	}
	n.log.Info("task ends", "task", l.Task, "attempt", l.Attempt, "rows", result.Rows, "took", n.now().Sub(start).Round(time.Millisecond), "error", result.Error)
}

// deliver repeats a result until the server took or refused it.
func (n *Node) deliver(ctx context.Context, l dispatch.Lease, r dispatch.Result) error {
	pause := 100 * time.Millisecond
	for {
		call, cancel := context.WithTimeout(ctx, requestTimeout)
		err := n.server.Complete(call, l.ID, r)
		cancel()
		switch kind := fleetscore.KindOf(err); {
		case err == nil:
			n.reached()
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case kind == fleetscore.Invalid && r.Error == "": // not a result the server can take: say so, so that it isn't waited for
			r = dispatch.Result{Error: err.Error(), Kind: kind.String()}
		case kind == fleetscore.Conflict, kind == fleetscore.NotFound, kind == fleetscore.Invalid:
			return err
		default:
			if err := n.unreached(err); err != nil {
				return err
			}
			if err := n.rest(ctx, pause); err != nil {
				return err
			}
			pause = min(2*pause, 5*time.Second)
		}
	}
}

// catalog is the catalog of a store, kept for what its tables remember.
func (n *Node) catalog(ctx context.Context, url string) (*catalog.Catalog, error) {
	n.opening.Lock()
	defer n.opening.Unlock()
	c, ok := n.catalogs[url]
	if !ok {
		b, err := n.open(ctx, url)
		if err != nil {
			return nil, err
		}
		c = catalog.New(b)
		n.catalogs[url] = c
	}
	return c, nil
}

// score does the task. A panic is an error of the attempt, with its stack in the
// task's log.
func (n *Node) score(ctx context.Context, l dispatch.Lease, out *taskLog) (r dispatch.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			out.printf("panic: %v\n%s", p, debug.Stack())
			err = fleetscore.Errorf(fleetscore.Internal, "do task", string(l.Task), "a defect of ours: %v", p).WithHint("the task's log has the stack; please report it")
		}
	}()
	out.printf("task %s, attempt %d on node %s: shards %s of pipeline %s, rows of %s in %s", l.Task, l.Attempt, n.cfg.Hello.Node, l.Shards, l.Pipeline, l.Dataset, l.Interval)
	if err := n.checkMounts(ctx, l.Mounts); err != nil {
		return r, err
	}
	tables, err := n.catalog(ctx, l.Store)
	if err != nil {
		return r, err
	}
	pack, err := fleet.OpenPack(ctx, tables.Store(), l.Fleet, l.Generation, l.Shards)
	if err != nil {
		return r, err
	}
	defer pack.Close()
	rows, repeated := emptyRows(l), int64(0)
	if len(l.Files) > 0 {
		if rows, err = tables.Dataset(l.Dataset).ReadRows(ctx, l.Files, table.ReadQuery{Interval: &l.Interval, Shards: &l.Shards, Keys: l.Keys, Except: l.Except, Values: columns(l), Repeated: &repeated}); err != nil {
			return r, err
		}
	}
	expected := fleetscore.Without(pack.Keys(), l.Except)
	if len(l.Keys) > 0 {
		expected = l.Keys
	}
	if repeated > 0 {
		out.printf("%s left out: another row of dataset %s has the same key and time, which another program than Fleetscore must have added; the last counts", fleetscore.Counted(repeated, "row"), l.Dataset)
	}
	out.printf("%s expected, %s in %s", fleetscore.Counted(len(expected), "sensor"), fleetscore.Counted(rows.Len(), "row"), fleetscore.Counted(len(l.Files), "file"))
	here, leave, err := n.unpacked(ctx, tables, l, out)
	if err != nil {
		return r, err
	}
	defer leave()
	spec, done := n.spec(ctx, tables, here, out)
	spec.Content, spec.Earlier = n.content(l, nil), n.earlier(ctx, tables, l, out)
	if code := n.python.code(l); code != nil {
		spec.ForeignContent = n.content(l, code)
	}
	scored, err := scorer.Score(ctx, spec, rows, expected, pack)
	done()
	if err != nil {
		return r, err
	}
	if len(scored.Degenerate) > 0 {
		out.printf("degenerate models, which flag everything or nothing whatever the data: %v", scored.Degenerate)
	}
	if r, err = n.write(ctx, tables, l, scored, out); fleetscore.Exhausted.Is(err) { // the store's disk is full, which isn't the task's fault
		err = fleetscore.Errorf(fleetscore.Unavailable, "write results", string(l.Task), "%w", err)
	}
	return r, err
}

// spec says how the models of a lease are scored. done is called when they have been.
func (n *Node) spec(ctx context.Context, tables *catalog.Catalog, l dispatch.Lease, out *taskLog) (s scorer.Spec, done func()) {
	s, done = scorer.Spec{Features: l.Features, FeaturesBy: l.FeaturesBy, Label: l.Label, Missing: l.Missing, ModelTimeout: l.ModelTimeout.D(), Workers: n.cfg.Workers,
		Tries: l.Tries, Rest: func(ctx context.Context, repeat int) {
			pause(ctx, dispatch.RetryAfter(repeat, clock.Spread(string(l.Task), repeat)))
		},
		Log: out.printf, Print: out.print, Runtime: n.models, Now: n.now, Timing: true, Quarantined: map[fleetscore.Key]fleetscore.Harm{}}, func() {}
	if s.Use = l.Runtime; l.Runtime.RunsPython() {
		var note string
		s.Foreign, done, note = n.python.of(ctx, l, n.cfg.Hello.Slots*n.cfg.Workers, out, n.log)
		s.Batches = n.cfg.Hello.Slots + 1 // processes of slots that have no task help; and one batch is made ready meanwhile
		out.printf("%s", note)
	}
	if l.Runtime == fleetscore.RuntimeCommand {
		var note string
		s.Foreign, done, note = n.command(ctx, tables, l)
		s.Whole = l.Command != nil && l.Command.Per == fleetscore.CommandPerTask
		out.printf("%s", note)
	}
	for _, h := range l.Quarantined {
		s.Quarantined[h.Key] = h
	}
	if l.Alone && n.alone != nil {
		memory := l.ModelMemory
		if memory == 0 {
			memory = alone.MachineMemory() / 2 / int64(n.cfg.Hello.Slots)
		}
		s.Workers, s.Batches, s.Runtime = 1, 1, n.alone(alone.Limits{ModelTimeout: l.ModelTimeout.D(), MemoryBytes: memory})
		out.printf("attempts of this task took nodes down, or took too long: its models are scored in a process of their own, one after the other")
	}
	return s, done
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// harm is what models did to their processes.
func harm(scored *scorer.Result) (out []fleetscore.Harm) {
	for _, i := range scored.Items {
		if _, is := slices.BinarySearch(scored.Harmful, i.Key); is && len(out) < dispatch.MaxHarm {
			out = append(out, fleetscore.Harm{Key: i.Key, Model: i.Model, Reason: i.Reason})
		}
	}
	return out
}

// emptyRows is the input of a task without files.
func emptyRows(l dispatch.Lease) *fleetscore.Rows {
	names := columns(l)
	return &fleetscore.Rows{TimeName: l.TimeName, KeyNames: l.KeyNames, ValueNames: names, Values: make([][]float64, len(names))}
}

// columns are the dataset's columns that the task reads.
func columns(l dispatch.Lease) (out []string) {
	for _, f := range l.Features {
		if _, column := fleetscore.SplitFeature(f); !slices.Contains(out, column) {
			out = append(out, column)
		}
	}
	if l.Label != "" && !slices.Contains(out, l.Label) {
		out = append(out, l.Label)
	}
	return out
}

// write writes predictions and coverage; only the server's commit makes them
// visible.
func (n *Node) write(ctx context.Context, tables *catalog.Catalog, l dispatch.Lease, scored *scorer.Result, out *taskLog) (r dispatch.Result, err error) {
	r.Harm = harm(scored)
	if !l.Alone {
		r.Cost = dispatch.CostOf(scored.Items, scored.Threads)
	}
	r.Outcomes, r.Rows = scored.Counts(), int64(scored.Predictions.Len())
	for n := range scored.Items {
		i := &scored.Items[n]
		if i.Kept == "" && i.Outcome.Asked() {
			i.Image = l.Image
		}
		if i.Kept != "" {
			r.Kept.Add(dispatch.Kept{Keys: 1, Rows: i.Rows, Anomalies: i.Anomalies})
		} else {
			r.Anomalies += i.Anomalies
		}
	}
	if r.Rows > 0 {
		if r.Predictions, err = tables.Predictions(l.Pipeline).WritePredictions(ctx, scored.Predictions, l.Job, l.Revision); err != nil {
			return r, err
		}
	}
	if r.Coverage, err = tables.Coverage(l.Pipeline).WriteItems(ctx, scored.Items, l.KeyNames, l.Job, l.Interval); err != nil {
		return r, err
	}
	if l.Timing {
		t := catalog.Timed{Pipeline: l.Pipeline, Job: l.Job, Task: l.Index, Attempt: l.Attempt, Node: n.cfg.Hello.Node, KeyNames: l.KeyNames}
		if err := tables.WriteTiming(ctx, t, scored.Items); err != nil && ctx.Err() == nil {
			out.printf("how long the models took isn't kept: %v", err) // the results are there
		}
	}
	line := fmt.Sprintf("%s scored, anomalies: %d;", fleetscore.Counted(r.Rows, "row"), r.Anomalies)
	for _, o := range fleetscore.Outcomes {
		if c := r.Outcomes[o]; c > 0 {
			line += fmt.Sprintf(" %d %s", c, o)
		}
	}
	if k := r.Kept.Keys; k > 0 {
		line += fmt.Sprintf("; the results of an earlier job stay for %s of these, whose rows and models haven't changed", fleetscore.Counted(k, "sensor"))
	}
	out.printf("%s", line)
	return r, nil
}
