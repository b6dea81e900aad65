package cli

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/autoscale/advise"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

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
