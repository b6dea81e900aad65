package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/autoscale/advise"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/config"
	"github.com/fleetscore/fleetscore/internal/config/batchai"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/scorer/code"
	"github.com/fleetscore/fleetscore/internal/server"
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

func newImportCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "import", Short: "Turn descriptions of other systems into a fleet.yaml"}
	cmd.AddCommand(&cobra.Command{
		Use:   "batchai FILE",
		Short: "Turn the JSON of an Azure Batch AI job into a pipeline",
		Long: `Prints a fleet.yaml with a pipeline for an Azure Batch AI job: a job.json of the
command line, or a job as the REST interface shows it. What has no counterpart is named
on stderr and in comments, with what to do instead; values of secrets aren't shown.`,
		Example: "  fleetscore import batchai job.json > fleet.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readLimited(args[0])
			if err != nil {
				return err
			}
			p, err := batchai.Convert(args[0], data)
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), p.YAML)
			verb := "settings have"
			if p.Counts == 1 {
				verb = "setting has"
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d %s no counterpart, or another one:\n", p.Counts, verb)
			for _, n := range p.Notes {
				fmt.Fprintf(cmd.ErrOrStderr(), "  %s\n", fleetscore.Printable(n))
			}
			return nil
		},
	})
	return cmd
}

// readLimited reads a small file.
func readLimited(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "read", name, "there is no such file")
	} else if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "read", name, "%w", pathCause(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, config.MaxBytes+1))
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "read", name, "%w", pathCause(err))
	}
	if len(data) > config.MaxBytes {
		return nil, fleetscore.Errorf(fleetscore.Exhausted, "read", name, "the file has more than %d bytes", config.MaxBytes)
	}
	return data, nil
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

// localFolders are the folders of this machine that fleets read models from, and the files and
// folders of pipelines' code.
func localFolders(cfg fleetscore.Config) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Fleets)) {
		if p := cfg.Fleets[name].Path; filepath.IsAbs(p) {
			out = append(out, p)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		for _, part := range code.PartsOf(cfg.Pipelines[name]) {
			out = append(out, part.Path)
		}
	}
	return out
}

// commandFolders are the folders with the programs of pools' commands.
func commandFolders(cfg fleetscore.Config) (out []string) {
	for _, p := range cfg.Pools {
		var commands [][]string
		if p.Exec != nil {
			commands = append(commands, p.Exec.Start, p.Exec.Stop, p.Exec.List)
		}
		if p.Setup != nil && p.Provider == "local" && filepath.IsAbs(p.Setup.Command[0]) {
			commands = append(commands, p.Setup.Command)
		}
		for _, command := range commands {
			out = append(out, filepath.Dir(command[0]))
		}
	}
	return out
}

// mountFolders are the mounts of a configuration.
func mountFolders(cfg fleetscore.Config) (out []string) {
	for _, m := range cfg.Mounts {
		out = append(out, m.Path)
	}
	return out
}

// checkOwnFolders is checkFolders with all folders that the fleets name as roots.
func checkOwnFolders(cfg fleetscore.Config) error {
	roots, err := store.FindRoots(localFolders(cfg))
	if err != nil {
		return err
	}
	return server.CheckFolders(cfg, roots)
}

// pathCause drops the operation and path that a message names already.
func pathCause(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}

const mountRootFlagText = "a folder of this machine that mounts of fleet.yaml may lie in, so that programs of pipelines may read there, and write if fleet.yaml says so; may be given several times"

func newMountCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "mount", Short: "Folders of file servers that pools, pipelines and fleets use"}
	cmd.AddCommand(remote(&cobra.Command{Use: "list", Short: "List the mounts, as they are on the server's machine", Example: "  fleetscore mount list", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var got api.List[api.MountDetail]
			if err := c.Get(ctx, "/mounts", nil, &got); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"name", "path", "read only", "type", "source", "pools", "on server", "problem"}}
			for _, m := range got.Items {
				l.add(m, m.Name, m.Path, choose(m.Writable(), "no", "yes"), m.Type, m.Source, strings.Join(m.Pools, ","), choose(m.OnServer, "good", "unusable"), m.Problem)
			}
			return l, nil
		}), newMountCheckCommand())
	return cmd
}

