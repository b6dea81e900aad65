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
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/query"
)

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
	r := aggregator.Replay{Name: in.Query, Plan: plan, Key: cfg.Hub.Key, Time: cfg.Hub.Time, Interval: fleetscore.Interval{From: in.From, To: in.To},
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
