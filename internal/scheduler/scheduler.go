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
	"github.com/fleetscore/fleetscore/internal/ledger"
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
	ModelRoots []string
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
	Ledger  *ledger.Ledger
	Store   store.Bucket
	Catalog *catalog.Catalog      // the store's; nil means one of the scheduler's own
	Log     *slog.Logger          // nil discards
	Now     func() time.Time      // nil means time.Now
	Metrics prometheus.Registerer // nil means none
}

// Scheduler carries out pipelines.
type Scheduler struct {
	cfg     Config
	ledger  *ledger.Ledger
	store   store.Bucket
	catalog *catalog.Catalog
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
	spool   spool

	mu    sync.Mutex // guards what follows
	syncs map[string]*fleetSync
}

// New builds a scheduler; the ledger must be open.
func New(cfg Config, deps Deps) (*Scheduler, error) {
	cfg = cfg.Defaults()
	if cfg.SpoolDir == "" {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "configure scheduler", "", "it needs a spool folder")
	}
	s := &Scheduler{cfg: cfg, ledger: deps.Ledger, store: deps.Store, log: deps.Log, now: deps.Now,
		catalog: deps.Catalog, syncs: map[string]*fleetSync{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.catalog == nil {
		s.catalog = catalog.New(deps.Store)
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
	group.Go(func() error { return s.loop(ctx, "jobs", s.advance) })
	group.Go(func() error { return s.loop(ctx, "commits", s.commitAll) })
	group.Go(func() error { return s.loop(ctx, "nodes", s.tend) })
	group.Go(func() error { return s.syncLoop(ctx) })
	return group.Wait()
}

// maxRest is how long a loop rests at most: what it waits for outside the ledger,
// such as a dataset, gives no signal.
const maxRest = 500 * time.Millisecond

// loop calls step after every change of the ledger and when step asked to be
// woken. An error of step is logged and step tried again: what is true lies in
// the ledger.
func (s *Scheduler) loop(ctx context.Context, name string, step func(context.Context) (rest time.Duration, err error)) error {
	changes, stop := s.ledger.Watch()
	defer stop()
	failures := 0
	for {
		rest, err := step(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failures++
			s.metrics.errors.WithLabelValues(name).Inc()
			s.log.Error("scheduling is held up", "loop", name, "error", err)
			rest = min(time.Duration(failures)*200*time.Millisecond, 5*time.Second)
		} else {
			failures = 0
		}
		timer := time.NewTimer(max(rest, time.Millisecond))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		case <-changes:
			timer.Stop()
			if err != nil { // changes must not turn a failing loop into a hot one
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(100 * time.Millisecond):
				}
			}
		}
	}
}
