package pool

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
)

// kindOf is one kind of nodes of a pool.
type kindOf struct {
	pool string
	kind fleetscore.NodeKind
}

// crashes says how often in a row nodes of a pool could not be used.
type crashes struct {
	n      int
	last   time.Time             // of them
	again  time.Time             // no node is started before
	reason string                // of the last one
	noted  []fleetscore.NodeID   // unusable nodes that were counted
	config fleetscore.PoolConfig // of the pool at the time
}

// A node that ends within tooSoon of its start makes the next start wait, twice as long
// each time; one whose setup command failed does so however long the command took.
const (
	tooSoon      = 2 * time.Second
	firstRestart = 500 * time.Millisecond
	maxRestart   = 30 * time.Second
	maxRepair    = 10 * time.Minute // after setup commands that failed: machines cost money
)

// manyBroken is how many nodes in a row have to fail until the pool is reported, and
// until only one node at a time is tried.
const manyBroken = 3

// BrokenPart is what the nodes of a pool are called where it is reported that they can't
// be used.
func BrokenPart(pool string) string { return "nodes of pool " + pool }

// BrokenLowPart is the same for its nodes of low priority.
func BrokenLowPart(pool string) string { return "low-priority " + BrokenPart(pool) }

func (k kindOf) part() string {
	if k.kind == fleetscore.LowPriority {
		return BrokenLowPart(k.pool)
	}
	return BrokenPart(k.pool)
}

// withoutHeld lets dedicated nodes take the place of those nodes of low priority that
// can't be had at present.
func (p *Pools) withoutHeld(pool string, c *fleetscore.PoolConfig, s autoscale.State) {
	p.mu.Lock()
	broken := p.crashes[kindOf{pool, fleetscore.LowPriority}]
	p.mu.Unlock()
	if c.Scale.LowPriority == nil || broken.n < manyBroken || !p.now().Before(broken.again) {
		return
	}
	low := *c.Scale.LowPriority
	low.Max = min(low.Max, s.AliveOf(fleetscore.LowPriority))
	low.Min = min(low.Min, low.Max)
	c.Scale.LowPriority = &low
}

// ended counts a node that ended too soon. A node that ran longer resets the counter.
func (p *Pools) ended(n fleetscore.Node, lived time.Duration, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if lived > tooSoon {
		c := p.crashes[kindOf{n.Pool, n.Kind}]
		p.crashes[kindOf{n.Pool, n.Kind}] = crashes{noted: c.noted, config: c.config}
		return
	}
	p.failed(kindOf{n.Pool, n.Kind}, maxRestart, reason)
}

// failed counts a node that could not be used. The caller holds mu.
func (p *Pools) failed(pool kindOf, most time.Duration, reason string) {
	c := p.crashes[pool]
	wait := firstRestart
	for i := 0; i < c.n && wait < most; i++ {
		wait *= 2
	}
	now := p.now()
	c.n, c.last, c.again, c.reason = c.n+1, now, now.Add(min(wait, most)), reason
	p.crashes[pool] = c
}

// careful bounds how many nodes of a pool are started now: none for a while after a node
// could not be used, each time longer; and after several of them one at a time, so that a
// pool whose nodes can't be used costs little. A node that takes tasks for a while, or a
// change of the pool's configuration, ends that.
func (p *Pools) careful(pool kindOf, cfg fleetscore.PoolConfig, nodes []fleetscore.Node, start int, rest time.Duration) (int, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	c := p.crashes[pool]
	coming, works := 0, false
	c.noted = slices.DeleteFunc(c.noted, func(id fleetscore.NodeID) bool {
		return !slices.ContainsFunc(nodes, func(n fleetscore.Node) bool { return n.ID == id })
	})
	p.crashes[pool] = c
	for _, n := range nodes {
		switch {
		case n.Kind != pool.kind:
		case n.State == fleetscore.NodeUnusable && !slices.Contains(c.noted, n.ID):
			p.failed(pool, maxRepair, n.Reason)
			c = p.crashes[pool]
			c.noted, c.config = append(c.noted, n.ID), cfg
			p.crashes[pool] = c
		case n.State.Coming():
			coming++
		case n.State.Works() && now.Sub(n.Ready) > tooSoon && n.Ready.After(c.last):
			works = true
		}
	}
	if c.n > 0 && (works || len(c.noted) > 0 && !reflect.DeepEqual(c.config, cfg)) {
		c = crashes{noted: c.noted, config: cfg} // the nodes that were counted aren't counted again
		p.crashes[pool] = c
	}
	if c.n < manyBroken {
		p.health.Warn(pool.part(), "")
	} else {
		p.health.Warn(pool.part(), fmt.Sprintf("the last %d nodes could not be used, so that one at a time is tried, the next at %s or later; the last: %s",
			c.n, c.again.UTC().Format(time.RFC3339), fleetscore.Printable(c.reason)))
		start = min(start, max(0, 1-coming))
	}
	if wait := c.again.Sub(now); wait > 0 && start > 0 {
		return 0, min(rest, wait)
	}
	return start, rest
}
