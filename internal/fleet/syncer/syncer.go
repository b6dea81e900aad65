// Package syncer keeps the fleets of the configuration in step with their folders of
// models: each folder is listed in intervals, and a new generation is made when
// anything in it changed. Jobs take the generation that is current, so that no job waits
// for a listing.
//
// Each fleet is synced by itself: a large fleet, or a folder that doesn't answer,
// delays no other. A fleet whose models can't be read keeps its generation; the reason
// is told by Status, and the sync is repeated. How a generation is made is known by
// package fleet alone.
//
// Run owns all goroutines; all other methods are safe for concurrent use.
package syncer

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/fleet/versions"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/mount"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Config says what fleets may read, and how often they are looked at.
type Config struct {
	// ModelRoots are the folders of this machine that fleets may read models from,
	// and what lies in them; none means that models are read from the store alone.
	ModelRoots store.Roots
	Mounts     *mount.Checker // looks at the mounts of fleets before their folders are read
	// MaxModelBytes is the largest model that fleets read; 0 means 256 MiB.
	MaxModelBytes int64
	Every         time.Duration // how often folders of models are looked at; 0 means as each fleet says
	TempDir       string        // folder for records that memory has no room for; empty means the system's
}

// Deps is what a syncer works with.
type Deps struct {
	Ledger  Ledger
	Store   store.Bucket
	Log     *slog.Logger          // nil discards
	Now     func() time.Time      // nil means time.Now
	Health  *obs.Health           // what doesn't work is reported there; nil means nowhere
	Metrics prometheus.Registerer // nil means none
}

// Ledger is what a syncer needs of the ledger.
type Ledger interface {
	ledger.Configs
	ledger.Jobs
	ledger.Events
}

// Syncer syncs all fleets.
type Syncer struct {
	cfg     Config
	ledger  Ledger
	store   store.Bucket
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
	loops   lifecycle.Loops[ledger.Topic]
	turns   lifecycle.Turns[string] // at the sync of a fleet
	memory  *fleet.Memory           // what the syncs of all fleets hold together

	mu     sync.Mutex // guards what follows
	fleets map[string]*state
}

// New builds a syncer; the ledger must be open.
func New(cfg Config, deps Deps) (*Syncer, error) {
	s := &Syncer{cfg: cfg, ledger: deps.Ledger, store: deps.Store, log: deps.Log, now: deps.Now, memory: fleet.NewMemory(), fleets: map[string]*state{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	var err error
	s.metrics, err = newMetrics(deps.Metrics)
	s.loops = lifecycle.Loops[ledger.Topic]{Outages: &lifecycle.Outages{}, Watch: deps.Ledger.Watch, Now: s.now, Failed: func(string) { s.metrics.errors.Inc() }, Health: deps.Health, Log: s.log}
	return s, err
}

// state is what is known of one fleet's syncs.
type state struct {
	mu      sync.Mutex // guards what follows
	running bool       // Run syncs it
	cfg     fleetscore.FleetConfig
	err     error
	synced  time.Time
	syncs   int
	due     time.Time
}

func (s *Syncer) state(name string) *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.fleets[name]
	if !ok {
		f = &state{}
		s.fleets[name] = f
	}
	return f
}

// modelFolder opens the folder of a fleet's models: of this machine if its path
// is absolute, which has to lie in one of the roots, else of the store.
func (s *Syncer) modelFolder(cfg fleetscore.FleetConfig) (store.Bucket, error) {
	if filepath.IsAbs(cfg.Path) {
		return s.cfg.ModelRoots.OpenFolder(cfg.Path)
	}
	return store.Sub(s.store, cfg.Path), nil
}

// Sync looks at a fleet's folder of models now and makes a new generation if
// anything changed. Kind NotFound if there is no such fleet or folder.
func (s *Syncer) Sync(ctx context.Context, name string) (*fleet.Change, error) {
	cfg, _, _, err := s.ledger.Config(ctx)
	if err != nil {
		return nil, err
	}
	f, ok := cfg.Fleets[name]
	if !ok {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "sync fleet", name, "there is no such fleet")
	}
	state := s.state(name)
	done, err := s.turns.Take(ctx, name)
	if err != nil {
		return nil, err
	}
	defer done()
	began := s.now()
	var c *fleet.Change
	for _, m := range cfg.MountsOf(f.Mount) { // the folder below an absent mount may be there, and be empty
		err = s.cfg.Mounts.Check(ctx, m)
	}
	if err == nil {
		c, err = s.sync(ctx, name, f, cfg.Hub.Key)
	}
	s.note(name, state, f, err)
	s.metrics.duration.Observe(s.now().Sub(began).Seconds())
	result := unchanged
	switch {
	case err != nil:
		s.metrics.syncs.WithLabelValues(failed).Inc()
		return nil, err
	case c.New:
		result = changed
	}
	s.metrics.syncs.WithLabelValues(result).Inc()
	if c.New {
		g := c.Generation
		s.log.Info("fleet has a new generation", "fleet", name, "generation", g.ID, "sensors", g.Members, "added", c.Added, "changed", c.Changed,
			"removed", c.Removed, "took", s.now().Sub(began), "problems", len(g.Health.Causes))
	}
	return c, nil
}

