package server

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/aggregator/reference"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/catalog/export"
	"github.com/fleetscore/fleetscore/internal/hub"
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
	key := map[string][]string{} // of datasets that queries write
	for _, plan := range p.plans() {
		key[plan.Into] = plan.KeyNames
	}
	for _, name := range slices.Sorted(maps.Keys(p.Datasets)) {
		if p.Datasets[name].Files == "" {
			continue
		}
		if key[name] == nil {
			key[name] = p.Hub.Key
		}
		e, err := export.New(name, p.Datasets[name].Files, key[name], export.Deps{Catalog: s.server.Catalog, Log: s.server.log, Health: s.server.health, Now: s.server.clock.Now})
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

// load reads the reference data's versions. While they can't be read, queries wait, and readings are taken. What is in
// the log may have been joined with them by another server, whose clock was ahead of this one's.
func (s *streams) load(ctx context.Context, references *reference.Set, h hub.Hub) error {
	const part = "reference data"
	trouble := new(lifecycle.Outages).Trouble(s.server.log)
	defer s.server.health.Report(part, "")
	for {
		err := references.Load(ctx)
		var last fleetscore.Micros
		if err == nil {
			last, err = lastArrival(ctx, h)
		}
		if err == nil {
			references.Passed(last)
			trouble.Works("reference data is read again")
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		trouble.Failed(slog.LevelWarn, "reference data can't be read, which is tried again; queries wait", err)
		s.server.health.Report(part, err.Error())
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
	}
}

// lastArrival is the latest arrival of the messages at the ends of the log's partitions. No watermark is later: each
// is that of a source at most, which isn't later than what came last from it.
func lastArrival(ctx context.Context, h hub.Hub) (latest fleetscore.Micros, err error) {
	stats, err := h.Stats(ctx)
	for _, p := range stats {
		if err == nil && p.Last >= p.First {
			err = hub.Range(ctx, h, p.Partition, p.Last, p.Last, func(m hub.Message) error {
				latest = max(latest, m.Arrived)
				return nil
			})
		}
	}
	return latest, err
}
