// Package pool keeps as many nodes as the work asks for: it starts and stops
// them by the queue, the bounds and how long each was idle.
//
// It knows one provider, local: nodes are child processes of the server. How
// many there should be is decided by package autoscale. It gives no work to
// nodes and declares none lost but its own children that ended.
//
// Run owns all goroutines and child processes.
package pool

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Config says how child processes are started.
type Config struct {
	ServerURL  string        // where nodes reach the server
	Executable string        // the program; "" means this one
	TokenFile  string        // file with the token of nodes
	CAFile     string        // certificates that nodes trust the server by; empty where it speaks plain HTTP
	ServerName string        // the name in the server's certificate; empty where it is the URL's
	StartLimit time.Duration // for a started node to register; 0 means 30 s
	StopLimit  time.Duration // for nodes to end when the server does; 0 means 10 s
}

// Deps is what a pool works with.
type Deps struct {
	Ledger  ledger.Ledger
	Store   store.Bucket          // for the nodes' own logs
	Log     *slog.Logger          // nil discards
	Metrics prometheus.Registerer // nil means none
	Now     func() time.Time      // the time that signs of life of nodes are judged by; nil means time.Now
}

// Pools runs the nodes of all pools of the configuration.
type Pools struct {
	cfg    Config
	ledger ledger.Ledger
	store  store.Bucket
	log    *slog.Logger
	now    func() time.Time
	starts *prometheus.CounterVec

	children sync.WaitGroup
	mu       sync.Mutex // guards what follows
	running  map[fleetscore.NodeID]*child
	crashes  map[string]crashes // by pool
}

// crashes says how often in a row a pool's nodes ended as soon as they started.
type crashes struct {
	n     int
	again time.Time // no node is started before
}

// A node that ends within tooSoon of its start makes the next start wait, twice
// as long each time.
const (
	tooSoon      = 2 * time.Second
	firstRestart = 500 * time.Millisecond
	maxRestart   = 30 * time.Second
)

// crashed counts a node that ended too soon; one that lived longer forgives all.
func (p *Pools) crashed(pool string, lived time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if lived > tooSoon {
		delete(p.crashes, pool)
		return
	}
	c := p.crashes[pool]
	wait := firstRestart
	for i := 0; i < c.n && wait < maxRestart; i++ {
		wait *= 2
	}
	p.crashes[pool] = crashes{c.n + 1, time.Now().Add(min(wait, maxRestart))}
}

// held is how long no node of the pool may be started yet.
func (p *Pools) held(pool string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, time.Until(p.crashes[pool].again))
}

