// Package scheduler carries jobs from their due time to their commit: it makes
// them when a schedule says so, waits for their data, plans them into tasks, and
// makes results visible when all tasks have ended. It also keeps tables, logs and the
// ledger small.
//
// Packages schedule and dispatch decide what to do; the ledger holds the state, so that a
// scheduler can be killed at any moment and started again. The ledger is also how it
// meets the other services: it learns there that tasks have ended. It talks to no nodes
// (broker), keeps no logs of attempts (logs), reads no models (fleet/syncer), scores
// nothing and starts no nodes.
//
// Run owns all goroutines; all other methods are safe for concurrent use.
package scheduler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Deps is what a scheduler works with.
type Deps struct {
	Ledger  Ledger
	Store   store.Bucket
	Catalog *catalog.Catalog // the store's; nil means one of the scheduler's own
	// WhyNoFleet says why a fleet's models could not be read when they were last looked
	// at. nil means that this is unknown.
	WhyNoFleet func(fleet string) error
	// Image is the image that a pool's containers have now, by its digest; empty for pools of
	// other providers. nil means that there are only such pools.
	Image func(ctx context.Context, pool fleetscore.PoolConfig) (string, error)
	// Roots are the folders of this machine that pipelines' code may be read from.
	Roots   store.Roots
	Release string                // of this program: what another release scored may change when it is scored again
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
	ledger.Events
	ledger.History
	ledger.Harms
	ledger.Costs
}

// Scheduler carries out pipelines.
type Scheduler struct {
	ledger     Ledger
	store      store.Bucket
	catalog    *catalog.Catalog
	whyNoFleet func(fleet string) error
	image      func(ctx context.Context, pool fleetscore.PoolConfig) (string, error)
	roots      store.Roots
	release    string
	log        *slog.Logger
	now        func() time.Time
	metrics    *metrics
	loops      lifecycle.Loops[ledger.Topic]

	upkeep *upkeep // shared by all views of the ledger

	mu      sync.Mutex     // guards waiting
	waiting map[string]int // jobs that wait, by pipeline
}

// upkeep is what the maintenance of tables and ledger remembers.
type upkeep struct {
	sync.Mutex           // held while they are maintained
	strayed    time.Time // when logs that belong to nobody were looked for
	loggedAt   time.Time // when the age and size of all logs was looked at
}

type (
	loop = lifecycle.Loop[ledger.Topic]
	next = lifecycle.Next[ledger.Topic]
)

// New builds a scheduler; the ledger must be open.
func New(deps Deps) (*Scheduler, error) {
	s := &Scheduler{ledger: deps.Ledger, store: deps.Store, catalog: deps.Catalog, whyNoFleet: deps.WhyNoFleet, image: deps.Image, roots: deps.Roots, release: deps.Release, log: deps.Log, now: deps.Now, upkeep: &upkeep{}, waiting: map[string]int{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.catalog == nil {
		s.catalog = catalog.NewReporting(deps.Store, deps.Health, s.now)
	}
	if s.whyNoFleet == nil {
		s.whyNoFleet = func(string) error { return nil }
	}
	var err error
	s.metrics, err = newMetrics(deps.Metrics)
	s.loops = lifecycle.Loops[ledger.Topic]{Outages: &lifecycle.Outages{}, Watch: deps.Ledger.Watch, Now: s.now, Failed: func(kind string) { s.metrics.errors.WithLabelValues(kind).Inc() },
		Health: deps.Health, Log: s.log}
	return s, err
}

// With is the same scheduler with another view of the ledger, such as the one by which
// only the server that leads can write.
func (s *Scheduler) With(l Ledger) *Scheduler {
	out := &Scheduler{ledger: l, store: s.store, catalog: s.catalog, whyNoFleet: s.whyNoFleet, image: s.image, roots: s.roots, release: s.release, log: s.log, now: s.now, metrics: s.metrics,
		loops: s.loops, upkeep: s.upkeep, waiting: map[string]int{}}
	out.loops.Watch = l.Watch
	return out
}

// Run works until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error { return s.pipelines(ctx) }
