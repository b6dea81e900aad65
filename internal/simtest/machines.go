package simtest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/pool"
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
