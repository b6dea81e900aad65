package server

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/aggregator/archive"
	"github.com/fleetscore/fleetscore/internal/aggregator/reference"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/catalog/export"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/sensor"
	"github.com/fleetscore/fleetscore/internal/table"
)

// part is the part of the configuration that the stream path depends on.
type part struct {
	Hub        fleetscore.HubConfig
	Queries    map[string]fleetscore.QueryConfig
	References map[string]fleetscore.ReferenceConfig
	Datasets   map[string]fleetscore.DatasetConfig
}

// partOf is that of a configuration.
func partOf(cfg fleetscore.Config) part {
	return part{cfg.Hub, cfg.Queries, cfg.References, cfg.Datasets}
}

// exports are the services that write datasets as plain files.
func (s *streams) exports(p part) (services []lifecycle.Service, err error) {
	for _, name := range slices.Sorted(maps.Keys(p.Datasets)) {
		if p.Datasets[name].Files == "" {
			continue
		}
		e, err := export.New(name, p.Datasets[name].Files, p.Hub.Key, export.Deps{Catalog: s.server.Catalog, Log: s.server.log, Health: s.server.health, Now: s.server.clock.Now})
		if err != nil {
			return nil, err
		}
		services = append(services, lifecycle.Service{Name: "files of dataset " + name, Run: e.Run})
	}
	return services, nil
}

// longest returns the longest window of the queries; 0 if there is none.
func longest(p part) (out time.Duration) {
	for _, plan := range p.plans() {
		out = max(out, plan.Window)
	}
	return out
}

