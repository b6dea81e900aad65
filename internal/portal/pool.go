package portal

import (
	"context"
	"net/http"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
)

// poolTile is a pool, its queue and its nodes without those that ended.
type poolTile struct {
	Name           string
	Queued, Leased int64
	Nodes          []fleetscore.Node
	Max            int
}

func (p *Portal) poolTile(ctx context.Context, name string, c fleetscore.PoolConfig) (t poolTile, err error) {
	t = poolTile{Name: name, Max: c.Scale.Max}
	if t.Queued, t.Leased, err = p.deps.Ledger.QueueDepth(ctx, name); err != nil {
		return t, err
	}
	nodes, err := p.deps.Ledger.Nodes(ctx, name)
	t.Nodes = slices.DeleteFunc(nodes, func(n fleetscore.Node) bool {
		return n.State.Ended()
	})
	return t, err
}

// poolPage is a pool with what decides how many nodes it has.
type poolPage struct {
	poolTile
	Config      fleetscore.PoolConfig
	Evaluations []autoscale.Evaluation
	Usage       *autoscale.Usage  // nil if there are no samples
	Ended       []fleetscore.Node // nodes of the last hour that ended before their time, and why
}

// maxEvaluations is how many evaluations a page shows.
const maxEvaluations = 50

// refresh is the number of seconds after which a browser loads the page again.
func (poolPage) refresh() int { return 10 }

func (p *Portal) pool(r *http.Request) (any, error) {
	ctx, name := r.Context(), r.PathValue("name")
	cfg, _, _, err := p.deps.Ledger.Config(ctx)
	if err != nil && !fleetscore.NotFound.Is(err) {
		return nil, err
	}
	c, ok := cfg.Pools[name]
	if !ok {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "show pool", name, "there is no such pool")
	}
	v := poolPage{Config: c}
	if v.poolTile, err = p.poolTile(ctx, name, c); err != nil {
		return nil, err
	}
	nodes, err := p.deps.Ledger.Nodes(ctx, name)
	if err != nil {
		return nil, err
	}
	v.Ended = slices.DeleteFunc(nodes, func(n fleetscore.Node) bool { return !n.State.Ended() || n.Reason == "" })
	samples, err := p.deps.Ledger.Samples(ctx, name, p.deps.Now().Add(-autoscale.Horizon))
	if err != nil {
		return nil, err
	}
	if len(samples) > 0 {
		u := autoscale.Used(samples, c.Scale)
		v.Usage = &u
	}
	v.Evaluations, err = p.deps.Ledger.Evaluations(ctx, name, maxEvaluations)
	return v, err
}
