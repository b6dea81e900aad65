// Package broker is the server's side of the node protocol: nodes register, lease
// tasks, give signs of life and deliver results. The broker says which blobs a lease
// opens, and takes leases back that ran out, whose node is gone or whose time is up.
//
// Package dispatch decides what an attempt's end means for its task; the ledger holds the
// state. No call of a node waits for the store. The broker makes no jobs and no tasks,
// commits no results (scheduler), keeps no logs (logs), and starts no nodes (pool).
//
// Run owns all goroutines; all other methods are safe for concurrent use.
package broker

import (
	"container/list"
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// Config says how the broker treats nodes.
type Config struct {
	StoreURL  string        // the store's folder, which nodes open; empty lets them ask the server
	LeaseTTL  time.Duration // a lease that isn't renewed within it is taken back; 0 means 30 s
	LostAfter time.Duration // a node that gave no sign of life for as long is lost; 0 means 15 s
}

// Defaults fills the fields that are zero.
func (c Config) Defaults() Config {
	if c.LeaseTTL == 0 {
		c.LeaseTTL = 30 * time.Second
	}
	if c.LostAfter == 0 {
		c.LostAfter = 15 * time.Second
	}
	return c
}

// Deps is what the broker works with.
type Deps struct {
	Ledger Ledger
	// Examine looks at a blob of the store that a node found damaged. It may take as
	// long as the store takes. nil means that nobody looks.
	Examine func(ctx context.Context, blob string)
	// KeepOutput stores what the setup command of a node wrote. nil means that it isn't
	// stored.
	KeepOutput func(ctx context.Context, pool string, node fleetscore.NodeID, text []byte) error
	// Secret is the value of a secret that commands may be given. nil means that there are none.
	Secret  func(name string) (string, error)
	Log     *slog.Logger          // nil discards
	Now     func() time.Time      // decides what ran out; it must not trust a jump of the wall clock. nil means time.Now
	Health  *obs.Health           // what doesn't work is reported there; nil means nowhere
	Metrics prometheus.Registerer // nil means none
}

// Ledger is what the broker needs of the ledger.
type Ledger interface {
	ledger.Configs
	ledger.Jobs
	ledger.JobChanges
	ledger.Tasks
	ledger.Queue
	ledger.Nodes
	ledger.NodeChanges
	ledger.Events
}

// Broker gives tasks to nodes.
type Broker struct {
	cfg     Config
	ledger  Ledger
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
	loops   lifecycle.Loops[ledger.Topic]
	doors   *doors
	surveys *surveys
	secret  func(name string) (string, error) // nil if commands are given none
	examine func(ctx context.Context, blob string)
	damaged chan string // blobs to be examined
	keep    func(ctx context.Context, pool string, node fleetscore.NodeID, text []byte) error
	outputs chan nodeOutput // of setup commands, to be stored
}

// maxDamaged is how many blobs may wait to be examined. Further ones aren't examined now;
// maintenance finds them later.
const maxDamaged = 16

// examineWithin is how long the look at one blob may take.
const examineWithin = time.Minute

// nodeOutput is what the setup command of a node wrote.
type nodeOutput struct {
	pool string
	node fleetscore.NodeID
	text []byte
}

// maxOutputs bounds the outputs of setup commands that wait for the store; each has at
// most dispatch.MaxSetupOutputBytes.
const maxOutputs = 32

// New builds a broker; the ledger must be open.
func New(cfg Config, deps Deps) (*Broker, error) {
	b := &Broker{cfg: cfg.Defaults(), ledger: deps.Ledger, log: deps.Log, now: deps.Now, secret: deps.Secret, examine: deps.Examine, damaged: make(chan string, maxDamaged), keep: deps.KeepOutput, outputs: make(chan nodeOutput, maxOutputs), doors: &doors{waiting: map[string]*list.List{}}, surveys: &surveys{open: map[string]*survey{}}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if b.now == nil {
		b.now = time.Now
	}
	if b.examine == nil {
		b.examine = func(context.Context, string) {}
	}
	if b.keep == nil {
		b.keep = func(context.Context, string, fleetscore.NodeID, []byte) error { return nil }
	}
	var err error
	b.metrics, err = newMetrics(deps.Metrics)
	b.loops = lifecycle.Loops[ledger.Topic]{Outages: &lifecycle.Outages{}, Watch: deps.Ledger.Watch, Now: b.now, Failed: func(string) { b.metrics.errors.Inc() }, Health: deps.Health, Log: b.log}
	return b, err
}

// Run does what Tend, Call, Examine and KeepOutputs do, until ctx ends.
func (b *Broker) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.Tend(ctx) })
	group.Go(func() error { return b.Call(ctx) })
	group.Go(func() error { return b.Examine(ctx) })
	group.Go(func() error { return b.KeepOutputs(ctx) })
	return group.Wait()
}

// Tend takes back what ran out, until ctx ends. Of several servers the one that leads
// does this.
func (b *Broker) Tend(ctx context.Context) error {
	return b.loops.Run(ctx, loop{Kind: "nodes", Part: "nodes", Watch: []ledger.Topic{ledger.AnyNodes}, Step: b.tend, Gentle: true})
}

// Call calls the nodes that wait for tasks when there are some, until ctx ends. Each server
// does this for the nodes that ask it.
func (b *Broker) Call(ctx context.Context) error {
	return b.loops.Run(ctx, loop{Kind: "queue", Part: "queue", Watch: []ledger.Topic{ledger.AnyQueue}, Step: b.open})
}

// Examine looks at the blobs that nodes found damaged, until ctx ends.
func (b *Broker) Examine(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case blob := <-b.damaged:
			limited, cancel := context.WithTimeout(ctx, examineWithin)
			b.examine(limited, blob)
			cancel()
		}
	}
}

// KeepOutputs stores what setup commands wrote, until ctx ends. Every server that takes
// the messages of nodes has to do it.
func (b *Broker) KeepOutputs(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case o := <-b.outputs:
			limited, cancel := context.WithTimeout(ctx, examineWithin)
			if err := b.keep(limited, o.pool, o.node, o.text); err != nil {
				b.log.Error("the output of a setup command can't be stored", "node", o.node, "error", err)
			}
			cancel()
		}
	}
}

// With is the same broker with another view of the ledger, such as the one by which
// only the server that leads can write.
func (b *Broker) With(l Ledger) *Broker {
	out := *b
	out.ledger, out.loops.Watch = l, l.Watch
	return &out
}

type (
	loop = lifecycle.Loop[ledger.Topic]
	next = lifecycle.Next[ledger.Topic]
)

// metrics are the broker's figures for operators.
type metrics struct {
	attempts *prometheus.CounterVec
	errors   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_broker_attempts_total",
			Help: "Attempts of tasks that ended, by how."}, []string{"end"}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{Name: "fleetscore_broker_errors_total",
			Help: "How often looking after nodes and leases failed; it is tried again."}),
	}
	for _, e := range dispatch.Ends {
		m.attempts.WithLabelValues(string(e))
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.attempts, m.errors} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