// numbers are the columns that queries calculate with.
func numbers(p part) []string {
	var out []string
	for _, plan := range p.plans() {
		for _, c := range plan.Numbers() {
			if !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// plans are those of all queries, in the order of their names.
func (p part) plans() (out []*query.Plan) {
	for _, name := range slices.Sorted(maps.Keys(p.Queries)) {
		plans, _ := query.Parse(p.Queries[name].SQL, p.Hub.Key) // it was judged when it was applied
		out = append(out, plans...)
	}
	return out
}

// watchSensors follows what becomes known of sensors.
func (s *Server) watchSensors() (*sensor.Watch, error) {
	return sensor.New(sensor.Deps{Sources: s.sensorSources, Dataset: s.Catalog.Dataset, Predictions: func(name string) *table.Delta { return s.Catalog.Predictions(name).Delta },
		Complete: func(snap *table.Snapshot) (fleetscore.Micros, bool) {
			return catalog.CompleteUntil(snap, s.clock.Now())
		},
		Store: s.Catalog.Store(), File: catalog.Sensors, Keeps: s.streams.leads.on, Events: s.Ledger, Now: s.clock.Now, Log: s.log, Metrics: s.metrics})
}

// sensorSources are the datasets that queries write or pipelines score.
func (s *Server) sensorSources(ctx context.Context) ([]sensor.Source, error) {
	cfg, ready, err := s.applied(ctx)
	if err != nil || !ready {
		return nil, err
	}
	by := map[string][]string{}
	for _, plan := range (part{Hub: cfg.Hub, Queries: cfg.Queries}).plans() {
		by[plan.Into] = nil
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		dataset := cfg.Pipelines[name].Dataset
		by[dataset] = append(by[dataset], name)
	}
	out := make([]sensor.Source, 0, len(by))
	for _, name := range slices.Sorted(maps.Keys(by)) {
		out = append(out, sensor.Source{Dataset: name, Pipelines: by[name]})
	}
	return out, nil
}

// aggregators are those of all queries, one for each dataset.
func (p part) aggregators(deps aggregator.Deps) (out []*aggregator.Aggregator, err error) {
	for _, name := range slices.Sorted(maps.Keys(p.Queries)) {
		q := p.Queries[name]
		plans, err := query.Parse(q.SQL, p.Hub.Key)
		if err != nil {
			return nil, fleetscore.Wrap("configure query", name, err)
		}
		for _, plan := range plans {
			a, err := aggregator.New(aggregator.Config{Name: name, Into: plan.Into, Query: q, Hub: p.Hub, MaxHeldBytes: int64(q.MemoryMB) << 20}, deps)
			if err != nil {
				return nil, err
			}
			out = append(out, a)
		}
	}
	return out, nil
}

// Replay makes rows of a query again, from readings that were kept, and puts them into a dataset
// by one commit. One replay goes on at a time, because it needs memory.
func (s *streams) Replay(ctx context.Context, in api.Replay) (out api.Replayed, err error) {
	const op = "replay query"
	select {
	case s.replaying <- struct{}{}:
		defer func() { <-s.replaying }()
	case <-ctx.Done():
		return out, ctx.Err()
	}
	cfg, _, err := s.server.applied(ctx)
	if err != nil {
		return out, err
	}
	plan, err := replayed(cfg, in)
	if err != nil {
		return out, err
	}
	if now := s.server.clock.Now(); in.To.IsZero() || in.To.After(now) {
		in.To = now
	}
	out.Dataset, out.From, out.To = in.Into, in.From, in.To
	if out.Dataset == "" {
		out.Dataset = plan.Into + "_replay"
	}
	if err := catalog.CheckDataset(out.Dataset); err != nil {
		return out, err
	}
	if !in.From.Before(in.To) {
		return out, fleetscore.Errorf(fleetscore.Invalid, op, in.Query, "the interval ends at %s, which isn't after its beginning %s", in.To.Format(time.RFC3339), in.From.Format(time.RFC3339))
	}
	for name, q := range cfg.Queries {
		if plans, _ := query.Parse(q.SQL, cfg.Hub.Key); slices.ContainsFunc(plans, func(p *query.Plan) bool { return p.Into == out.Dataset }) {
			return out, fleetscore.Errorf(fleetscore.Conflict, op, in.Query, "query %s writes the dataset %s", name, out.Dataset).WithHint("replay into another dataset with --into")
		}
	}
	s.mu.Lock()
	h := s.hub
	s.mu.Unlock()
	if h == nil {
		return out, fleetscore.Errorf(fleetscore.Unavailable, op, in.Query, "the hub isn't open").WithHint("GET /health says why")
	}
	references := reference.New(cfg.References, reference.Deps{Store: s.server.Catalog.Store(), Log: s.server.log, Now: s.server.clock.Now})
	if err := references.Read(ctx); err != nil {
		return out, err
	}
	histories, err := s.histories(ctx, cfg.Hub, h, in, &out)
	if err != nil {
		return out, err
	}
	r := aggregator.Replay{Name: in.Query, Plan: plan, Key: cfg.Hub.Key, Interval: fleetscore.Interval{From: in.From, To: in.To},
		MaxHeldBytes: int64(cfg.Queries[in.Query].MemoryMB) << 20, References: references}
	got, err := r.Run(ctx, histories)
	if err != nil {
		return out, err
	}
	out.Readings, out.Repeats, out.Rows = got.Readings, got.Repeats, int64(got.Rows.Len())
	if out.Rows == 0 {
		return out, nil
	}
	until := fleetscore.MicrosOf(in.To)
	done, err := s.server.Catalog.Upload(ctx, out.Dataset, got.Rows, &until)
	out.Added, out.Replaced, out.Same = done.Added, done.Replaced, done.Same
	s.server.Ledger.Put(ledger.DatasetTopic(out.Dataset))
	return out, err
}

// histories are the readings of a replay: of each partition of the hub, or of the archive and what
// of the hub isn't archived yet. Readings of a sensor may lie in several partitions of the archive,
// if the hub had another number of partitions once.
func (s *streams) histories(ctx context.Context, cfg fleetscore.HubConfig, h hub.Hub, in api.Replay, out *api.Replayed) (list []aggregator.History, err error) {
	if !in.Archive {
		for i := range h.Partitions() {
			list = append(list, aggregator.HistoryOf(h, i, 1))
		}
		out.Since, err = oldest(ctx, h)
		return list, err
	}
	if cfg.Archive == nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "replay query", in.Query, "readings are not archived").WithHint("write hub: {archive: {}} in fleet.yaml, which archives from now on, or replay what the hub has, without --archive")
	}
	b := s.server.Catalog.Store()
	return []aggregator.History{func(ctx context.Context, after fleetscore.Micros, fn func(hub.Message) error) error {
		from := make([]uint64, h.Partitions()) // before the archive is read, or messages that are archived meanwhile would be missed
		for i := range from {
			if from[i], err = archive.Next(ctx, b, cfg, h, i); err != nil {
				return err
			}
		}
		if err := archive.Read(ctx, b, cfg, after, fn); err != nil {
			return err
		}
		for i := range from {
			if err := aggregator.HistoryOf(h, i, from[i])(ctx, after, fn); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// replayed is the plan of a query's dataset.
func replayed(cfg fleetscore.Config, in api.Replay) (*query.Plan, error) {
	const op = "replay query"
	q, ok := cfg.Queries[in.Query]
	if !ok {
		err := fleetscore.Errorf(fleetscore.NotFound, op, in.Query, "there is no such query")
		if near := fleetscore.Nearest(in.Query, slices.Sorted(maps.Keys(cfg.Queries))); near != "" {
			err = err.WithHint("is %s meant?", near)
		}
		return nil, err
	}
	plans, err := query.Parse(q.SQL, cfg.Hub.Key)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range plans {
		if p.Into == in.Of || in.Of == "" && len(plans) == 1 {
			return p, nil
		}
		names = append(names, p.Into)
	}
	if in.Of == "" {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, in.Query, "it writes several datasets: %s", strings.Join(names, ", ")).WithHint("choose one with --of %s", names[0])
	}
	return nil, fleetscore.Errorf(fleetscore.NotFound, op, in.Query, "it doesn't write the dataset %s", in.Of).WithHint("it writes %s", strings.Join(names, ", "))
}

// oldest is the arrival from which on a hub has all readings; nil if it has its first messages.
func oldest(ctx context.Context, h hub.Hub) (out *time.Time, err error) {
	stats, err := h.Stats(ctx)
	for _, s := range stats {
		if err != nil || s.First <= 1 || s.First > s.Last {
			continue
		}
		err = hub.Range(ctx, h, s.Partition, s.First, s.Last, func(m hub.Message) error {
			if t := m.Arrived.Time(); out == nil || t.After(*out) {
				out = &t
			}
			return hub.ErrEnough
		})
	}
	return out, err
}