// note notes how a sync ended and when the next is due: an interval later, a tenth
// more or less so that fleets aren't synced at the same moment, or soon after an error.
func (s *Syncer) note(name string, state *state, f fleetscore.FleetConfig, err error) {
	state.mu.Lock()
	defer state.mu.Unlock()
	if err != nil && (state.err == nil || state.err.Error() != err.Error()) {
		s.log.Error("models can't be read", "fleet", name, "error", err)
	}
	every := s.every(f)
	if err != nil {
		every = min(every, again)
	}
	every += time.Duration((clock.Spread(name, state.syncs) - 0.5) * 0.2 * float64(every))
	state.syncs++
	state.cfg, state.err, state.synced = f, err, s.now()
	state.due = state.synced.Add(every)
	s.ledger.Put(ledger.FleetTopic(name)) // jobs that wait for the models say why they can't be read
}

// again is how soon a sync is repeated after an error, and how soon a change of the
// configuration is noticed.
const again = 2 * time.Second

func (s *Syncer) every(f fleetscore.FleetConfig) time.Duration {
	switch {
	case s.cfg.Every > 0:
		return s.cfg.Every
	case f.Sync > 0:
		return f.Sync.D()
	}
	return time.Minute
}

func (s *Syncer) sync(ctx context.Context, name string, f fleetscore.FleetConfig, keyNames []string) (*fleet.Change, error) {
	spec, err := fleet.SpecOf(name, f, keyNames)
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(f.Path) {
		if err := versions.Of(s.store, name, f.Path).Finish(ctx); err != nil {
			return nil, err
		}
	}
	src, err := s.modelFolder(f)
	if err != nil {
		return nil, err
	}
	if closer, ok := src.(io.Closer); ok {
		defer closer.Close()
	}
	pack := fleet.PackFolder(s.store, name)
	c, err := fleet.Sync(ctx, src, pack, spec, fleet.Options{MaxModelBytes: s.cfg.MaxModelBytes, Memory: s.memory, TempDir: s.cfg.TempDir, Now: s.now})
	if err != nil || !c.New {
		return c, err
	}
	if err := s.prune(ctx, name, pack); err != nil && ctx.Err() == nil {
		s.log.Warn("old generations can't be removed", "fleet", name, "error", err) // the next change tries again
	}
	return c, nil
}

// active are the states of jobs that need their generation.
var active = []fleetscore.JobState{fleetscore.JobWaiting, fleetscore.JobQueued, fleetscore.JobRunning, fleetscore.JobCommitting}

// prune removes generations that no job needs any more.
func (s *Syncer) prune(ctx context.Context, name string, pack store.Bucket) error {
	jobs, err := s.ledger.Jobs(ctx, ledger.JobFilter{States: active})
	if err != nil {
		return err
	}
	inUse := map[fleetscore.GenerationID]bool{}
	for _, j := range jobs {
		if j.Config.Fleet == name {
			inUse[j.Generation] = true
		}
	}
	_, err = fleet.Prune(ctx, pack, s.now(), func(id fleetscore.GenerationID) bool { return inUse[id] })
	return err
}

// Run syncs each fleet when it is due, until ctx ends. What can't be read is reported
// with the fleet and the jobs that wait for it.
func (s *Syncer) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	return s.loops.Run(ctx, loop{Kind: "fleets", Part: "fleets", Watch: []ledger.Topic{ledger.ConfigTopic}, Step: func(ctx context.Context) (next, error) {
		cfg, _, _, err := s.ledger.Config(ctx)
		if err != nil && !fleetscore.NotFound.Is(err) { // none was applied yet
			return next{}, err
		}
		rest := time.Minute
		for name, f := range cfg.Fleets {
			state := s.state(name)
			if wait := state.start(f, s.now()); wait > 0 {
				rest = min(rest, wait)
				continue
			}
			running.Go(func() {
				_, _ = s.Sync(ctx, name) // noted with the fleet
				state.mu.Lock()
				state.running = false
				state.mu.Unlock()
			})
			rest = min(rest, again)
		}
		return next{Wake: s.now().Add(rest)}, nil
	}})
}

type (
	loop = lifecycle.Loop[ledger.Topic]
	next = lifecycle.Next[ledger.Topic]
)

// start marks a fleet as being synced if it is due, or says how long to wait.
func (f *state) start(cfg fleetscore.FleetConfig, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.running:
		return again
	case reflect.DeepEqual(f.cfg, cfg) && f.due.After(now):
		return f.due.Sub(now)
	}
	f.running = true
	return 0
}

// Status is when a fleet's models were last looked at, and why they could not
// be read then; the zero time if they weren't looked at yet.
func (s *Syncer) Status(name string) (time.Time, error) {
	f := s.state(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.synced, f.err
}

// metrics are the syncer's figures for operators.
type metrics struct {
	syncs    *prometheus.CounterVec
	duration prometheus.Histogram
	errors   prometheus.Counter
}

// What comes of a look at a fleet's models.
const (
	unchanged = "unchanged"
	changed   = "changed"
	failed    = "failed"
)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_fleet_syncs_total",
			Help: "Looks at fleets' folders of models, by what came of them."}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fleetscore_fleet_sync_seconds",
			Help: "Time to look at a fleet's folder and compile what changed.", Buckets: prometheus.ExponentialBuckets(0.01, 4, 10)}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{Name: "fleetscore_fleet_errors_total",
			Help: "How often it could not be found out which fleets are due; it is tried again."}),
	}
	for _, r := range []string{unchanged, changed, failed} {
		m.syncs.WithLabelValues(r)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.syncs, m.duration, m.errors} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
