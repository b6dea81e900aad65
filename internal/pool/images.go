package pool

import (
	"cmp"
	"context"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// images says in which image each of a number of nodes is started, and which nodes give way
// to nodes with another image. A tag may have moved since a job was planned, so that the jobs
// of a pool may need different images.
func (p *Pools) images(ctx context.Context, c fleetscore.PoolConfig, queued []ledger.QueuedImage, nodes []fleetscore.Node, starts int) (images []string, giveWay []fleetscore.NodeID, err error) {
	images = make([]string, starts)
	if c.Docker == nil || p.image == nil {
		return images, nil, nil
	}
	pinned, giveWay := assign(queued, max(1, c.Slots), nodes, starts)
	copy(images, pinned)
	if len(pinned) == starts {
		return images, giveWay, nil
	}
	now, err := p.image(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	for i := len(pinned); i < starts; i++ {
		images[i] = now
	}
	return images, giveWay, nil
}

// waiting are the images that tasks of a pool wait for; none if its nodes have no images.
func (p *Pools) waiting(ctx context.Context, pool string, c fleetscore.PoolConfig) ([]ledger.QueuedImage, error) {
	if c.Docker == nil || p.image == nil {
		return nil, nil
	}
	return p.ledger.QueuedImages(ctx, pool)
}

// apart is how many nodes tasks need at least because a node runs the tasks of one image alone. Tasks that any node can
// run don't count.
func apart(queued []ledger.QueuedImage, slots int, nodes []fleetscore.Node) (atLeast int) {
	tasks, busy := map[string]int64{}, map[string]int{}
	for _, q := range queued {
		tasks[q.Image] += q.Tasks
	}
	for _, n := range nodes {
		if n.State.Works() && n.Running > 0 {
			tasks[n.Image] += int64(n.Running)
			busy[n.Image]++
		}
	}
	for image, n := range tasks {
		if image != "" {
			atLeast += max(busy[image], int(min((n+int64(slots)-1)/int64(slots), 1<<20)))
		}
	}
	return atLeast
}

// fetch has the images brought to the machine that tasks wait for, each once as long as they wait: also those whose nodes
// can't start yet, because the pool has as many nodes as it may have. A pool without nodes that starts none, as with
// scale.max: 0, needs no images yet.
func (p *Pools) fetch(ctx context.Context, pool string, c fleetscore.PoolConfig, queued []ledger.QueuedImage, nodes []fleetscore.Node, starts int) {
	by, ok := p.providers[c.Provider].(Fetcher)
	if !ok {
		return
	}
	before := p.fetched[pool]
	p.fetched[pool] = nil
	if starts == 0 && !slices.ContainsFunc(nodes, func(n fleetscore.Node) bool { return n.State.Works() || n.State.Coming() }) {
		return
	}
	for _, q := range queued {
		if q.Image == "" {
			continue
		}
		p.fetched[pool] = append(p.fetched[pool], q.Image)
		if slices.Contains(before, q.Image) {
			continue
		}
		p.waits.Go(func() {
			if err := by.Fetch(ctx, q.Image); err != nil && ctx.Err() == nil {
				p.log.Warn("an image that tasks wait for can't be fetched; the start of its node tries it again", "pool", pool, "image", q.Image, "error", err)
			}
		})
	}
}

// assign says which images the next nodes have because tasks wait for them, at most as many
// as are started, and which nodes give way.
func assign(queued []ledger.QueuedImage, slots int, nodes []fleetscore.Node, starts int) (images []string, giveWay []fleetscore.NodeID) {
	wanted := map[string]bool{}
	nodesOf, free := map[string]int{}, map[string]int64{}
	for _, q := range queued {
		wanted[q.Image] = true
	}
	var others []fleetscore.Node // that could give way, those first that have the least to do
	giving := 0                  // that end already, after which others can be started
	for _, n := range nodes {
		if n.State == fleetscore.NodeDraining {
			giving++
		}
		if !n.State.Works() && !n.State.Coming() {
			continue
		}
		nodesOf[n.Image]++
		free[n.Image] += int64(max(0, n.Slots-n.Running))
		if n.State.Works() {
			others = append(others, n)
		}
	}
	slices.SortStableFunc(others, func(a, b fleetscore.Node) int { return cmp.Compare(a.Running, b.Running) })
	lacking := 0
	for _, q := range queued {
		if q.Image == "" {
			continue // any node will do
		}
		lack := int((max(0, q.Tasks-free[q.Image]) + int64(slots) - 1) / int64(slots))
		for ; lack > 0 && len(images) < starts; lack-- {
			images = append(images, q.Image)
		}
		lacking += lack
	}
	for _, n := range others {
		if lacking > giving+len(giveWay) && n.Running == 0 && !wanted[n.Image] && !wanted[""] {
			giveWay = append(giveWay, n.ID)
		}
	}
	// Nodes of other images may have so much to do that the first task would wait for all of it.
	if len(queued) == 0 || queued[0].Image == "" || nodesOf[queued[0].Image] > 0 || giving+len(images)+len(giveWay) > 0 || len(others) == 0 {
		return images, giveWay
	}
	return images, []fleetscore.NodeID{others[0].ID}
}
