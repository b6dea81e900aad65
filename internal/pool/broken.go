package pool

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

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

// ended counts a node that ended too soon. A node that ran longer resets the counter.
func (p *Pools) ended(n fleetscore.Node, lived time.Duration, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if lived > tooSoon {
		c := p.crashes[n.Pool]
		p.crashes[n.Pool] = crashes{noted: c.noted, config: c.config}
		return
	}
	p.failed(n.Pool, maxRestart, reason)
}

// failed counts a node that could not be used. The caller holds mu.
func (p *Pools) failed(pool string, most time.Duration, reason string) {
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
func (p *Pools) careful(pool string, cfg fleetscore.PoolConfig, nodes []fleetscore.Node, start int, rest time.Duration) (int, time.Duration) {
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
		p.health.Warn(BrokenPart(pool), "")
	} else {
		p.health.Warn(BrokenPart(pool), fmt.Sprintf("the last %d nodes could not be used, so that one at a time is tried, the next at %s or later; the last: %s",
			c.n, c.again.UTC().Format(time.RFC3339), fleetscore.Printable(c.reason)))
		start = min(start, max(0, 1-coming))
	}
	if wait := c.again.Sub(now); wait > 0 && start > 0 {
		return 0, min(rest, wait)
	}
	return start, rest
}
