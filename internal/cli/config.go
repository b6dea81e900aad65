package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/config"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/pool"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/store"
)

// readConfig reads and judges a fleet.yaml; the name is its absolute path.
func readConfig(file string) (name string, cfg fleetscore.Config, text []byte, err error) {
	name, err = filepath.Abs(file)
	if err != nil {
		return "", cfg, nil, err
	}
	text, err = os.ReadFile(file)
	if err != nil {
		return "", cfg, nil, fleetscore.Errorf(fleetscore.Invalid, "read configuration", file, "%w", pathCause(err)).
			WithHint("docs/configuration.md has an example to start from")
	}
	cfg, err = config.Parse(name, text)
	return name, cfg, text, err
}

func newValidateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a fleet.yaml without a server",
		Long: `Reads a fleet.yaml and reports every problem at once, each with its line: unknown
keys, values of a wrong form, queries and cron expressions that don't parse,
names that refer to nothing, a models folder that isn't there. What is allowed and
most likely not meant, such as a dataset that no query writes, is a warning on stderr.

Exit codes: 0 good, 10 not.`,
		Example: "  fleetscore validate examples/fleet/fleet.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, cfg, _, err := readConfig(args[0])
			if err == nil {
				err = checkOwnFolders(cfg)
			}
			if err != nil {
				return err
			}
			warn(cmd.ErrOrStderr(), config.Warnings(cfg, time.Now(), func(string) bool { return false }))
			fmt.Fprintf(cmd.OutOrStdout(), "%s is good: %s, %s, %s, %s\n", args[0], count(len(cfg.Queries), "query", "queries"),
				plural(len(cfg.Fleets), "fleet"), plural(len(cfg.Pools), "pool"), plural(len(cfg.Pipelines), "pipeline"))
			return nil
		},
	}
}

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "The configurations that were applied, and the form of fleet.yaml"}
	cmd.AddCommand(newConfigShowCommand(), newConfigHistoryCommand(), newConfigDiffCommand(), &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of fleet.yaml for editors",
		Long: `Prints the JSON Schema (draft 2020-12) of fleet.yaml. An editor that knows the schema
completes keys, shows their meaning and marks mistakes while you type. Save it
beside fleet.yaml, and begin fleet.yaml with this line:

  # yaml-language-server: $schema=fleet.schema.json

"fleetscore validate" also checks what a schema can't express: SQL, cron
expressions, and names that must exist.`,
		Example: "  fleetscore config schema > fleet.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema)
			return err
		},
	})
	return cmd
}

func newConfigShowCommand() *cobra.Command {
	return &cobra.Command{Use: "show [VERSION]", Short: "Print the configuration in force, or an earlier version",
		Example: "  fleetscore config show > fleet.yaml\n  fleetscore config show 3", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			text, err := configOf(cmd.Context(), c, strings.Join(args, ""))
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		}}
}

// configOf asks the server for a version of the configuration; empty means the one in
// force.
func configOf(ctx context.Context, c *client.Client, version string) ([]byte, error) {
	query := url.Values{}
	if version != "" {
		if n, err := strconv.ParseInt(version, 10, 64); err != nil || n < 1 {
			return nil, usagef("%q is not a version; fleetscore config history lists them", version)
		}
		query.Set("version", version)
	}
	r, err := c.Open(ctx, "/config", query)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, config.MaxBytes))
}

func newConfigHistoryCommand() *cobra.Command {
	return remote(&cobra.Command{Use: "history", Short: "List the configurations that were applied, newest first", Example: "  fleetscore config history", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var got api.List[api.ConfigVersion]
			if err := c.Get(ctx, "/config/versions", nil, &got); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"version", "applied", "in force"}}
			for _, v := range got.Items {
				inForce := ""
				if v.InForce {
					inForce = "yes"
				}
				l.add(v, v.Version, v.Applied, inForce)
			}
			return l, nil
		})
}