func newMountCheckCommand() *cobra.Command {
	var in api.MountCheck
	var size string
	cmd := remote(&cobra.Command{
		Use:   "check NAME",
		Short: "Check a mount and measure how fast it is",
		Long: `Checks a mount and measures it, on the server's machine or with --pool on each node of a
pool that runs. If programs may write there (read_only: false), a large file and small ones are
written, read and removed; otherwise files that are there are read. What the machine has of them
in its memory is dropped first, as far as its kernel does that.

The verdict is good, slow (less than 20 MiB a second of a large file, or less than 100 small
files a second), empty (there is nothing to read) or unusable.

Exit codes: 0 good, slow or empty everywhere, 1 unusable somewhere.`,
		Example: "  fleetscore mount check history\n  fleetscore mount check history --pool cpu --size 1GB",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		var bytes fleetscore.Size
		if err := bytes.UnmarshalText([]byte(size)); err != nil || bytes <= 0 {
			return nil, usagef("--size %s: not a size such as 64MB", size)
		}
		in.SizeBytes = int64(bytes)
		var got api.List[fleetscore.MountReport]
		if err := c.Post(ctx, "/mounts/"+url.PathEscape(args[0])+"/check", in, &got); err != nil {
			return nil, err
		}
		l, failed := &listing{columns: []string{"node", "host", "type", "source", "free MB", "write MB/s", "read MB/s", "files written/s", "files read/s", "latency p50", "p99", "verdict", "advice"}}, false
		for _, r := range got.Items {
			l.add(r, cmp.Or(string(r.Node), "server"), r.Host, r.Type, r.Source, measured(float64(r.FreeBytes)/1e6), measured(float64(r.WriteBytes)/1e6), measured(float64(r.ReadBytes)/1e6), measured(r.FilesWritten), measured(r.FilesRead), r.LatencyP50.String(), r.LatencyP99.String(), string(r.Verdict), r.Advice)
			failed = failed || r.Verdict == fleetscore.MountUnusable
		}
		if failed {
			return l, exitError(exitFailed)
		}
		return l, nil
	})
	cmd.Flags().StringVar(&in.Pool, "pool", "", "the pool whose nodes measure; the server does if it is empty")
	cmd.Flags().StringVar(&size, "size", "64MB", "how much is written and read, of a large file")
	cmd.Flags().IntVar(&in.Files, "files", 200, "how many small files")
	return cmd
}

// measured is a figure of a measurement; 0 was not measured.
func measured(n float64) string {
	return choose(n == 0, "-", strconv.FormatFloat(n, 'f', 0, 64))
}

