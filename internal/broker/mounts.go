package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// mountsOf are the mounts of a job as the configuration describes them now, or why the job
// can't have them.
func (b *Broker) mountsOf(ctx context.Context, c fleetscore.PipelineConfig) (out []fleetscore.Mount, refused string) {
	if len(c.Mounts) == 0 {
		return nil, ""
	}
	cfg, _, _, err := b.ledger.Config(ctx)
	if err != nil {
		return nil, err.Error()
	}
	out = cfg.MountsOf(c.Mounts...)
	for _, name := range c.Mounts {
		if _, ok := cfg.Mounts[name]; !ok {
			return nil, fmt.Sprintf("the mount %s isn't described under mounts any more, since the job was made", name)
		}
	}
	return out, ""
}

// surveys are the measurements of mounts that this server waits for. Nodes that speak to
// another server don't hear of them.
type surveys struct {
	mu   sync.Mutex // guards what follows
	open map[string]*survey
}

// survey is one of them.
type survey struct {
	order dispatch.MountOrder
	asked map[fleetscore.NodeID]bool // whether the node was given the order
	got   []fleetscore.MountReport
	done  chan struct{} // closed once all have answered
}

// orders are what a node is to measure and hasn't been told.
func (s *surveys) orders(node fleetscore.NodeID) (out []dispatch.MountOrder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.open {
		if told, ok := v.asked[node]; ok && !told {
			v.asked[node] = true
			out = append(out, v.order)
		}
	}
	return out
}

// answered takes what a node measured.
func (s *surveys) answered(node fleetscore.NodeID, measured []dispatch.MountMeasured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range measured {
		v := s.open[m.ID]
		if v == nil || !v.asked[node] {
			continue
		}
		delete(v.asked, node)
		m.Report.Node, m.Report.Mount, m.Report.Advice = node, v.order.Mount.Name, fleetscore.Printable(m.Report.Advice)
		v.got = append(v.got, m.Report)
		if len(v.asked) == 0 {
			close(v.done)
		}
	}
}

// MeasureMount lets the nodes of a pool measure a mount, and waits for their answers until ctx
// ends. A node that hasn't answered by then has a report that says so. Kind NotFound if the
// pool has no node.
func (b *Broker) MeasureMount(ctx context.Context, pool string, order dispatch.MountOrder) ([]fleetscore.MountReport, error) {
	nodes, err := b.ledger.Nodes(ctx, pool)
	if err != nil {
		return nil, err
	}
	order.ID = rand.Text()
	v := &survey{order: order, asked: map[fleetscore.NodeID]bool{}, done: make(chan struct{})}
	hosts := map[fleetscore.NodeID]string{}
	for _, n := range nodes {
		if n.State.Speaks() {
			v.asked[n.ID], hosts[n.ID] = false, n.Host
		}
	}
	if len(v.asked) == 0 {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "measure mount", order.Mount.Name, "no node of pool %s runs at present", pool).
			WithHint("leave --pool out to measure on the server, or start a node: with a task, or with scale.min: 1")
	}
	s := b.surveys
	s.mu.Lock()
	s.open[order.ID] = v
	s.mu.Unlock()
	select {
	case <-v.done:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, order.ID)
	for id, told := range v.asked {
		r := fleetscore.MountReport{Mount: order.Mount.Name, Path: order.Mount.Path, Node: id, Verdict: fleetscore.MountUnusable,
			Advice: "the node was asked and hasn't answered in time: the file server may be away"}
		if !told {
			r.Advice = "the node couldn't be asked, as it has given no sign of life to this server: it may have ended, or speak to another server"
		}
		v.got = append(v.got, r)
	}
	for i, r := range v.got {
		v.got[i].Host = cmp.Or(r.Host, hosts[r.Node])
	}
	slices.SortFunc(v.got, func(a, b fleetscore.MountReport) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return v.got, nil
}
