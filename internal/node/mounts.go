package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/mount"
)

// mounts are the mounts that the node's pool wants, and what the server wants to know of them.
type mounts struct {
	check mount.Checker

	mu      sync.Mutex // guards what follows
	want    []fleetscore.Mount
	answers []dispatch.MountMeasured // that the server doesn't have yet
}

// mountLooks is how many looks in a row find a mount unusable before the node is.
const mountLooks = 2

func (m *mounts) need(want []fleetscore.Mount) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.want = want
}

func (m *mounts) needed() []fleetscore.Mount {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.want
}

// checkMounts says which of the mounts can't be used, and why.
func (n *Node) checkMounts(ctx context.Context, want []fleetscore.Mount) error {
	for _, m := range want {
		if err := n.mounts.check.Check(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// watchMounts looks at the mounts until ctx ends. If one of them can't be used any more, it
// tells the server and returns the error.
func (n *Node) watchMounts(ctx context.Context) error {
	ticker := time.NewTicker(n.cfg.MountEvery)
	defer ticker.Stop()
	bad := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := n.checkMounts(ctx, n.mounts.needed())
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			bad = 0
			continue
		}
		n.log.Warn("a mount can't be used", "error", err)
		if bad++; bad < mountLooks {
			continue
		}
		if e := n.report(ctx, dispatch.Preparation{Error: err.Error()}); e != nil {
			n.log.Warn("the server wasn't told that a mount can't be used", "error", e)
		}
		return err
	}
}

// measure does what the server asks for, beside everything else. A measurement of a mount that
// doesn't answer may never end.
func (m *mounts) measure(ctx context.Context, orders []dispatch.MountOrder) {
	for _, o := range orders {
		go func() {
			r := m.check.Survey(ctx, o.Mount, mount.Options{SizeBytes: o.SizeBytes, Files: o.Files})
			m.mu.Lock()
			defer m.mu.Unlock()
			m.answers = append(m.answers, dispatch.MountMeasured{ID: o.ID, Report: r})
		}()
	}
}

func (m *mounts) measured() []dispatch.MountMeasured {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.answers)
}

// sent forgets answers that the server has.
func (m *mounts) sent(answers []dispatch.MountMeasured) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers = m.answers[len(answers):]
}