func newAdviseCommand() *cobra.Command {
	var machines []string
	var within, since, start time.Duration
	cmd := &cobra.Command{
		Use:   "advise POOL --machine NAME=CPUS,MEMORY,PRICE...",
		Short: "Many small machines or few big ones: compare candidates by what was measured",
		Long: `Compares machines for a pool by what its jobs needed since --since ago: how long it
takes to load and to score their models (or else how long their tasks ran), how many
processors and how much memory a task took, and how long a node takes to start. For each
candidate it says how many nodes do every job within the time, how long that takes,
node-hours, cost, and what bounds it; and then which one to take. It names each
measurement with its age, and what is assumed because it wasn't measured.

A candidate is a name, processors, memory and the price of an hour. --within is the time
that a job may take; unless given, the shortest time between two due times of the pool's
pipelines. docs/pools.md says how it is computed.

Exit codes: 0 a candidate is possible, 1 none is, 10 usage, 12 no such pool or nothing
was measured.`,
		Example: "  fleetscore pool advise vms --machine small=2cpu,4GiB,0.10 --machine big=16cpu,64GiB,0.80 --within 10m",
		Args:    cobra.ExactArgs(1),
	}
	addOutputFlag(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&machines, "machine", nil, "a candidate, such as small=2cpu,4GiB,0.10; at least one")
	f.DurationVar(&within, "within", 0, "how long a job may take (default: the time between two jobs by the schedule)")
	f.DurationVar(&since, "since", 24*time.Hour, "how far back the jobs are looked at")
	f.DurationVar(&start, "start", time.Minute, "how long a node takes to start (default: as measured, else 1m)")
	must(cmd.MarkFlagRequired("machine"))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		w := advise.Work{Within: within, Start: start, Measured: cmd.Flags().Changed("start")}
		if cmd.Flags().Changed("within") && within <= 0 {
			return usagef("--within must be longer than nothing, such as 10m")
		}
		candidates, err := readMachines(machines)
		if err != nil {
			return err
		}
		h, err := poolHistory(cmd, args[0], since)
		if err != nil {
			return err
		}
		w.Jobs, w.Models, w.Load, w.IdleAfter, w.Now = h.Jobs, h.Models, h.Busy, h.Scale.IdleAfter.D(), h.To
		w.Cut = advise.Cut{Task: dispatch.TaskTime, Shortest: dispatch.ShortestTask, Most: fleetscore.Shards}
		if h.StartSeconds != nil && !w.Measured {
			w.Start, w.Measured = time.Duration(*h.StartSeconds*float64(time.Second)), true
		}
		if h.EverySeconds != nil {
			w.Every = time.Duration(*h.EverySeconds * float64(time.Second))
			if w.Within == 0 {
				w.Within = w.Every
			}
		}
		if w.Within == 0 {
			return usagef("no pipeline of pool %s has a schedule: say by --within how long a job may take", args[0])
		}
		a, err := advise.Advise(w, candidates)
		if err != nil {
			return err
		}
		return showAdvice(cmd, h, a)
	}
	return cmd
}

func showAdvice(cmd *cobra.Command, h api.PoolHistory, a advise.Advice) error {
	how, _ := cmd.Flags().GetString("output")
	l := listing{columns: []string{"machine", "slots", "nodes", "wall time", "node hours a job", "cost a job", "cost a month", "bound by"}, single: how == "json"}
	span := func(s float64) string {
		return time.Duration(s * float64(time.Second)).Round(10 * time.Millisecond).String()
	}
	if how == "json" {
		l.add(a)
	}
	for _, c := range a.Candidates {
		if how == "json" {
			break
		}
		if !c.Possible {
			l.add(c, c.Name, c.Slots, "impossible", "-", "-", "-", "-", c.Bound)
			continue
		}
		month := "unknown"
		if c.CostPerMonth != nil {
			month = fmt.Sprintf("%.2f", *c.CostPerMonth)
		}
		l.add(c, c.Name, c.Slots, c.Nodes, span(c.WallSeconds), fmt.Sprintf("%.4f", c.NodeHours), fmt.Sprintf("%.4f", c.CostPerJob), month, c.Bound)
	}
	if how == "table" {
		memory := "not measured"
		if a.MemoryPerTask > 0 {
			memory = fmt.Sprintf("%.2f GiB", float64(a.MemoryPerTask)/(1<<30))
		}
		rows := append(historyRows(h), [2]string{"largest job", fmt.Sprintf("%s CPU-seconds, %s", strconv.FormatFloat(a.CPUSeconds, 'f', 2, 64), plural(a.Tasks, "task"))},
			[2]string{"longest task", span(a.LongestSeconds)}, [2]string{"start of a node", span(a.StartSeconds)},
			[2]string{"a task takes", fmt.Sprintf("%.2f processors, memory %s", a.CPUsPerTask, memory)}, [2]string{"allowed for a job", span(a.WithinSeconds)})
		if err := writePairs(cmd.OutOrStdout(), rows); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout())
	}
	if err := l.print(cmd); err != nil {
		return err
	}
	if how == "table" {
		fmt.Fprintf(cmd.OutOrStdout(), "\n%s\n", fleetscore.Printable(a.Recommendation))
		for _, m := range a.Measured {
			fmt.Fprintf(cmd.OutOrStdout(), "Measured: %s.\n", fleetscore.Printable(m))
		}
		for _, u := range a.Unmeasured {
			fmt.Fprintf(cmd.OutOrStdout(), "Assumed: %s.\n", fleetscore.Printable(u))
		}
	}
	if a.Best == "" {
		return exitError(exitFailed)
	}
	return nil
}

