package scheduler

import (
	"context"
	"io"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Fleets are synced in the background: their folders are listed in intervals, and
// jobs take the generation that is current, so that no job waits for a listing.

// fleetSync is the state of one fleet's sync.
type fleetSync struct {
	turn chan struct{} // full while the fleet is synced: one sync at a time

	state   sync.Mutex // guards what follows
	running bool       // the loop syncs it
	cfg     fleetscore.FleetConfig
	err     error
	synced  time.Time
	syncs   int
	due     time.Time
}

func (s *Scheduler) fleetSync(name string) *fleetSync {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.syncs[name]
	if !ok {
		f = &fleetSync{turn: make(chan struct{}, 1)}
		s.syncs[name] = f
	}
	return f
}

// ModelFolder opens the folder of a fleet's models: of this machine if its path
// is absolute, which has to lie in one of the roots, else of the store.
func ModelFolder(b store.Bucket, roots store.Roots, cfg fleetscore.FleetConfig) (store.Bucket, error) {
	if filepath.IsAbs(cfg.Path) {
		return roots.OpenFolder(cfg.Path)
	}
	return store.Sub(b, cfg.Path), nil
}

// SyncFleet looks at a fleet's folder of models now and makes a new generation if
// anything changed. Kind NotFound if there is no such fleet or folder.
func (s *Scheduler) SyncFleet(ctx context.Context, name string) (*fleet.Change, error) {
	cfg, _, _, err := s.ledger.Config(ctx)
	if err != nil {
		return nil, err
	}
	f, ok := cfg.Fleets[name]
	if !ok {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "sync fleet", name, "there is no such fleet")
	}
	state := s.fleetSync(name)
	select {
	case state.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-state.turn }()
	began := s.now()
	c, err := s.syncFleet(ctx, name, f, cfg.Hub.Key)
	s.noteSync(name, state, f, err)
	s.metrics.syncTime.Observe(s.now().Sub(began).Seconds())
	result := syncUnchanged
	switch {
	case err != nil:
		s.metrics.syncs.WithLabelValues(syncFailed).Inc()
		return nil, err
	case c.New:
		result = syncChanged
	}
	s.metrics.syncs.WithLabelValues(result).Inc()
	if c.New {
		g := c.Generation
		s.log.Info("fleet has a new generation", "fleet", name, "generation", g.ID, "sensors", g.Members, "added", c.Added, "changed", c.Changed,
			"removed", c.Removed, "took", s.now().Sub(began), "problems", len(g.Health.Causes))
	}
	return c, nil
}

// noteSync notes how a sync ended and when the next is due: an interval later, a
// tenth more or less so that fleets don't fall into step, or soon after an error.
func (s *Scheduler) noteSync(name string, state *fleetSync, f fleetscore.FleetConfig, err error) {
	state.state.Lock()
	defer state.state.Unlock()
	if err != nil && (state.err == nil || state.err.Error() != err.Error()) {
		s.log.Error("models can't be read", "fleet", name, "error", err)
	}
	every := s.syncEvery(f)
	if err != nil {
		every = min(every, syncAgain)
	}
	every += time.Duration((clock.Spread(name, state.syncs) - 0.5) * 0.2 * float64(every))
	state.syncs++
	state.cfg, state.err, state.synced = f, err, s.now()
	state.due = state.synced.Add(every)
	s.ledger.Put(ledger.FleetTopic(name)) // jobs that wait for the models say why they can't be read
}

// syncAgain is how soon a sync is tried again after an error, and how soon a
// change of the configuration is noticed.
const syncAgain = 2 * time.Second

func (s *Scheduler) syncEvery(f fleetscore.FleetConfig) time.Duration {
	switch {
	case s.cfg.SyncEvery > 0:
		return s.cfg.SyncEvery
	case f.Sync > 0:
		return f.Sync.D()
	}
	return time.Minute
}

func (s *Scheduler) syncFleet(ctx context.Context, name string, f fleetscore.FleetConfig, keyNames []string) (*fleet.Change, error) {
	spec, err := fleet.SpecOf(name, f, keyNames)
	if err != nil {
		return nil, err
	}
	src, err := ModelFolder(s.store, s.cfg.ModelRoots, f)
	if err != nil {
		return nil, err
	}
	if closer, ok := src.(io.Closer); ok {
		defer closer.Close()
	}
	pack := fleet.PackFolder(s.store, name)
	c, err := fleet.Sync(ctx, src, pack, spec, fleet.Options{MaxModelBytes: s.cfg.MaxModelBytes, Memory: s.memory, TempDir: s.cfg.SpoolDir})
	if err != nil || !c.New {
		return c, err
	}
	if err := s.prune(ctx, name, pack); err != nil && ctx.Err() == nil {
		s.log.Warn("old generations can't be removed", "fleet", name, "error", err) // the next one tries again
	}
	return c, nil
}

// prune removes generations that no job needs any more.
func (s *Scheduler) prune(ctx context.Context, name string, pack store.Bucket) error {
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

// syncLoop syncs each fleet when it is due, each by itself: a large one holds up
// no other. What can't be read is reported with the fleet and the jobs that wait
// for it, and is tried again.
func (s *Scheduler) syncLoop(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	return s.run(ctx, loop{kind: "fleets", part: "fleets", watch: []ledger.Topic{ledger.ConfigTopic}, step: func(ctx context.Context) (next, error) {
		cfg, err := s.config(ctx)
		if err != nil {
			return next{}, err
		}
		rest := time.Minute
		for name, f := range cfg.Fleets {
			state := s.fleetSync(name)
			if wait := state.start(f, s.now()); wait > 0 {
				rest = min(rest, wait)
				continue
			}
			running.Go(func() {
				_, _ = s.SyncFleet(ctx, name) // noted with the fleet
				state.state.Lock()
				state.running = false
				state.state.Unlock()
			})
			rest = min(rest, syncAgain)
		}
		return next{wake: s.now().Add(rest)}, nil
	}})
}

// start marks a fleet as being synced if it is due, or says how long to wait.
func (f *fleetSync) start(cfg fleetscore.FleetConfig, now time.Time) time.Duration {
	f.state.Lock()
	defer f.state.Unlock()
	switch {
	case f.running:
		return syncAgain
	case reflect.DeepEqual(f.cfg, cfg) && f.due.After(now):
		return f.due.Sub(now)
	}
	f.running = true
	return 0
}

// FleetSync is when a fleet's models were last looked at, and why they could not
// be read then; the zero time if they weren't looked at yet.
func (s *Scheduler) FleetSync(name string) (time.Time, error) {
	f := s.fleetSync(name)
	f.state.Lock()
	defer f.state.Unlock()
	return f.synced, f.err
}

func (s *Scheduler) whyNoFleet(name string) string {
	if _, err := s.FleetSync(name); err != nil {
		return ": " + err.Error()
	}
	return ", which were not read yet"
}