func newConfigDiffCommand() *cobra.Command {
	return &cobra.Command{Use: "diff VERSION [VERSION]", Short: "Show what changed from a version to another, or to the one in force",
		Long: `Shows each key that was added (+), removed (-) or changed (~) from one version to
another, or to the one in force. To compare a file with the configuration in force:
fleetscore apply FILE --dry-run.`,
		Example: "  fleetscore config diff 3\n  fleetscore config diff 3 4", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			var versions [2]fleetscore.Config
			for i, v := range []string{args[0], strings.Join(args[1:], "")} {
				text, err := configOf(cmd.Context(), c, v)
				if err != nil {
					return err
				}
				// Paths that are relative to fleet.yaml are compared as they are written.
				if versions[i], err = config.Parse("/fleet.yaml", text); err != nil {
					return err
				}
			}
			changes, err := config.Diff(versions[0], versions[1])
			for _, change := range changes {
				fmt.Fprintln(cmd.OutOrStdout(), change)
			}
			return err
		}}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// localFolders are the folders of this machine that fleets read models from.
func localFolders(cfg fleetscore.Config) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Fleets)) {
		if p := cfg.Fleets[name].Path; filepath.IsAbs(p) {
			out = append(out, p)
		}
	}
	return out
}

// commandFolders are the folders with the programs of pools' commands.
func commandFolders(cfg fleetscore.Config) (out []string) {
	for _, p := range cfg.Pools {
		if p.Exec != nil {
			for _, command := range [][]string{p.Exec.Start, p.Exec.Stop, p.Exec.List} {
				out = append(out, filepath.Dir(command[0]))
			}
		}
	}
	return out
}

// checkOwnFolders is checkFolders with all folders that the fleets name as roots.
func checkOwnFolders(cfg fleetscore.Config) error {
	roots, err := store.FindRoots(localFolders(cfg))
	if err != nil {
		return err
	}
	return checkFolders(cfg, roots)
}

// checkFolders refuses fleets whose models lie in a folder of this machine that
// isn't there, or not in one of the roots.
func checkFolders(cfg fleetscore.Config, roots store.Roots) error {
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
	return errors.Join(problems...)
}

// pathCause drops the operation and path that a message names already.
func pathCause(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}