// units are the units of memory of a candidate.
var units = []struct {
	name  string
	bytes float64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"GB", 1e9}, {"MB", 1e6}}

// readMachines reads candidates such as small=2cpu,4GiB,0.10.
func readMachines(texts []string) (out []advise.Machine, err error) {
	seen := map[string]bool{}
	for _, text := range texts {
		bad := func(why string) error {
			return usagef("--machine %q: %s; a candidate is written small=2cpu,4GiB,0.10: name, processors, memory, price of an hour", text, why)
		}
		name, rest, _ := strings.Cut(text, "=")
		parts := strings.Split(rest, ",")
		if name == "" || len(parts) != 3 {
			return nil, bad("it has another form")
		}
		if seen[name] {
			return nil, bad("there are two of this name")
		}
		seen[name] = true
		m := advise.Machine{Name: name}
		if m.CPUs, err = strconv.ParseFloat(strings.TrimSuffix(parts[0], "cpu"), 64); err != nil || !strings.HasSuffix(parts[0], "cpu") || !(m.CPUs > 0 && m.CPUs <= 10_000) {
			return nil, bad("the processors aren't a number up to 10000 with cpu")
		}
		for _, u := range units {
			if n, ok := strings.CutSuffix(parts[1], u.name); ok && m.MemoryBytes == 0 {
				if v, err := strconv.ParseFloat(n, 64); err == nil && v > 0 && v <= 1e6 {
					m.MemoryBytes = int64(v * u.bytes)
				}
			}
		}
		if m.MemoryBytes <= 0 {
			return nil, bad("the memory isn't a number with GiB, MiB, GB or MB")
		}
		if m.CostPerHour, err = strconv.ParseFloat(parts[2], 64); err != nil || !(m.CostPerHour > 0 && m.CostPerHour <= 1e9) {
			return nil, bad("the price isn't a number of more than 0")
		}
		out = append(out, m)
	}
	return out, nil
}

// poolHistory asks the server for what a pool had to do.
func poolHistory(cmd *cobra.Command, pool string, since time.Duration) (h api.PoolHistory, err error) {
	if since <= 0 {
		return h, usagef("--since must be longer than nothing, such as 24h")
	}
	c, err := dial(cmd)
	if err != nil {
		return h, err
	}
	defer c.Close()
	from := time.Now().Add(-since).UTC()
	if err = c.Get(cmd.Context(), "/pools/"+url.PathEscape(pool)+"/history", url.Values{"since": {from.Format(time.RFC3339)}}, &h); err != nil {
		return h, err
	}
	if h.Shortened {
		warn(cmd.ErrOrStderr(), []string{"there were too many jobs: the history begins at " + stamp(h.From)})
	}
	left := 0
	for _, j := range h.Jobs {
		left += j.Left
	}
	if left > 0 {
		warn(cmd.ErrOrStderr(), []string{plural(left, "task") + " of these jobs didn't end after running, and aren't in the history"})
	}
	return h, nil
}

// historyRows say what a pool had to do and how that went.
func historyRows(h api.PoolHistory) (rows [][2]string) {
	tasks, hours := 0, 0.0
	for _, j := range h.Jobs {
		for _, r := range j.Runs {
			tasks += r.Tasks
			hours += float64(r.Tasks) * r.Seconds / 3600 / float64(max(1, h.Slots))
		}
	}
	rows = append(rows, [2]string{"history of", fmt.Sprintf("pool %s, %s to %s", h.Pool, stamp(h.From), stamp(h.To))},
		[2]string{"work", fmt.Sprintf("%s, %s, %.2f node-hours", plural(len(h.Jobs), "job"), plural(tasks, "task"), hours)},
		[2]string{"tasks waited", fmt.Sprintf("%.0f s on average, 95 %% at most %.0f s, the longest %.0f s", h.Waits.Mean, h.Waits.P95, h.Waits.Max)})
	if u := h.Usage; u != nil {
		rows = append(rows, [2]string{"the pool took", fmt.Sprintf("%.2f node-hours since %s, with at most %s", u.NodeHours, stamp(u.From), plural(int(u.MostNodes), "node"))})
	}
	return rows
}
