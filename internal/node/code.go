package node

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/store"
)

// unpacked gives the lease with the folders of this machine where its code lies: it was sent
// with the task, or is in the folder that the settings name. The task calls done when it has ended.
func (n *Node) unpacked(ctx context.Context, tables *catalog.Catalog, l dispatch.Lease, out *taskLog) (_ dispatch.Lease, done func(), err error) {
	if l.Code.IsZero() {
		if l.Python.Code != "" {
			out.printf("code is read from %s of this machine", l.Python.Code)
		}
		return l, func() {}, nil
	}
	dir, done, err := n.codes.Folder(ctx, l.Code, func(ctx context.Context) ([]byte, error) {
		return store.ReadAll(ctx, tables.Store(), catalog.Code(l.Pipeline, l.Code))
	})
	if err != nil {
		return l, nil, fleetscore.Wrap("get code", l.Code.Short(), err)
	}
	out.printf("code %s came with the task", l.Code.Short())
	has := filepath.Join(dir, "code")
	if _, err := os.Stat(has); err == nil && l.Python.Code != "" { // without it, only requirements came
		l.Python.Code = has
	}
	l.Python.Environments = slices.Clone(l.Python.Environments)
	for i := range l.Python.Environments {
		if e := &l.Python.Environments[i]; e.Requirements != "" {
			e.Requirements = filepath.Join(dir, "requirements", strconv.Itoa(i), filepath.Base(e.Requirements))
		}
	}
	if l.Command != nil && l.Command.Code != "" {
		c := *l.Command
		c.Code = has
		l.Command = &c
	}
	return l, done, nil
}
