package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/config"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/pool"
	"github.com/fleetscore/fleetscore/internal/program"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/scorer/code"
	"github.com/fleetscore/fleetscore/internal/store"
)

// check refuses a configuration that the server can't carry out with what it has
// already: model folders, datasets, the hub's readings. If it is refused, the
// configuration in force stays.
func (s *Server) check(ctx context.Context, cfg fleetscore.Config) (warnings []string, err error) {
	problems := []error{s.checkShared(cfg), s.checkStore(cfg), CheckFolders(cfg, s.roots), s.checkPools(ctx, cfg), s.checkSecrets(cfg), s.checkFiles(cfg.Hub, "hub."), s.checkMQTT(cfg.Hub), s.checkKafka(cfg.Hub)}
	for _, name := range slices.Sorted(maps.Keys(cfg.Queries)) {
		plans, err := query.Parse(cfg.Queries[name].SQL, cfg.Hub.Key)
		problems = append(problems, err)
		for _, plan := range plans {
			problems = append(problems, aggregator.Check(ctx, s.Catalog, name, plan))
		}
	}
	problems = append(problems, s.checkHub(ctx, cfg.Hub))
	warnings, err = s.warnings(ctx, cfg)
	problems = append(problems, err)
	problems = slices.DeleteFunc(problems, func(err error) bool { return err == nil })
	switch len(problems) {
	case 0:
		return warnings, nil
	case 1:
		return nil, problems[0]
	}
	return nil, fleetscore.Errorf(fleetscore.KindOf(problems[0]), "apply configuration", "", "%v", errors.Join(problems...)) // each has its own hint
}

// checkPools refuses commands that this server may not run, and a configuration by which
// machines of a pool could no longer be stopped.
func (s *Server) checkPools(ctx context.Context, cfg fleetscore.Config) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Pools)) {
		var commands [][]string
		if x := cfg.Pools[name].Exec; x != nil {
			commands = append(commands, x.Start, x.Stop, x.List)
		}
		if x := cfg.Pools[name].Setup; x != nil && cfg.Pools[name].Provider == "local" { // others run on other machines
			commands = append(commands, program.Find(x.Command, s.cfg.Commands))
		}
		if cfg.Pools[name].Provider == pool.Docker && s.cfg.Docker == "" {
			problems = append(problems, fleetscore.Errorf(fleetscore.Invalid, "start nodes", "pools."+name, "this server may not use a Docker engine").
				WithHint("start it with --docker unix:///var/run/docker.sock"))
		}
		for _, command := range commands {
			if err := program.Check(command, s.cfg.Commands); err != nil {
				problems = append(problems, fmt.Errorf("pools.%s: %w", name, err))
			}
		}
	}
	old, _, err := s.applied(ctx)
	if err != nil {
		return errors.Join(append(problems, err)...)
	}
	for _, name := range slices.Sorted(maps.Keys(old.Pools)) {
		if old.Pools[name].Exec == nil || cfg.Pools[name].Exec != nil {
			continue
		}
		nodes, err := s.Ledger.Nodes(ctx, name)
		if err != nil {
			return err
		}
		alive := 0
		for _, n := range nodes {
			if n.State != fleetscore.NodeStopped && n.State != fleetscore.NodeUnusable {
				alive++
			}
		}
		if alive > 0 {
			problems = append(problems, fleetscore.Errorf(fleetscore.Conflict, "apply configuration", name, "the pool has nodes (%d), and without its stop command their machines would run on", alive).
				WithHint("take the pool out of all pipelines, wait until its nodes have stopped (fleetscore node list), then remove the pool"))
		}
	}
	return errors.Join(problems...)
}