// New builds the pools; nothing is started yet.
func New(cfg Config, deps Deps) (*Pools, error) {
	if cfg.StartLimit == 0 {
		cfg.StartLimit = 30 * time.Second
	}
	if cfg.StopLimit == 0 {
		cfg.StopLimit = 10 * time.Second
	}
	if cfg.Executable == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, fleetscore.Wrap("find this program", "", err)
		}
		cfg.Executable = exe
	}
	p := &Pools{cfg: cfg, ledger: deps.Ledger, store: deps.Store, log: deps.Log, now: deps.Now, running: map[fleetscore.NodeID]*child{}, crashes: map[string]crashes{},
		starts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_pool_nodes_total",
			Help: "Nodes by what became of them: started, stopped, lost."}, []string{"event"})}
	for _, e := range []string{"started", "stopped", "lost"} {
		p.starts.WithLabelValues(e)
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.now == nil {
		p.now = time.Now
	}
	if deps.Metrics != nil {
		if err := deps.Metrics.Register(p.starts); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// maxRest bounds how long a pool isn't looked at.
const maxRest = 5 * time.Second

// Run keeps the pools' sizes until ctx ends; then it stops all nodes and returns
// when they have ended.
func (p *Pools) Run(ctx context.Context) error {
	changes, stop := p.ledger.Watch(ledger.ConfigTopic, ledger.AnyQueue, ledger.AnyNodes)
	defer stop()
	defer p.stopAll()
	for {
		rest, err := p.scale(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			p.log.Error("pools are held up", "error", err)
			rest = time.Second
		}
		timer := time.NewTimer(rest)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		case <-changes:
			timer.Stop()
		}
	}
}

// scale brings every pool to its target.
func (p *Pools) scale(ctx context.Context) (rest time.Duration, err error) {
	cfg, _, _, err := p.ledger.Config(ctx)
	if fleetscore.NotFound.Is(err) {
		return maxRest, nil
	} else if err != nil {
		return maxRest, err
	}
	rest = maxRest
	var problems []error
	for name, c := range cfg.Pools {
		wake, err := p.scaleOne(ctx, name, c)
		problems = append(problems, err)
		rest = min(rest, wake)
	}
	problems = append(problems, p.drainOrphans(ctx, cfg))
	return max(rest, 10*time.Millisecond), errors.Join(problems...)
}

func (p *Pools) scaleOne(ctx context.Context, name string, c fleetscore.PoolConfig) (rest time.Duration, err error) {
	now := p.now()
	nodes, err := p.ledger.Nodes(ctx, name)
	if err != nil {
		return maxRest, err
	}
	state := autoscale.State{Now: now}
	if state.Queued, state.Leased, err = p.ledger.QueueDepth(ctx, name); err != nil {
		return maxRest, err
	}
	for _, n := range nodes {
		if n.State == fleetscore.NodeStarting && now.Sub(n.Started) > p.cfg.StartLimit {
			p.log.Error("node didn't register in time", "node", n.ID, "limit", p.cfg.StartLimit)
			p.kill(n.ID)
			if err := p.ledger.SetNodeState(ctx, n.ID, fleetscore.NodeLost); err != nil {
				return maxRest, err
			}
			continue
		}
		state.Nodes = append(state.Nodes, autoscale.NodeView{ID: n.ID, State: n.State, Running: n.Running, IdleSince: n.IdleSince})
	}
	d := autoscale.Target(c.Scale, c.Slots, state)
	rest = maxRest
	if wait := p.held(name); wait > 0 && d.Start > 0 {
		d.Start, rest = 0, min(rest, wait)
	}
	for range d.Start {
		if err := p.start(ctx, name, c); err != nil {
			return maxRest, err
		}
	}
	for _, id := range d.Drain {
		p.log.Info("node is drained", "node", id, "pool", name)
		if err := p.ledger.SetNodeState(ctx, id, fleetscore.NodeDraining); err != nil {
			return maxRest, err
		}
	}
	if wake, ok := autoscale.Wake(c.Scale, state); ok {
		rest = min(rest, wake.Sub(now))
	}
	return rest, nil
}

// drainOrphans stops the nodes of pools that the configuration has no more.
func (p *Pools) drainOrphans(ctx context.Context, cfg fleetscore.Config) error {
	nodes, err := p.ledger.Nodes(ctx, "")
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if _, ok := cfg.Pools[n.Pool]; !ok && n.State == fleetscore.NodeReady {
			if err := p.ledger.SetNodeState(ctx, n.ID, fleetscore.NodeDraining); err != nil {
				return err
			}
		}
	}
	return nil
}

// start starts a node. It is in the ledger before its process is, so that a
// crash in between leaves nothing that isn't known.
func (p *Pools) start(ctx context.Context, pool string, c fleetscore.PoolConfig) error {
	now := p.now().UTC()
	host, _ := os.Hostname() // for display only
	n := fleetscore.Node{ID: fleetscore.NodeID(pool + "-" + strings.ToLower(rand.Text()[:6])), Pool: pool, Slots: max(1, c.Slots),
		State: fleetscore.NodeStarting, Host: host, Started: now, Heartbeat: now, IdleSince: now}
	if _, err := p.ledger.UpdateNode(ctx, n.ID, func(have *fleetscore.Node) error { *have = n; return nil }); err != nil {
		return err
	}
	if err := p.spawn(n); err != nil {
		p.log.Error("node can't be started", "pool", pool, "error", err)
		return errors.Join(err, p.ledger.SetNodeState(ctx, n.ID, fleetscore.NodeLost))
	}
	p.starts.WithLabelValues("started").Inc()
	return nil
}
