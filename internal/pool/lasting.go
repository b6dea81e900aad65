package pool

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Static is the name of the provider whose nodes people start and stop themselves, on
// any machine. Pools neither start nor stop such nodes.
const Static = "static"

// Docker is the name of the provider whose nodes are containers.
const Docker = "docker"

// randomLetters is how many letters at the end of a node's name make it unique.
const randomLetters = 6

// compareEvery is how often the machines that exist are compared with the ledger.
const compareEvery = 30 * time.Second

// startLimit is how long a node of a pool may take to register.
func (p *Pools) startLimit(c fleetscore.PoolConfig) time.Duration {
	if c.StartLimit > 0 {
		return c.StartLimit.D()
	}
	if _, ok := p.providers[c.Provider].(Lasting); ok || c.Provider == Docker {
		return machineLimit // of a container, because its image may have to be pulled
	}
	return p.cfg.StartLimit
}

// compareAll compares the machines of all pools with the ledger until ctx ends. It
// runs beside the loop that scales, because commands may take minutes.
func (p *Pools) compareAll(ctx context.Context) {
	for {
		cfg, _, _, err := p.ledger.Config(ctx)
		if err == nil {
			for _, name := range slices.Sorted(maps.Keys(cfg.Pools)) {
				if by, ok := p.providers[cfg.Pools[name].Provider].(Lasting); ok {
					p.compare(ctx, name, by)
				}
			}
		}
		timer := time.NewTimer(compareEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// compare stops the machines of a pool that no node needs. The list is made before the
// ledger is read, and a node is in the ledger before its machine is started: so a
// machine without a node is no longer needed.
func (p *Pools) compare(ctx context.Context, pool string, by Lasting) {
	part := "pool " + pool
	machines, err := by.List(ctx, pool)
	if err == nil {
		var nodes []fleetscore.Node
		if nodes, err = p.ledger.Nodes(ctx, pool); err == nil {
			for _, m := range unneeded(pool, machines, nodes, by.NodeID, p.now()) {
				if p.ours(by.NodeID(m)) != nil {
					continue // it is being stopped
				}
				p.log.Warn("a machine without a node is stopped", "machine", m, "pool", pool)
				err = errors.Join(err, by.Remove(ctx, pool, m))
			}
		}
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		p.log.Error("the machines of a pool can't be compared with its nodes; machines that are no longer needed may run on", "pool", pool, "error", err)
		p.health.Report(part, "its machines can't be listed or stopped, so that machines that are no longer needed may run on: "+err.Error())
		return
	}
	p.health.Report(part, "")
}

// unneeded returns the machines that belong to a pool, by their names, and that no
// node lives on: the node has stopped, was lost some time ago, or isn't known.
func unneeded(pool string, machines []string, nodes []fleetscore.Node, id func(string) fleetscore.NodeID, now time.Time) (out []string) {
	byID := make(map[fleetscore.NodeID]fleetscore.Node, len(nodes))
	for _, n := range nodes {
		byID[n.ID] = n
	}
	for _, m := range machines {
		random, ok := strings.CutPrefix(m, pool+"-")
		if !ok || len(random) != randomLetters || strings.Trim(random, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			continue // it isn't this pool's
		}
		n, known := byID[id(m)]
		switch {
		case !known, n.State == fleetscore.NodeStopped, n.State == fleetscore.NodeUnusable, n.State == fleetscore.NodeLost && now.Sub(n.Heartbeat) > hungAfter:
			out = append(out, m)
		}
	}
	return out
}