// warnings names settings that are most likely mistakes, judged by the file and by what
// the server has. It returns an error if an existing dataset lacks a column that a
// pipeline needs.
func (s *Server) warnings(ctx context.Context, cfg fleetscore.Config) ([]string, error) {
	old, ready, err := s.applied(ctx)
	if err != nil {
		return nil, err
	}
	uploaded := func(dataset string) bool {
		snap, err := s.Catalog.Dataset(dataset).Snapshot(ctx)
		return err == nil && snap != nil
	}
	out := config.Warnings(cfg, time.Now(), uploaded)
	if ready {
		out = append(append(out, config.Leaving(old, cfg)...), config.Editing(old, cfg)...)
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		p := cfg.Pipelines[name]
		snap, err := s.Catalog.Dataset(p.Dataset).Snapshot(ctx)
		if err == nil && snap != nil && !slices.ContainsFunc(slices.Collect(maps.Values(cfg.Queries)), func(q fleetscore.QueryConfig) bool { return writes(q, cfg.Hub.Key, p.Dataset) }) {
			problems = append(problems, lacks(name, p, snap.Schema.Values()))
		}
		g, err := fleet.Current(ctx, s.store, p.Fleet)
		if err != nil {
			continue // there is none yet, or the fleet itself says what is wrong
		}
		for _, c := range g.Health.Against("pipeline "+name, p.Features, p.FeaturesBy).Causes {
			if c.Code == fleet.WrongFeatures || c.Code == fleet.WrongFeatureNames {
				out = append(out, fmt.Sprintf("fleets.%s: sensors affected: %d: %s", p.Fleet, c.Sensors, c.Message))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Fleets)) {
		if f := cfg.Fleets[name]; filepath.IsAbs(f.Path) && empty(ctx, s.roots, f.Path) {
			out = append(out, fmt.Sprintf("fleets.%s: there is no file in %s; put the models there", name, f.Path))
		}
	}
	return out, errors.Join(problems...)
}

func writes(q fleetscore.QueryConfig, key []string, dataset string) bool {
	plans, _ := query.Parse(q.SQL, key) // it was judged when it was read
	return slices.ContainsFunc(plans, func(p *query.Plan) bool { return p.Into == dataset })
}

// lacks refuses features that an uploaded dataset doesn't have.
func lacks(pipeline string, p fleetscore.PipelineConfig, has []string) error {
	for _, f := range p.Features {
		if _, column := fleetscore.SplitFeature(f); !slices.Contains(has, column) {
			return fleetscore.Errorf(fleetscore.Conflict, "check pipeline", pipeline, "the dataset %s has no column %q with numbers; it has %s", p.Dataset, column, strings.Join(has, ", ")).
				WithHint("name one of its columns, or upload the rows as another dataset")
		}
	}
	return nil
}

// empty reports whether a folder of models holds no file at all.
func empty(ctx context.Context, roots store.Roots, path string) bool {
	b, err := roots.OpenFolder(path)
	if err != nil {
		return false // another check reports this error
	}
	defer b.Close()
	for range b.List(ctx, "", store.ListOptions{}) {
		return false
	}
	return true
}

// CheckFolders refuses fleets whose models lie in a folder of this machine that
// isn't there, or not in one of the roots, and code of this machine that isn't in one of them.
func CheckFolders(cfg fleetscore.Config, roots store.Roots) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Fleets)) {
		f := cfg.Fleets[name]
		if !filepath.IsAbs(f.Path) {
			continue
		}
		folder, err := roots.OpenFolder(f.Path)
		switch {
		case err == nil:
			problems = append(problems, folder.Close())
		case fleetscore.NotFound.Is(err):
			problems = append(problems, fleetscore.Errorf(fleetscore.Invalid, "open fleet", name, "its models folder %s isn't there", f.Path).
				WithHint("make it and put the models into it, or change fleets.%s.path", name))
		default:
			problems = append(problems, fleetscore.Wrap("open fleet", name, err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		problems = append(problems, fleetscore.Wrap("open code of pipeline", name, code.Check(roots, code.PartsOf(cfg.Pipelines[name]))))
	}
	return errors.Join(problems...)
}

// checkStore refuses a configuration that names another store than the one that
// is open.
func (s *Server) checkStore(cfg fleetscore.Config) error {
	if cfg.Store == "" || s.storeName(cfg.Store) == s.storeName(s.cfg.Store) {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Conflict, "change store", withoutQuery(cfg.Store), "the server has %s open", withoutQuery(s.cfg.Store)).
		WithHint("the store is fixed once there is data: take the key out, or start a server with --store and another --dir")
}

// checkHub refuses other partitions or key columns than those that readings were
// stored with.
func (s *Server) checkHub(ctx context.Context, want fleetscore.HubConfig) error {
	have, ready, err := s.applied(ctx)
	if err != nil || !ready || have.Hub.Partitions == want.Partitions && slices.Equal(have.Hub.Key, want.Key) {
		return err
	}
	some, err := s.streams.holds(ctx, have.Hub)
	if err != nil || !some {
		return err
	}
	if have.Hub.Partitions != want.Partitions {
		return fleetscore.Errorf(fleetscore.Conflict, "change hub.partitions", "", "it holds readings in %s, not %d", fleetscore.Counted(have.Hub.Partitions, "partition"), want.Partitions).
			WithHint("partitions are fixed once readings are stored: put the old number back, or start with another --dir")
	}
	return fleetscore.Errorf(fleetscore.Conflict, "change hub.key", "", "it holds readings with the key %v, not %v", have.Hub.Key, want.Key).
		WithHint("the key is fixed once readings are stored: put the old one back, or start with another --dir")
}
