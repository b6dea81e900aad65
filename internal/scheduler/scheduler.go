// Package scheduler carries jobs from their due time to their commit: it makes
// them when a schedule says so, waits for their data, plans them into tasks,
// gives tasks to nodes, takes leases back, keeps the nodes' logs, and makes
// results visible.
//
// What to do is decided by packages schedule and dispatch; what is true lies in
// the ledger, so that a scheduler can be killed at any moment and started again.
// It scores nothing and starts no nodes.
//
// Run owns all goroutines; all other methods are safe for concurrent use.
package scheduler

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Config says how the scheduler works.
type Config struct {
	StoreURL  string        // the store's folder, which nodes open; empty lets them ask the server
	SpoolDir  string        // folder for the logs of attempts that run
	LeaseTTL  time.Duration // a lease that isn't renewed within it is taken back; 0 means 30 s
	LostAfter time.Duration // a node that gave no sign of life for as long is lost; 0 means 15 s
	// ModelRoots are the folders of this machine that fleets may read models from,
	// and what lies in them; none means that models are read from the store alone.
	ModelRoots store.Roots
	// MaxModelBytes is the largest model that fleets read; 0 means 256 MiB.
	MaxModelBytes int64
	SyncEvery     time.Duration // how often folders of models are looked at; 0 means as each fleet says
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

// Deps is what a scheduler works with.
type Deps struct {
	Ledger  Ledger
	Store   store.Bucket
	Catalog *catalog.Catalog      // the store's; nil means one of the scheduler's own
	Log     *slog.Logger          // nil discards
	Now     func() time.Time      // decides what is due; it must not trust a jump of the wall clock. nil means time.Now
	Health  *obs.Health           // what doesn't work is reported there; nil means nowhere
	Metrics prometheus.Registerer // nil means none
}

// Ledger is what the scheduler needs of the ledger.
type Ledger interface {
	ledger.Configs
	ledger.Schedules
	ledger.Jobs
	ledger.JobChanges
	ledger.Tasks
	ledger.Queue
	ledger.Nodes
	ledger.NodeChanges
	ledger.Events
	ledger.History
}

// Scheduler carries out pipelines.
type Scheduler struct {
	cfg     Config
	ledger  Ledger
	store   store.Bucket
	catalog *catalog.Catalog
	log     *slog.Logger
	now     func() time.Time
	health  *obs.Health
	metrics *metrics
	spool   spool
	memory  *fleet.Memory // what the syncs of all fleets hold together
	seals   chan struct{} // signals that a log may be sealed

	look time.Duration // how often loops look at the clock, which may run apart from their timers

	upkeep  sync.Mutex // held while the tables and the ledger are maintained; guards strayed
	strayed time.Time  // when logs that belong to nobody were looked for

	mu      sync.Mutex // guards what follows
	syncs   map[string]*fleetSync
	waiting map[string]int // jobs that wait, by pipeline
}

// New builds a scheduler; the ledger must be open.
func New(cfg Config, deps Deps) (*Scheduler, error) {
	cfg = cfg.Defaults()
	if cfg.SpoolDir == "" {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "configure scheduler", "", "it needs a spool folder")
	}
	s := &Scheduler{cfg: cfg, ledger: deps.Ledger, store: deps.Store, log: deps.Log, now: deps.Now, health: deps.Health,
		seals: make(chan struct{}, 1), look: time.Second, waiting: map[string]int{},
		catalog: deps.Catalog, syncs: map[string]*fleetSync{}, memory: fleet.NewMemory()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.catalog == nil {
		s.catalog = catalog.NewReporting(deps.Store, deps.Health, s.now)
	}
	s.spool = spool{dir: filepath.Clean(cfg.SpoolDir)}
	if err := s.spool.open(); err != nil {
		return nil, err
	}
	var err error
	s.metrics, err = newMetrics(deps.Metrics)
	return s, err
}

// Run works until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.pipelines(ctx) })
	group.Go(func() error {
		return s.run(ctx, loop{kind: "nodes", part: "nodes", watch: []ledger.Topic{ledger.AnyNodes}, step: s.tend})
	})
	group.Go(func() error { return s.sealLoop(ctx) })
	group.Go(func() error { return s.syncLoop(ctx) })
	return group.Wait()
}
