package simtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/pool"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/sklearn"
)

// In some runs the nodes live on machines that the provider exec starts, stops and lists
// by commands. The machines outlive the server and their agents, and the commands lie:
// they say that they failed after they did what was asked, or that they succeeded and did
// nothing, and the list leaves machines out or names some that don't exist.

const machineStart = time.Minute // how long a machine may take until its agent registers

// execSettings are the commands of the pool; nil if the run has no machines.
func (w *world) execSettings() *fleetscore.ExecConfig {
	if w.machines == nil {
		return nil
	}
	command := func(name string) []string { return []string{filepath.Join(w.dir, name)} }
	return &fleetscore.ExecConfig{Start: command("start"), Stop: command("stop"), List: command("list")}
}

// writeCommands writes the programs, which must exist and are never run.
func (w *world) writeCommands() error {
	for _, name := range []string{"start", "stop", "list"} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte("#!/bin/false\n"), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// providerOf is the provider of nodes as a server sees it.
func (w *world) providerOf(by *process, l ledger.Configs) pool.Provider {
	if w.machines == nil {
		return &provider{w, by}
	}
	e := pool.NewExec(pool.ExecDeps{Folders: []string{w.dir}, Secrets: w.dir, Log: w.log,
		Pool: func(ctx context.Context, name string) (fleetscore.PoolConfig, error) {
			cfg, _, _, err := l.Config(ctx)
			return cfg.Pools[name], err
		},
		Token:  func(context.Context, string) (string, error) { return "token", nil },
		Forget: func(context.Context, string) error { return nil },
		Run: func(ctx context.Context, command, env []string, stdout, _ io.Writer) error {
			vars := map[string]string{}
			for _, v := range env {
				name, value, _ := strings.Cut(v, "=")
				vars[name] = value
			}
			return w.command(ctx, by, filepath.Base(command[0]), vars["FLEETSCORE_MACHINE"], stdout)
		}})
	context.AfterFunc(by.life, e.Leave) // a server that was killed does nothing more
	return e
}

// command is what a command does, and what it says.
func (w *world) command(ctx context.Context, by *process, op, name string, out io.Writer) error {
	f, err := w.reached(ctx, by, "machine "+op, name)
	if err != nil {
		return err
	}
	lies := f == late
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case op == "list":
		names := slices.Sorted(maps.Keys(w.machines))
		if w.mutant == overlooksMachines {
			names = nil
		}
		if lies {
			names = append(names[min(1, len(names)):], poolName+"-phantm")
		}
		fmt.Fprintln(out, strings.Join(names, "\n"))
	case lies:
	case op == "start" && !w.machines[name]:
		w.machines[name] = true
		_, err = w.nodes.Start(ctx, fleetscore.Node{ID: machineNode(name), Pool: poolName, Slots: 1})
	case op == "stop":
		delete(w.machines, name)
		w.nodes.Kill(machineNode(name))
	}
	if err == nil && f == broken {
		err = fault("machine "+op, name, "it says that it failed")
	}
	return err
}

func machineNode(machine string) fleetscore.NodeID { return fleetscore.NodeID(machine + ".node") }

// machinesLeft are the machines that exist, in order.
func (w *world) machinesLeft() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.machines))
}

// lend takes nodes of low priority away until the calm, as whoever lends their machines may do
// at any time: without a word, or by telling them to end, and sometimes without a word soon
// after.
func (w *world) lend(ctx context.Context, rnd *rand.Rand) error {
	within := func(d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d))) }
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.calmed:
			return nil
		case <-time.After(within(30 * time.Second)):
		}
		nodes, err := w.ledger.Nodes(context.Background(), poolName)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Kind != fleetscore.LowPriority || n.State.Ended() || rnd.IntN(3) == 0 {
				continue
			}
			told := rnd.IntN(2) == 0
			w.conductor.note(fmt.Sprintf("%s is taken away; it is told before: %v", n.ID, told))
			if told {
				if err := w.nodes.StopEarlier(context.Background(), n); err == nil && rnd.IntN(2) == 0 {
					continue
				}
				time.Sleep(within(5 * time.Second))
			}
			w.nodes.Kill(n.ID)
		}
	}
}

// In some runs a model ends the process of the node that reads it. It is that of one sensor,
// whatever the other models become.

// readDeadly reads the model that ends processes, as it is and as it lies in packs.
func (w *world) readDeadly(file string) (err error) {
	if w.models["deadly"], err = os.ReadFile(file); err != nil {
		return err
	}
	m, err := sklearn.Load(w.models["deadly"])
	if err != nil {
		return err
	}
	w.deadlyRecord, err = m.AppendRecord(nil)
	return err
}

func (w *world) isDeadly(data []byte) bool {
	return bytes.Equal(data, w.deadlyRecord) || bytes.Equal(data, w.models["deadly"])
}

// engine is what a node scores by: in its own process, or models alone in a child, of which
// one that ends costs nothing but its model.
type engine struct {
	w     *world
	by    *process
	alone bool
}

// Worker implements scorer.Runtime.
func (r *engine) Worker() (scorer.Worker, error) {
	w, err := scorer.Native{}.Worker()
	return &worker{w, r}, err
}

type worker struct {
	scorer.Worker
	of *engine
}

// Load implements scorer.Worker.
func (x *worker) Load(ctx context.Context, data []byte) (scorer.Model, error) {
	r := x.of
	switch {
	case !r.w.isDeadly(data):
		return x.Worker.Load(ctx, data)
	case r.alone:
		return nil, &scorer.HarmError{Cause: "the model ended the process that scored it, twice"}
	}
	r.w.conductor.note(r.by.name + " is ended by a model")
	r.by.end()
	return nil, errDead(r.by, "load model")
}

// checkHarm: a model that ends processes costs its own sensor alone.
func (w *world) checkHarm(ctx context.Context, p *problems) error {
	harms, err := w.ledger.Harms(ctx, sensors)
	for _, h := range harms {
		if h.Key != w.deadly {
			p.add("the model of sensor %s is said to do harm: %s", h.Key, h.Reason)
		}
	}
	return err
}

// checkHarmed is checkHarm for one outcome.
func (w *world) checkHarmed(p *problems, i fleetscore.Item, job fleetscore.JobID) {
	switch {
	case i.Key == w.deadly && i.Outcome == fleetscore.Scored:
		p.add("job %s scored sensor %s, whose model ends processes", job, i.Key)
	case i.Key != w.deadly && i.Outcome == fleetscore.Quarantined:
		p.add("job %s has sensor %s in quarantine: %s", job, i.Key, i.Reason)
	case i.Key != w.deadly && i.Outcome == fleetscore.Failed && strings.Contains(i.Reason, "lost"):
		p.add("job %s: sensor %s failed with its node: %s", job, i.Key, i.Reason)
	}
}

// TakeBack notes nothing. A mutant lets the tasks be scored as before.
func (l *witness) TakeBack(ctx context.Context, which ledger.LeaseFilter, now time.Time, decide func(ledger.Leased) (ledger.AttemptEnd, error)) ([]ledger.Leased, error) {
	return l.Ledger.TakeBack(ctx, which, now, func(x ledger.Leased) (ledger.AttemptEnd, error) {
		e, err := decide(x)
		switch {
		case l.w.mutant == sparesSuspects:
			e.Task.Alone = false
		case l.w.mutant == chargesLosses && e.Task.Losses > x.Task.Losses:
			e.Task.Failures++
		}
		return e, err
	})
}
