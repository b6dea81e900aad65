package scheduler

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/store"
)

// fleetSync is the state of one fleet's sync.
type fleetSync struct {
	mu sync.Mutex // one sync of a fleet at a time; guards what follows

	state  sync.Mutex // guards what follows
	cfg    fleetscore.FleetConfig
	err    error
	synced time.Time
}

func (s *Scheduler) fleetSync(name string) *fleetSync {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.syncs[name]
	if !ok {
		f = &fleetSync{}
		s.syncs[name] = f
	}
	return f
}

// ModelFolder opens the folder of a fleet's models: of this machine if its path
// is absolute, else of the store.
func ModelFolder(b store.Bucket, cfg fleetscore.FleetConfig) (store.Bucket, error) {
	if filepath.IsAbs(cfg.Path) {
		return store.OpenFolder(cfg.Path)
	}
	return store.Sub(b, cfg.Path), nil
}

// SyncFleet looks at a fleet's folder of models now and makes a new generation if
// anything changed. Kind NotFound if there is no such fleet or folder.
func (s *Scheduler) SyncFleet(ctx context.Context, name string) (*fleet.Generation, bool, error) {
	cfg, _, _, err := s.ledger.Config(ctx)
	if err != nil {
		return nil, false, err
	}
	f, ok := cfg.Fleets[name]
	if !ok {
		return nil, false, fleetscore.Errorf(fleetscore.NotFound, "sync fleet", name, "there is no such fleet")
	}
	state := s.fleetSync(name)
	state.mu.Lock()
	defer state.mu.Unlock()
	gen, changed, err := s.syncFleet(ctx, name, f, cfg.Hub.Key)
	state.state.Lock()
	defer state.state.Unlock()
	if err != nil && (state.err == nil || state.err.Error() != err.Error()) {
		s.log.Error("models can't be read", "fleet", name, "error", err)
	}
	state.cfg, state.err, state.synced = f, err, s.now()
	if changed {
		s.log.Info("fleet has a new generation", "fleet", name, "generation", gen.ID, "sensors", gen.Members, "ignored", len(gen.Ignored))
	}
	return gen, changed, err
}

func (s *Scheduler) syncFleet(ctx context.Context, name string, f fleetscore.FleetConfig, keyNames []string) (*fleet.Generation, bool, error) {
	spec, err := fleet.SpecOf(name, f, keyNames)
	if err != nil {
		return nil, false, err
	}
	src, err := ModelFolder(s.store, f)
	if err != nil {
		return nil, false, err
	}
	c, err := fleet.Sync(ctx, src, fleet.PackFolder(s.store, name), spec, fleet.Options{})
	if err != nil {
		return nil, false, err
	}
	return c.Generation, c.New, nil
}

// syncAll syncs the fleets that are new, were changed, or were not looked at for
// a while. What can't be read is reported with the fleet and the jobs that wait
// for it, and is tried again.
func (s *Scheduler) syncAll(ctx context.Context) (time.Duration, error) {
	cfg, _, _, err := s.ledger.Config(ctx)
	if fleetscore.NotFound.Is(err) {
		return time.Minute, nil
	} else if err != nil {
		return maxRest, err
	}
	rest := s.cfg.SyncEvery
	var problems []error
	for name, f := range cfg.Fleets {
		state := s.fleetSync(name)
		state.state.Lock()
		due := state.synced.Add(s.cfg.SyncEvery)
		if state.err != nil {
			due = state.synced.Add(min(s.cfg.SyncEvery, 2*time.Second))
		}
		if !reflect.DeepEqual(state.cfg, f) {
			due = time.Time{}
		}
		state.state.Unlock()
		if wait := due.Sub(s.now()); wait > 0 {
			rest = min(rest, wait)
			continue
		}
		if _, _, err := s.SyncFleet(ctx, name); err != nil && ctx.Err() != nil {
			problems = append(problems, err)
		}
		rest = min(rest, 2*time.Second)
	}
	return rest, errors.Join(problems...)
}

// FleetProblem is why a fleet's models could not be read when they were last
// looked at; nil if they could.
func (s *Scheduler) FleetProblem(name string) error {
	f := s.fleetSync(name)
	f.state.Lock()
	defer f.state.Unlock()
	return f.err
}

func (s *Scheduler) whyNoFleet(name string) string {
	if err := s.FleetProblem(name); err != nil {
		return ": " + err.Error()
	}
	return ", which were not read yet"
}