// check refuses a configuration that the server can't carry out with what it has
// already: model folders, datasets, the hub's readings. If it is refused, the
// configuration in force stays.
func (s *server) check(ctx context.Context, cfg fleetscore.Config) (warnings []string, err error) {
	problems := []error{s.checkStandby(cfg), s.checkStore(cfg), checkFolders(cfg, s.roots), s.checkPools(ctx, cfg)}
	for _, name := range slices.Sorted(maps.Keys(cfg.Queries)) {
		plan, err := query.Parse(cfg.Queries[name].SQL)
		if err == nil {
			err = aggregator.Check(ctx, s.catalog, name, plan)
		}
		problems = append(problems, err)
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
func (s *server) checkPools(ctx context.Context, cfg fleetscore.Config) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Pools)) {
		if x := cfg.Pools[name].Exec; x != nil {
			for _, command := range [][]string{x.Start, x.Stop, x.List} {
				if err := pool.CheckCommand(command, s.cfg.commands); err != nil {
					problems = append(problems, fmt.Errorf("pools.%s: %w", name, err))
				}
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
		nodes, err := s.ledger.Nodes(ctx, name)
		if err != nil {
			return err
		}
		alive := 0
		for _, n := range nodes {
			if n.State != fleetscore.NodeStopped {
				alive++
			}
		}
		if alive > 0 {
			problems = append(problems, fleetscore.Errorf(fleetscore.Conflict, "apply configuration", name, "the pool has %s, and without its stop command their machines would run on", plural(alive, "node")).
				WithHint("take the pool out of all pipelines, wait until its nodes have stopped (fleetscore node list), then remove the pool"))
		}
	}
	return errors.Join(problems...)
}

// warnings names settings that are most likely mistakes, judged by the file and by what
// the server has. It returns an error if an existing dataset lacks a column that a
// pipeline needs.
func (s *server) warnings(ctx context.Context, cfg fleetscore.Config) ([]string, error) {
	old, ready, err := s.applied(ctx)
	if err != nil {
		return nil, err
	}
	uploaded := func(dataset string) bool {
		snap, err := s.catalog.Dataset(dataset).Snapshot(ctx)
		return err == nil && snap != nil
	}
	out := config.Warnings(cfg, time.Now(), uploaded)
	if ready {
		out = append(out, config.Leaving(old, cfg)...)
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		p := cfg.Pipelines[name]
		snap, err := s.catalog.Dataset(p.Dataset).Snapshot(ctx)
		if err == nil && snap != nil && !slices.ContainsFunc(slices.Collect(maps.Values(cfg.Queries)), func(q fleetscore.QueryConfig) bool { return writes(q, p.Dataset) }) {
			problems = append(problems, lacks(name, p, snap.Schema.Values()))
		}
		g, err := fleet.Current(ctx, s.store, p.Fleet)
		if err != nil {
			continue // there is none yet, or the fleet itself says what is wrong
		}
		for _, c := range g.Health.Against("pipeline "+name, p.Features, p.FeaturesBy).Causes {
			if c.Code == fleet.WrongFeatures || c.Code == fleet.WrongFeatureNames {
				out = append(out, fmt.Sprintf("fleets.%s: %s: %s", p.Fleet, plural(int(c.Sensors), "sensor"), c.Message))
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

func writes(q fleetscore.QueryConfig, dataset string) bool {
	plan, err := query.Parse(q.SQL)
	return err == nil && plan.Into == dataset
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

// checkStore refuses a configuration that names another store than the one that
// is open.
func (s *server) checkStore(cfg fleetscore.Config) error {
	if cfg.Store == "" || s.storeName(cfg.Store) == s.storeName(s.cfg.store) {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Conflict, "change store", withoutQuery(cfg.Store), "the server has %s open", withoutQuery(s.cfg.store)).
		WithHint("the store is fixed once there is data: take the key out, or start a server with --store and another --dir")
}

// checkHub refuses other partitions or key columns than those that readings were
// stored with.
func (s *server) checkHub(ctx context.Context, want fleetscore.HubConfig) error {
	have, ready, err := s.applied(ctx)
	if err != nil || !ready || have.Hub.Partitions == want.Partitions && slices.Equal(have.Hub.Key, want.Key) {
		return err
	}
	some, err := s.streams.holds(ctx, have.Hub)
	if err != nil || !some {
		return err
	}
	if have.Hub.Partitions != want.Partitions {
		return fleetscore.Errorf(fleetscore.Conflict, "change hub.partitions", "", "it holds readings in %d partitions, not %d", have.Hub.Partitions, want.Partitions).
			WithHint("partitions are fixed once readings are stored: put the old number back, or start with another --dir")
	}
	return fleetscore.Errorf(fleetscore.Conflict, "change hub.key", "", "it holds readings with the key %v, not %v", have.Hub.Key, want.Key).
		WithHint("the key is fixed once readings are stored: put the old one back, or start with another --dir")
}

// holds reports whether the hub, open or not, contains anything.
func (s *streams) holds(ctx context.Context, cfg fleetscore.HubConfig) (bool, error) {
	s.mu.Lock()
	h := s.hub
	s.mu.Unlock()
	if h == nil {
		c := s.hubConfig(cfg)
		if _, err := os.Stat(c.Dir); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		var err error
		if h, err = hub.Open(ctx, c, hub.Deps{Log: s.server.log}); err != nil {
			return false, err
		}
		defer h.Close() // nothing was written
	}
	stats, err := h.Stats(ctx)
	return slices.ContainsFunc(stats, func(p hub.Stats) bool { return p.Last > 0 }), err
}

// longest returns the longest window of the queries; 0 if there is none.
func longest(queries map[string]fleetscore.QueryConfig) (out time.Duration) {
	for _, q := range queries {
		if plan, err := query.Parse(q.SQL); err == nil { // it was judged when it was applied
			out = max(out, plan.Window)
		}
	}
	return out
}

// numbers are the columns that queries calculate with.
func numbers(queries map[string]fleetscore.QueryConfig) []string {
	var out []string
	for _, q := range queries {
		plan, err := query.Parse(q.SQL)
		if err != nil {
			continue // it was judged when it was applied
		}
		for _, a := range plan.Aggregates {
			if a.Func != "count" && !slices.Contains(out, a.Column) {
				out = append(out, a.Column)
			}
		}
	}
	return out
}
