// Package pool keeps as many nodes as the work asks for: it starts and stops
// them by the queue, the bounds and how long each was idle.
//
// A Provider is what starts them; Local makes nodes child processes of the server.
// How many there should be is decided by package autoscale. The package gives no
// work to nodes, and the only nodes that it declares lost are those that it started
// itself and that ended or never registered.
//
// Run owns all goroutines, and ends all nodes that it started.
package pool

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/program"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Config says how long nodes may take.
type Config struct {
	StartLimit time.Duration // for a started node to register, unless its pool says so; 0 means 30 s
	StopLimit  time.Duration // for nodes to end when the server does; 0 means 10 s
}

// Deps is what a pool works with.
type Deps struct {
	Ledger    Ledger
	Store     store.Bucket          // for the nodes' own logs
	Providers map[string]Provider   // by the names that pools use in the configuration
	Log       *slog.Logger          // nil discards
	Health    *obs.Health           // may be nil
	Metrics   prometheus.Registerer // nil means none
	// Image is the image that a pool's containers have now, by its digest. nil means that nodes
	// are asked for without one.
	Image func(ctx context.Context, pool fleetscore.PoolConfig) (string, error)
	Now   func() time.Time // the time that nodes and waits are judged by; nil means time.Now
}

// Ledger is what pools need of the ledger.
type Ledger interface {
	ledger.Configs
	ledger.Queue
	ledger.Nodes
	ledger.NodeChanges
	ledger.Events
	ledger.Scales
	ledger.Schedules
	ledger.Jobs
}

// Pools runs the nodes of all pools of the configuration.
type Pools struct {
	cfg       Config
	ledger    Ledger
	store     store.Bucket
	providers map[string]Provider
	log       *slog.Logger
	health    *obs.Health
	image     func(ctx context.Context, pool fleetscore.PoolConfig) (string, error)
	now       func() time.Time
	starts    *prometheus.CounterVec

	// Only the loop that scales uses these. All but the first are by pool.
	discarded map[fleetscore.NodeID]bool // nodes that never registered and were ended
	formulas  map[string]*steered
	newest    map[string]autoscale.Sample                // the last one taken
	loads     map[fleetscore.NodeID]*fleetscore.NodeLoad // what nodes had measured at the last sample
	takes     map[string]time.Duration                   // how long its nodes take to start, where that is known
	fetched   map[string][]string                        // the images that were fetched for the tasks that wait

	waits   sync.WaitGroup // for nodes to end
	mu      sync.Mutex     // guards what follows
	running map[fleetscore.NodeID]Running
	crashes map[kindOf]crashes
}

