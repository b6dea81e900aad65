package node

import (
	"context"
	"errors"
	"io"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/node/command"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/store"
)

// command gives what runs the command of a task. Where it can't be run, it gives what tells
// that to each sensor. The task calls done when it has ended. note says how far the command is
// isolated.
func (n *Node) command(ctx context.Context, tables *catalog.Catalog, l dispatch.Lease) (scores scorer.Foreign, done func(), note string) {
	refuse := func(err error) (scorer.Foreign, func(), string) {
		return refusing{err}, func() {}, "no command runs: " + err.Error()
	}
	switch {
	case l.Refused != "":
		return refuse(errors.New(l.Refused))
	case l.Command == nil:
		return refuse(errors.New("the pipeline has no command"))
	}
	box, err := n.python.sandbox(ctx, l.Command.Isolation == fleetscore.IsolationRequired)
	if err != nil {
		return refuse(err)
	}
	r, err := command.New(ctx, command.Config{CommandConfig: *l.Command, Mounts: l.Mounts, Secrets: l.Secrets, Python: n.python.interpreter, Folders: n.cfg.Commands, Sandbox: box, AtOnce: n.cfg.Workers, Base: n.cfg.WorkDir, Now: n.now,
		Work: command.Work{Pipeline: l.Pipeline, Job: l.Job, Task: l.Index, Interval: l.Interval},
		Save: func(ctx context.Context, name string, file io.Reader) error {
			_, err := tables.Store().Put(ctx, catalog.Output(l.Pipeline, l.Job, l.Index, l.Attempt, name), file, store.PutOptions{})
			return err
		}})
	if err != nil {
		return refuse(err)
	}
	return r, func() {
		if err := r.Close(); err != nil {
			n.log.Warn("the files of a command can't be removed", "error", err)
		}
	}, "commands are " + box.Describe()
}
