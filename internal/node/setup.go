package node

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/program"
)

// setupTimeout is how long a setup command may take, unless the pool says so.
const setupTimeout = 10 * time.Minute

// prepare runs the setup command of the node's pool, if there is one, looks whether the
// node has the pool's mounts, and reports how that ended. It runs once in the life of a node. It
// returns an error if the node can't be used. Heartbeats go on meanwhile.
func (n *Node) prepare(ctx context.Context) error {
	if n.setup == nil && len(n.mounts.needed()) == 0 {
		return nil
	}
	var how dispatch.Preparation
	if n.setup != nil {
		how = n.runSetup(ctx)
	}
	hint := "correct the program or pools." + n.cfg.Hello.Pool + ".setup, then start the node again"
	if how.Error == "" {
		if err := n.checkMounts(ctx, n.mounts.needed()); err != nil {
			how.Error, hint = err.Error(), "then start the node again"
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case n.stopping():
		return nil // nobody needs this node any more
	}
	if err := n.report(ctx, how); err != nil {
		return err
	}
	if how.Error != "" {
		return fleetscore.Errorf(fleetscore.Invalid, "prepare node", string(n.cfg.Hello.Node), "%s", how.Error).WithHint("%s", hint)
	}
	n.cfg.Hello.Prepared = true
	return nil
}

// runSetup runs the setup command. If the server says to stop, the command is ended.
func (n *Node) runSetup(ctx context.Context) (how dispatch.Preparation) {
	limit := n.setup.Timeout.D()
	if limit == 0 {
		limit = setupTimeout
	}
	run, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	n.mu.Lock()
	n.unprepare = cancel
	n.mu.Unlock()
	command := program.Find(n.setup.Command, n.cfg.Commands)
	n.log.Info("the setup command begins", "command", command[0], "limit", limit)
	began := n.now()
	var out program.Tail
	err := program.Check(command, n.cfg.Commands)
	if err == nil {
		err = program.Run(run, command, n.setupEnvironment(), &out, &out)
	}
	how.Output = out.Bytes()
	how.Output = how.Output[max(0, len(how.Output)-dispatch.MaxSetupOutputBytes):]
	if err != nil {
		why := err.Error()
		if run.Err() != nil {
			why = fmt.Sprintf("it didn't end within %s", limit)
		}
		how.Error = fmt.Sprintf("the setup command %s failed: %s", command[0], why)
		if last := program.LastLine(how.Output); last != "" {
			how.Error += fmt.Sprintf("; its last line: %q", last)
		}
	}
	n.log.Info("the setup command ended", "took", n.now().Sub(began).Round(time.Millisecond), "error", how.Error)
	return how
}

// setupEnvironment is what a setup command sees: this process's environment without the
// place of the node's token.
func (n *Node) setupEnvironment() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "FLEETSCORE_NODE_") || strings.HasPrefix(v, "FLEETSCORE_JOIN_")
	})
	return append(env, "FLEETSCORE_ID="+string(n.cfg.Hello.Node), "FLEETSCORE_POOL="+n.cfg.Hello.Pool, fmt.Sprintf("FLEETSCORE_SLOTS=%d", n.cfg.Hello.Slots))
}

// report tells the server how the setup command ended, until it answers.
func (n *Node) report(ctx context.Context, how dispatch.Preparation) error {
	pause := 100 * time.Millisecond
	for {
		call, cancel := context.WithTimeout(ctx, requestTimeout)
		err := n.server.Prepared(call, n.cfg.Hello.Node, how)
		cancel()
		switch {
		case err == nil:
			n.reached()
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case fleetscore.NotFound.Is(err): // the server gave this node up meanwhile
			n.cfg.Hello.Prepared = how.Error == ""
			if err := n.register(ctx); err != nil || how.Error == "" {
				return err
			}
		default:
			if err := n.unreached(err); err != nil {
				return err
			}
		}
		if err := n.rest(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, 5*time.Second)
	}
}