// New builds the pools; nothing is started yet.
func New(cfg Config, deps Deps) (*Pools, error) {
	if cfg.StartLimit == 0 {
		cfg.StartLimit = 30 * time.Second
	}
	if cfg.StopLimit == 0 {
		cfg.StopLimit = 10 * time.Second
	}
	p := &Pools{cfg: cfg, ledger: deps.Ledger, store: deps.Store, providers: deps.Providers, log: deps.Log, health: deps.Health, image: deps.Image, now: deps.Now,
		running: map[fleetscore.NodeID]Running{}, discarded: map[fleetscore.NodeID]bool{}, crashes: map[kindOf]crashes{}, formulas: map[string]*steered{}, takes: map[string]time.Duration{}, fetched: map[string][]string{}, newest: map[string]autoscale.Sample{}, loads: map[fleetscore.NodeID]*fleetscore.NodeLoad{},
		starts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_pool_nodes_total",
			Help: "Nodes by what became of them: started, stopped, unusable, lost."}, []string{"event"})}
	for _, e := range []string{"started", "stopped", "unusable", "lost"} {
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
	p.waits.Go(func() { p.compareAll(ctx) })
	trouble := new(lifecycle.Outages).Trouble(p.log)
	for {
		begun := p.now()
		rest, err := p.scale(ctx)
		if err := p.calm(ctx, p.now().Sub(begun)); err != nil {
			return err
		}
		if err != nil {
			trouble.Failed(slog.LevelError, "pools are held up", err)
			rest = time.Second
		} else {
			trouble.Works("pools go on")
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

// calm waits four times as long as a look at the pools took, at most half a second:
// where a pool has thousands of nodes, events follow each other so closely that looks
// would fill a processor.
func (p *Pools) calm(ctx context.Context, took time.Duration) error {
	if took <= 0 {
		return ctx.Err()
	}
	wait := time.NewTimer(min(4*took, 500*time.Millisecond))
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
		return nil
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
	p.forgetFormulas(cfg)
	maps.DeleteFunc(p.fetched, func(pool string, _ []string) bool { _, ok := cfg.Pools[pool]; return !ok })
	problems := []error{p.strays(ctx, cfg)}
	for _, name := range slices.Sorted(maps.Keys(cfg.Pools)) {
		c := cfg.Pools[name]
		wake, err := p.scaleOne(ctx, name, c)
		problems = append(problems, err)
		rest = min(rest, wake)
	}
	return max(rest, 10*time.Millisecond), errors.Join(problems...)
}

func (p *Pools) scaleOne(ctx context.Context, name string, c fleetscore.PoolConfig) (rest time.Duration, err error) {
	now := p.now()
	if last := p.newest[name].At; c.Provider == Static && !due(now, last, formula.SamplePeriod) { // its nodes, maybe thousands, are read for samples only
		return min(maxRest, last.Add(formula.SamplePeriod).Sub(now)), nil
	}
	nodes, err := p.ledger.Nodes(ctx, name)
	if err != nil {
		return maxRest, err
	}
	state := autoscale.State{Now: now, Kinds: c.Scale.LowPriority != nil}
	if state.Queued, state.Leased, err = p.ledger.QueueDepth(ctx, name); err != nil {
		return maxRest, err
	}
	for _, n := range nodes {
		state.Nodes = append(state.Nodes, autoscale.NodeView{ID: n.ID, State: n.State, Running: n.Running, Started: n.Started, IdleSince: n.IdleSince, Kind: n.Kind, Preempted: n.Preempted(), Load: n.Load, Before: p.loads[n.ID]})
	}
	if c.Provider == Static { // people start and stop these nodes
		next, err := p.sample(ctx, name, c.Slots, state, nil)
		return min(maxRest, next), err
	}
	p.measure(name, nodes)
	configured := c
	queued, err := p.waiting(ctx, name, c)
	if err != nil {
		return maxRest, err
	}
	state.AtLeast = apart(queued, max(1, c.Slots), nodes)
	p.withoutHeld(name, &c, state)
	wake, err := p.warm(ctx, name, &c, now)
	if err != nil {
		return maxRest, err
	}
	d, rest, err := p.decide(ctx, name, c, state)
	if err != nil {
		return maxRest, err
	}
	if !wake.IsZero() {
		rest = min(rest, wake.Sub(now))
	}
	d.Start, rest = p.careful(kindOf{name, fleetscore.Dedicated}, configured, nodes, d.Start, rest)
	d.StartLow, rest = p.careful(kindOf{name, fleetscore.LowPriority}, configured, nodes, d.StartLow, rest)
	images, giveWay, err := p.images(ctx, c, queued, nodes, d.Start+d.StartLow)
	if err != nil {
		return maxRest, err
	}
	p.fetch(ctx, name, c, queued, nodes, d.Start+d.StartLow)
	for i := range d.Start + d.StartLow {
		kind := fleetscore.Dedicated
		if i >= d.Start {
			kind = fleetscore.LowPriority
		}
		if err := p.start(ctx, name, kind, images[i], c); err != nil {
			return maxRest, err
		}
	}
	for _, id := range slices.Concat(d.Drain, d.Interrupt, giveWay) {
		p.log.Info("node is drained", "node", id, "pool", name)
		if err := p.ledger.SetNodeState(ctx, id, fleetscore.NodeDraining); err != nil {
			return maxRest, err
		}
	}
	return rest, p.interrupt(ctx, name, d.Interrupt)
}

// decide is what to do about the number of a pool's nodes, and when to look again.
func (p *Pools) decide(ctx context.Context, name string, c fleetscore.PoolConfig, s autoscale.State) (d autoscale.Decision, rest time.Duration, err error) {
	if c.Scale.Formula != "" {
		return p.byFormula(ctx, name, c, s)
	}
	rest = maxRest
	if wake, ok := autoscale.Wake(c.Scale, s); ok {
		rest = min(rest, wake.Sub(s.Now))
	}
	next, err := p.sample(ctx, name, c.Slots, s, nil)
	if err != nil {
		return d, rest, err
	}
	rest = min(rest, next)
	return autoscale.Target(c.Scale, c.Slots, s), rest, nil
}

// hungAfter is how long ago the last sign of life of a node that is lost may be
// before its process is ended: a node that merely doesn't reach the server gives up
// by itself sooner (node.Config.AwayLimit).
const hungAfter = 3 * time.Minute

// strays ends nodes that would otherwise run on: those that never registered, those that
// were lost and run on all the same, as a process does that hangs, and those of pools
// that the configuration has no more.
func (p *Pools) strays(ctx context.Context, cfg fleetscore.Config) error {
	nodes, err := p.ledger.Strays(ctx, slices.Sorted(maps.Keys(cfg.Pools)))
	if err != nil {
		return err
	}
	now := p.now()
	maps.DeleteFunc(p.discarded, func(id fleetscore.NodeID, _ bool) bool {
		return !slices.ContainsFunc(nodes, func(n fleetscore.Node) bool { return n.ID == id })
	})
	for _, n := range nodes {
		c, configured := cfg.Pools[n.Pool]
		switch {
		case n.PID == 0 && now.Sub(n.Started) > p.startLimit(c) && (p.ours(n.ID) != nil || n.State != fleetscore.NodeStopped && !p.discarded[n.ID]):
			// It may have been drained, and lost for its silence, before this limit.
			p.log.Error("node didn't register in time", "node", n.ID, "limit", p.startLimit(c))
			why := fmt.Sprintf("its agent didn't register within %s of its start; look at its log, and whether it reaches the server's address", p.startLimit(c))
			if _, err := p.ledger.UpdateNode(ctx, n.ID, func(n *fleetscore.Node) error { n.Reason = why; return nil }); err != nil {
				return err
			}
			p.discard(ctx, n, c.Provider)
			if err = p.ledger.SetNodeState(ctx, n.ID, fleetscore.NodeLost); err == nil {
				p.discarded[n.ID] = true
			}
		case n.State == fleetscore.NodeLost && now.Sub(n.Heartbeat) > hungAfter && p.ours(n.ID) != nil:
			p.log.Error("node hangs and is killed", "node", n.ID, "heartbeat", n.Heartbeat)
			p.discard(ctx, n, c.Provider)
		case (n.State == fleetscore.NodeStopped || n.State == fleetscore.NodeUnusable) && p.ours(n.ID) != nil: // the node has ended; its machine, if it has one of its own, still runs
			p.ours(n.ID).Stop()
		case !configured && (n.State.Works() || n.State == fleetscore.NodePreparing):
			err = p.ledger.SetNodeState(ctx, n.ID, fleetscore.NodeDraining)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// start starts a node. It is in the ledger before its process is, so that a
// crash in between leaves nothing that isn't known.
func (p *Pools) start(ctx context.Context, pool string, kind fleetscore.NodeKind, image string, c fleetscore.PoolConfig) error {
	now := p.now().UTC()
	host, _ := os.Hostname() // for display only
	id := fleetscore.NodeID(pool + "-" + strings.ToLower(rand.Text()[:randomLetters]))
	if by, ok := p.providers[c.Provider].(Lasting); ok {
		id = by.NodeID(string(id))
	}
	n := fleetscore.Node{ID: id, Pool: pool, Kind: kind, Image: image, Slots: max(1, c.Slots), State: fleetscore.NodeStarting, Host: host, Started: now, Heartbeat: now, IdleSince: now}
	if _, err := p.ledger.UpdateNode(ctx, n.ID, func(have *fleetscore.Node) error { *have = n; return nil }); err != nil {
		return err
	}
	var running Running
	err := p.stillExpected(n, c)
	if err == nil {
		running, err = p.launch(ctx, c.Provider, n)
	}
	if err != nil {
		p.log.Error("node can't be started", "pool", pool, "error", err)
		return errors.Join(err, p.ledger.SetNodeState(ctx, n.ID, fleetscore.NodeLost))
	}
	p.mu.Lock()
	p.running[n.ID] = running
	p.mu.Unlock()
	p.starts.WithLabelValues("started").Inc()
	p.log.Info("node started", "node", n.ID, "pool", pool)
	p.waits.Go(func() { p.reap(n, running.Wait()) })
	return nil
}

// stillExpected refuses to start a node that was put into the ledger so long ago that the
// server that leads may have given it up. That happens if this process was frozen in between,
// and another server leads now: it counts the node until the limit for its start, and starts
// others after that.
func (p *Pools) stillExpected(n fleetscore.Node, c fleetscore.PoolConfig) error {
	late := p.now().Sub(n.Started)
	if late <= p.startLimit(c)/2 {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Unavailable, "start node", string(n.ID), "%s went by since it was decided to start it, so it isn't started", late.Round(time.Second)).
		WithHint("the process of the server was frozen, or its ledger is very slow; the pool is looked at again at once")
}

func (p *Pools) launch(ctx context.Context, provider string, n fleetscore.Node) (Running, error) {
	by, ok := p.providers[provider]
	if !ok {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "start node", string(n.ID), "this server has no provider %q for pool %s", provider, n.Pool)
	}
	return by.Start(ctx, n)
}

// reap notes the end of a node and keeps what it wrote.
func (p *Pools) reap(n fleetscore.Node, end Ended) {
	p.mu.Lock()
	delete(p.running, n.ID)
	p.mu.Unlock()
	if end.Left {
		p.log.Info("node runs on without this server", "node", n.ID)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	how, last := "stopped", program.LastLine(end.Output)
	now, err := p.ledger.Node(ctx, n.ID)
	why := cmp.Or(now.Reason, whyEnded(now, end, last))
	if err == nil && end.Unusable {
		how = "unusable"
		now, err = p.ledger.UpdateNode(ctx, n.ID, func(n *fleetscore.Node) error {
			n.State, n.Reason = fleetscore.NodeUnusable, why
			return nil
		})
	}
	if err == nil && now.State != fleetscore.NodeStopped && now.State != fleetscore.NodeUnusable {
		how = "lost"
		now, err = p.ledger.UpdateNode(ctx, n.ID, func(n *fleetscore.Node) error {
			if n.State.Works() && n.Kind == fleetscore.LowPriority {
				n.Reason = fleetscore.PreemptedReason + ": its process or machine ended"
			}
			n.Reason = cmp.Or(n.Reason, why)
			n.State = fleetscore.NodeLost
			return nil
		})
	}
	p.starts.WithLabelValues(how).Inc()
	switch how {
	case "lost":
		lived := p.now().Sub(n.Started)
		if now.PID == 0 {
			lived = 0 // it never registered, however long its start took
		}
		if now.Preempted() {
			lived = max(lived, 2*tooSoon) // that says nothing about the next one
		}
		p.ended(n, lived, why)
		p.log.Error("node is lost", "node", n.ID, "reason", why, "exit", fmt.Sprint(end.Err), "last", last)
	case "unusable":
		p.log.Error("node is unusable", "node", n.ID, "reason", why)
	default:
		p.log.Info("node ended", "node", n.ID)
	}
	if e := p.keepLog(ctx, n, end.Output); e != nil || err != nil {
		p.log.Error("a node's end could not be recorded", "node", n.ID, "error", err, "log", e)
	}
}

// whyEnded is why a node ended that gave no reason itself. last is its last line.
func whyEnded(n fleetscore.Node, end Ended, last string) string {
	if end.Unusable {
		return fleetscore.Printable(end.Err.Error())
	}
	how := "it ended without a goodbye"
	if n.PID == 0 {
		how = "it ended before its agent registered"
	}
	if last != "" {
		return fmt.Sprintf("%s (%v); its last line: %q", how, end.Err, last)
	}
	return fmt.Sprintf("%s (%v)", how, end.Err)
}

// keepLog keeps what a node's process or its machine's commands printed, after what is kept
// of the same node.
func (p *Pools) keepLog(ctx context.Context, n fleetscore.Node, text []byte) error {
	name := catalog.NodeOutput(n.Pool, n.ID)
	before, err := store.ReadAll(ctx, p.store, name)
	if err != nil && !fleetscore.NotFound.Is(err) {
		return err
	}
	if len(before) > 0 && !bytes.HasSuffix(before, []byte("\n")) {
		before = append(before, '\n')
	}
	return store.WriteAll(ctx, p.store, name, append(before, text...), store.PutOptions{})
}

// ours returns a running node that this server started, and nil for any other node.
func (p *Pools) ours(id fleetscore.NodeID) Running {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running[id]
}

// discard ends a node at once, or asks it to end if a former server started it.
func (p *Pools) discard(ctx context.Context, n fleetscore.Node, provider string) {
	if running := p.ours(n.ID); running != nil {
		running.Kill()
		return
	}
	if by, ok := p.providers[provider]; ok {
		if err := by.StopEarlier(ctx, n); err != nil && !fleetscore.NotFound.Is(err) {
			p.log.Warn("a node that never registered can't be stopped", "node", n.ID, "error", err)
		}
	}
}

// stopAll asks all nodes that were started to end, and kills those that don't in
// time.
func (p *Pools) stopAll() {
	p.mu.Lock()
	left := slices.Collect(maps.Values(p.running))
	p.mu.Unlock()
	for _, by := range p.providers {
		if l, ok := by.(Lasting); ok {
			l.Leave() // then Stop and Kill do nothing to its nodes
		}
	}
	for _, r := range left {
		r.Stop()
	}
	p.stopEarlier()
	limit := time.AfterFunc(p.cfg.StopLimit, func() {
		for _, r := range left {
			r.Kill()
		}
	})
	defer limit.Stop()
	p.waits.Wait()
}

// aliveWithin is how long ago a node's last sign of life may be for it to be asked
// to end.
const aliveWithin = 10 * time.Second

// stopEarlier asks the nodes to end that a server started before this one, if they
// gave a sign of life just now.
func (p *Pools) stopEarlier() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	cfg, _, _, err := p.ledger.Config(ctx)
	if fleetscore.NotFound.Is(err) {
		return // no pool was ever configured
	}
	nodes, nodesErr := p.ledger.Nodes(ctx, "")
	if err = errors.Join(err, nodesErr); err != nil {
		p.log.Error("nodes of an earlier server can't be stopped; they end by themselves", "error", err)
		return
	}
	for _, n := range nodes {
		alive := n.State.Speaks() && p.now().Sub(n.Heartbeat) < aliveWithin
		by, known := p.providers[cfg.Pools[n.Pool].Provider]
		if !alive || p.ours(n.ID) != nil || !known {
			continue
		}
		if err := by.StopEarlier(ctx, n); err != nil {
			p.log.Warn("a node of an earlier server can't be stopped; it ends by itself", "node", n.ID, "error", err)
		}
	}
}
