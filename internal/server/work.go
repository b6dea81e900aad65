package server

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/broker"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/fleet/syncer"
	"github.com/fleetscore/fleetscore/internal/images"
	"github.com/fleetscore/fleetscore/internal/logs"
	"github.com/fleetscore/fleetscore/internal/scheduler"
	"github.com/fleetscore/fleetscore/internal/store"
)

// work is the services that carry jobs from their due time to their commit. They meet
// in the ledger.
type work struct {
	fleets    *syncer.Syncer
	scheduler *scheduler.Scheduler
	broker    *broker.Broker
	logs      *logs.Logs
	images    *images.Registry
}

func (s *Server) newWork() (w work, err error) {
	spool := filepath.Join(s.cfg.Dir, "spool")
	if w.images, err = s.newImages(); err != nil {
		return w, err
	}
	if w.fleets, err = syncer.New(syncer.Config{ModelRoots: s.roots, Mounts: &s.mounts, TempDir: spool},
		syncer.Deps{Ledger: s.Ledger, Store: s.store, Log: s.log, Health: s.health, Now: s.clock.Now, Metrics: s.metrics}); err != nil {
		return w, err
	}
	whyNoFleet := func(name string) error {
		_, err := w.fleets.Status(name)
		return err
	}
	if w.scheduler, err = scheduler.New(scheduler.Deps{Release: s.cfg.Version, Ledger: s.Ledger, Store: s.store, Catalog: s.Catalog, WhyNoFleet: whyNoFleet, Image: s.pinImage(w.images), Roots: s.roots,
		Log: s.log, Health: s.health, Now: s.clock.Now, Metrics: s.metrics}); err != nil {
		return w, err
	}
	if w.broker, err = broker.New(broker.Config{StoreURL: s.storeURL},
		broker.Deps{Ledger: s.Ledger, Examine: s.Catalog.Examine, KeepOutput: s.keepOutput, Secret: s.commandSecret, Log: s.log, Health: s.health, Now: s.clock.Now, Metrics: s.metrics}); err != nil {
		return w, err
	}
	where := logs.Config{SpoolDir: spool}
	if s.postgres != nil {
		where.Pieces = s.postgres // so that they survive this server
	}
	w.logs, err = logs.New(where,
		logs.Deps{Ledger: s.Ledger, Store: s.store, Log: s.log, Health: s.health, Now: s.clock.Now, Metrics: s.metrics})
	return w, err
}

// keepOutput stores what the setup command of a node wrote as the node's log.
func (s *Server) keepOutput(ctx context.Context, pool string, node fleetscore.NodeID, text []byte) error {
	return store.WriteAll(ctx, s.store, catalog.NodeLog(pool, node), text, store.PutOptions{})
}

const maintainEvery = 10 * time.Minute

// maintain keeps the tables, the logs and the ledger small, in regular rounds.
func (s *Server) maintain(ctx context.Context, sched *scheduler.Scheduler) error {
	ticker := time.NewTicker(maintainEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if !s.clock.Trusted() {
			continue // files are deleted by their age; health says why the clock isn't trusted
		}
		done, err := sched.Maintain(ctx, catalog.Maintenance{})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		problem := ""
		if err != nil {
			problem = err.Error()
			s.log.Error("tables, logs or the ledger can't be maintained", "error", err)
		}
		s.health.Report("maintenance", problem)
		for _, m := range done {
			if m.Problem != "" {
				s.log.Error("table can't be maintained", "table", m.Table, "error", m.Problem)
			} else if m.Replaced+m.Expired+m.Deleted > 0 {
				s.log.Info("table maintained", "table", m.Table, "files", m.Files, "joined", m.Replaced, "into", m.By, "expired", m.Expired, "deleted", m.Deleted, "bytes", m.Bytes)
			}
		}
	}
}

// pool returns the settings of a pool in the configuration in force.
func (s *Server) pool(ctx context.Context, name string) (fleetscore.PoolConfig, error) {
	cfg, _, err := s.applied(ctx)
	if err != nil {
		return fleetscore.PoolConfig{}, err
	}
	p, ok := cfg.Pools[name]
	if !ok {
		return p, fleetscore.Errorf(fleetscore.NotFound, "find pool", name, "the configuration in force has no such pool")
	}
	return p, nil
}

// machineToken makes the token of a machine that a pool's command starts.
func (s *Server) machineToken(ctx context.Context, machine string) (string, error) {
	_, text, err := s.control.Create(ctx, fleetscore.RoleNode, machine, time.Time{})
	return text, err
}
