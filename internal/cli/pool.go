package cli

import (
	"bytes"
	"cmp"
	"context"
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
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
	"github.com/fleetscore/fleetscore/internal/autoscale/replay"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/durable"
)

func newPoolCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "pool", Short: "Pools of nodes"}
	cmd.AddCommand(remote(&cobra.Command{Use: "list", Short: "List the pools and their queues",
		Long: `Lists the pools: how many nodes are in each state, how many of those that work are of low
priority, and how many tasks wait (queued) and run (leased). Nodes that are unusable, lost or
stopped are counted for an hour.`,
		Example: "  fleetscore pool list", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var got api.List[api.Pool]
			if err := c.Get(ctx, "/pools", nil, &got); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"pool", "provider", "slots", "min", "max", "starting", "preparing", "idle", "running", "draining",
				"unusable", "lost", "stopped", "low priority", "queued", "leased"}}
			for _, p := range got.Items {
				n := func(s fleetscore.NodeState) int64 { return p.Nodes[s] + p.Ended[s] }
				l.add(p, p.Name, p.Provider, p.Slots, p.Min, p.Max,
					n(fleetscore.NodeStarting), n(fleetscore.NodePreparing), n(fleetscore.NodeIdle), n(fleetscore.NodeRunning), n(fleetscore.NodeDraining),
					n(fleetscore.NodeUnusable), n(fleetscore.NodeLost), n(fleetscore.NodeStopped), p.Kinds[fleetscore.LowPriority], p.Queued, p.Leased)
			}
			return l, nil
		}))
	cmd.AddCommand(newPoolShowCommand(), newJoinTokenCommand(), newAdviseCommand(), newFormulaCommand())
	return cmd
}

func newPoolShowCommand() *cobra.Command {
	var evaluations int
	cmd := &cobra.Command{
		Use:   "show POOL",
		Short: "Show a pool, and what its formula decided",
		Long: `Shows a pool, and the newest evaluations of its formula: the number of nodes within the
bounds of the pool, and targets, option and variables as the service writes them. -o json
also has the variables one by one, the values of the service's variables, and which
samples were used; -o csv and jsonl have a row for each evaluation.`,
		Example: "  fleetscore pool show cpu",
		Args:    cobra.ExactArgs(1),
	}
	addOutputFlag(cmd)
	cmd.Flags().IntVar(&evaluations, "evaluations", 20, "how many evaluations to show, at most 500")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		var d api.PoolDetail
		if err := c.Get(cmd.Context(), "/pools/"+url.PathEscape(args[0]), url.Values{"evaluations": {strconv.Itoa(evaluations)}}, &d); err != nil {
			return err
		}
		return showPool(cmd, d)
	}
	return cmd
}

func showPool(cmd *cobra.Command, d api.PoolDetail) error {
	how, _ := cmd.Flags().GetString("output")
	if how == "json" {
		l := listing{single: true}
		l.add(d)
		return l.print(cmd)
	}
	l := listing{columns: []string{"time", "nodes", "result", "error"}}
	for _, e := range d.Evaluations {
		problem := ""
		if e.Problem != nil {
			problem = e.Problem.Message
		}
		l.add(e, e.At, e.Nodes, e.Result, problem)
	}
	if how != "table" {
		return l.print(cmd)
	}
	rows := [][2]string{{"pool", d.Name}, {"provider", d.Provider}, {"slots of a node", strconv.Itoa(d.Slots)}, {"nodes", statesText(d.Nodes)},
		{"bounds", bounds(d)}, {"tasks", fmt.Sprintf("%s wait, %s run", thousands(d.Queued), thousands(d.Leased))}}
	if d.Scale.Formula != "" {
		rows = append(rows, [2]string{"formula", fmt.Sprintf("evaluated every %s", d.Scale.EvaluationInterval)}, [2]string{"problem", d.Problem})
	}
	if low := d.Scale.LowPriority; low != nil {
		rows = append(rows, [2]string{"low priority", fmt.Sprintf("%s of %d to %d nodes; %s preempted in the last hour", thousands(d.Kinds[fleetscore.LowPriority]), low.Min, low.Max, thousands(d.Preempted))})
	}
	if d.Broken != "" {
		rows = append(rows, [2]string{"broken", d.Broken})
	}
	for _, n := range d.Members {
		rows = append(rows, [2]string{"node", nodeText(n)})
	}
	rows = append(rows, usageRows(d)...)
	if err := writePairs(cmd.OutOrStdout(), rows); err != nil || len(d.Evaluations) == 0 {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout())
	return l.print(cmd)
}

// bounds says how many nodes a pool may have.
func bounds(d api.PoolDetail) string {
	if d.Provider == "static" {
		return "the agents that people start"
	}
	return fmt.Sprintf("%d to %d nodes", d.Min, d.Max)
}

// nodeText is a node in a few words.
func nodeText(n fleetscore.Node) string {
	text := fmt.Sprintf("%s: %s", n.ID, n.State)
	if n.Kind == fleetscore.LowPriority {
		text += ", low priority"
	}
	if n.Running > 0 {
		text += fmt.Sprintf(", %s", plural(n.Running, "task"))
	}
	if !n.State.Ended() {
		text += ", " + n.Load.String()
	}
	if n.Reason != "" {
		text += ", " + fleetscore.Printable(n.Reason)
	}
	if n.LogTail != "" {
		text += "; the end of its log:\n" + indented(n.LogTail)
	}
	return text
}

// indented is a text of several lines as it is shown below another one.
func indented(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, "    "+fleetscore.Printable(strings.TrimSuffix(line, "\n")))
	}
	return strings.Join(lines, "\n")
}

// usageRows says what a pool and its jobs took, and what that cost.
func usageRows(d api.PoolDetail) (rows [][2]string) {
	text := func(digits int, hours float64, cost *float64) string {
		if cost == nil {
			return fmt.Sprintf("%.*f node-hours", digits, hours)
		}
		return fmt.Sprintf("%.*f node-hours, cost %.*f", digits, hours, digits, *cost)
	}
	if u := d.Usage; u != nil {
		rows = append(rows, [2]string{"used", fmt.Sprintf("%s, in %.1f hours since %s", text(2, u.NodeHours, u.Cost), u.Hours, stamp(u.From))},
			[2]string{"saved", fmt.Sprintf("%s, compared with %s always", text(2, u.SavedHours, u.SavedCost), plural(int(u.MostNodes), "node"))})
	}
	for _, j := range d.Jobs {
		rows = append(rows, [2]string{"job", fmt.Sprintf("%s: %s", j.Job, text(4, j.NodeHours, j.Cost))})
	}
	return rows
}

// statesText is how many nodes are in each state, such as "1 starting, 3 ready".
func statesText(nodes map[fleetscore.NodeState]int64) string {
	var parts []string
	for _, s := range fleetscore.NodeStates {
		if n := nodes[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

func newFormulaCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "formula", Short: "Formulas in the language of Azure Batch that say how many nodes a pool has"}
	cmd.AddCommand(newFormulaCheckCommand(), newFormulaEvalCommand(), newFormulaReplayCommand())
	showVerbs(cmd)
	return cmd
}

func newFormulaCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Find what is wrong with a formula, without a server",
		Long: `Reads a formula and reports, with line, column and a hint, what is wrong with it
and what is allowed but most likely not meant, such as tasks that are counted twice.
FILE is a file, or - for standard input. docs/formulas.md describes the language.

Exit codes: 0 good, also with warnings; 10 not.`,
		Example: "  echo '$TargetDedicatedNodes = min(4, $PendingTasks);' | fleetscore pool formula check -",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readInput(cmd, "read formula", args[0], maxFormulaFile)
			if err != nil {
				return err
			}
			found := formula.Check(string(text))
			if how, _ := cmd.Flags().GetString("output"); how == "table" && len(found) == 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is good\n", inputName(args[0]))
				return nil
			}
			l := &listing{columns: []string{"line", "column", "severity", "message", "hint"}}
			for _, f := range found {
				l.add(f, f.Line, f.Column, f.Severity, f.Message, f.Hint)
			}
			if err := l.print(cmd); err != nil {
				return err
			}
			if slices.ContainsFunc(found, func(f formula.Finding) bool { return f.Severity == formula.Wrong }) {
				return exitError(exitUsage)
			}
			return nil
		},
	}
	addOutputFlag(cmd)
	return cmd
}

func newFormulaEvalCommand() *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use:   "eval FILE --state STATE.json",
		Short: "Evaluate a formula once, without a server",
		Long: `Evaluates a formula with the variables and samples of a file, and shows the targets,
the option for nodes that are removed, every variable, and which samples were used.
FILE is a file, or - for standard input. The state has the form

  {"now": "2026-11-23T10:00:00Z",
   "current": {"$TargetDedicatedNodes": 3},
   "samples": {"$PendingTasks": [["2026-11-23T09:59:30Z", 7]]}}

When the evaluation fails, the targets are those of the state, and error says why.

Exit codes: 0 evaluated, 1 the evaluation failed, 10 usage or a state that can't be read.`,
		Example: "  fleetscore pool formula eval backlog.formula --state state.json -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readInput(cmd, "read formula", args[0], maxFormulaFile)
			if err != nil {
				return err
			}
			stateText, err := readInput(cmd, "read state", state, maxStateFile)
			if err != nil {
				return err
			}
			s, err := formula.ReadState(stateText)
			if err != nil {
				return err
			}
			r := formula.Evaluate(string(text), s)
			if err := evaluated(r).print(cmd); err != nil {
				return err
			}
			if r.Err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", inputName(args[0]), fleetscore.Printable(r.Err.Error()))
				return exitError(exitFailed)
			}
			return nil
		},
	}
	addOutputFlag(cmd)
	cmd.Flags().StringVar(&state, "state", "", "file with the time, the variables and the samples, in JSON")
	must(cmd.MarkFlagRequired("state"))
	return cmd
}

// evaluated shows a result: a row for each variable.
func evaluated(r formula.Result) *listing {
	l := &listing{columns: []string{"name", "value"}, single: true, items: []any{r}}
	for _, n := range []string{formula.Dedicated, formula.LowPriority} {
		l.rows = append(l.rows, []any{n, r.Targets[n]})
	}
	l.rows = append(l.rows, []any{formula.Option, r.Option})
	for _, n := range slices.Sorted(maps.Keys(r.Variables)) {
		l.rows = append(l.rows, []any{n, r.Variables[n].String()})
	}
	return l
}

// replaying is one run of "pool formula replay".
type replaying struct {
	cfg      replay.Config
	workload string
	history  string
	save     string
	since    time.Duration
	cost     float64
	names    []string
	formulas []*formula.Formula
}

func newFormulaReplayCommand() *cobra.Command {
	var r replaying
	cmd := &cobra.Command{
		Use:   "replay [FILE...] --workload TASKS.csv | --history POOL",
		Short: "Play formulas side by side on a workload, or on what a pool had to do",
		Long: `Plays each formula on the same simulated pool and workload, and shows a chart of the
nodes and of the tasks that wait, and a table: node-hours, how long tasks waited,
what was interrupted. To compare with a pool of a fixed size, play a formula such as
$TargetDedicatedNodes = 5; too.

With --workload, no server is needed. The workload is CSV with the columns time, tasks
and seconds: how many tasks come at that time, and how long each runs on one slot.

With --history, the workload is what a pool of the server had to do: the tasks of its
jobs since --since ago, at the times when they were queued, as long as they ran. Slots,
bounds, interval, cost and the time that nodes take to start are the pool's, unless
flags say otherwise. The formula in force is played too. --save writes the workload into
a file for --workload.

All formulas are played until the last one has nothing more to do, and --tail longer.
Nodes are paid for from their start.`,
		Example: "  fleetscore pool formula replay backlog.formula fixed.formula --workload tasks.csv --slots 4\n" +
			"  fleetscore pool formula replay new.formula --history vms --since 48h --save tasks.csv",
		RunE: r.run,
	}
	addOutputFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&r.workload, "workload", "", "CSV with the columns time, tasks, seconds; - for standard input")
	f.StringVar(&r.history, "history", "", "pool of the server whose tasks are the workload")
	f.DurationVar(&r.since, "since", 24*time.Hour, "with --history: how far back")
	f.StringVar(&r.save, "save", "", "with --history: file to write the workload into")
	f.IntVar(&r.cfg.Slots, "slots", 1, "tasks that a node runs at once")
	f.DurationVar(&r.cfg.Start, "start", time.Minute, "how long a node takes to start")
	f.DurationVar(&r.cfg.Interval, "interval", 15*time.Minute, "time between two evaluations")
	f.IntVar(&r.cfg.Min, "min", 0, "least number of dedicated nodes, whatever the formula asks for")
	f.IntVar(&r.cfg.Max, "max", 1000, "largest number of nodes of each kind")
	f.DurationVar(&r.cfg.Tail, "tail", 2*time.Hour, "how long to play on after the last task")
	f.Float64Var(&r.cost, "cost", 0, "price of a node-hour; adds the cost")
	cmd.MarkFlagsMutuallyExclusive("workload", "history")
	cmd.MarkFlagsOneRequired("workload", "history")
	cmd.MarkFlagsMutuallyExclusive("workload", "since")
	cmd.MarkFlagsMutuallyExclusive("workload", "save")
	return cmd
}

// played is one formula's replay for programs; its points are thinned out.
type played struct {
	Formula string `json:"formula"`
	replay.Outcome
	Cost *float64 `json:"cost,omitempty"`
}

func (r *replaying) run(cmd *cobra.Command, args []string) error {
	for _, name := range args {
		text, err := readInput(cmd, "read formula", name, maxFormulaFile)
		if err != nil {
			return err
		}
		if err := r.add(inputName(name), string(text)); err != nil {
			return err
		}
	}
	work, err := r.work(cmd)
	if err != nil {
		return err
	}
	if len(r.formulas) == 0 {
		if r.save != "" {
			return nil
		}
		return usagef("name at least one file with a formula")
	}
	outcomes := make([]replay.Outcome, len(r.formulas))
	for range 2 { // the second time until the end of the longest
		for i, f := range r.formulas {
			if !outcomes[i].To.IsZero() && outcomes[i].To.Equal(r.cfg.Until) {
				continue
			}
			if outcomes[i], err = replay.Run(f, r.cfg, work); err != nil {
				return err
			}
		}
		for _, o := range outcomes {
			if o.To.After(r.cfg.Until) {
				r.cfg.Until = o.To
			}
		}
	}
	return r.show(cmd, outcomes)
}

// add adds a formula to those that are played.
func (r *replaying) add(name, text string) error {
	f, problems := formula.Parse(text)
	if f == nil {
		return fleetscore.Errorf(fleetscore.Invalid, "read formula", name, "%s", problems[0].Located()).WithHint("%s", problems[0].Hint)
	}
	r.names, r.formulas = append(r.names, filepath.Base(name)), append(r.formulas, f)
	return nil
}

// work is the workload that the flags name.
func (r *replaying) work(cmd *cobra.Command) ([]replay.Arrival, error) {
	if r.history != "" {
		return r.past(cmd)
	}
	text, err := readInput(cmd, "read workload", r.workload, maxStateFile)
	if err != nil {
		return nil, err
	}
	return replay.Read(inputName(r.workload), text)
}

// past asks the server for what a pool had to do, and takes over what the pool is like
// where no flag says otherwise.
func (r *replaying) past(cmd *cobra.Command) ([]replay.Arrival, error) {
	h, err := poolHistory(cmd, r.history, r.since)
	if err != nil {
		return nil, err
	}
	work := replay.Work(h.Jobs)
	if len(work) == 0 {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "play history", r.history, "no task has run since %s", stamp(h.From)).
			WithHint("a longer --since may reach further; jobs are forgotten as retention says")
	}
	if r.save != "" {
		var text bytes.Buffer
		if err := replay.Write(&text, work); err != nil {
			return nil, err
		}
		if err := durable.WriteFile(r.save, text.Bytes(), 0o644); err != nil {
			return nil, fleetscore.Errorf(fleetscore.Invalid, "write workload", r.save, "%w", pathCause(err))
		}
	}
	given := cmd.Flags().Changed
	if !given("slots") {
		r.cfg.Slots = h.Slots
	}
	if !given("min") {
		r.cfg.Min = h.Scale.Min
	}
	if !given("max") {
		r.cfg.Max = max(h.Scale.Max, h.Scale.Min)
		if low := h.Scale.LowPriority; low != nil {
			r.cfg.Max = max(r.cfg.Max, low.Max)
		}
	}
	if !given("cost") {
		r.cost = h.Scale.CostPerHour
	}
	if interval := h.Scale.EvaluationInterval.D(); interval > 0 && !given("interval") {
		r.cfg.Interval = interval
	}
	start := "--start"
	if !given("start") {
		start = "assumed, as no node of the pool ran within the last hour; --start changes it"
		if h.StartSeconds != nil {
			r.cfg.Start = time.Duration(*h.StartSeconds * float64(time.Second)).Round(time.Millisecond)
			start = "measured"
		}
	}
	if h.Scale.Formula != "" {
		if err := r.add("in force", h.Scale.Formula); err != nil {
			return nil, err
		}
	}
	if how, _ := cmd.Flags().GetString("output"); how != "table" || len(r.formulas) == 0 {
		return work, nil
	}
	err = writePairs(cmd.OutOrStdout(), append(historyRows(h), [2]string{"start of a node", fmt.Sprintf("%s, %s", r.cfg.Start, start)}))
	fmt.Fprintln(cmd.OutOrStdout())
	return work, err
}

func (r *replaying) show(cmd *cobra.Command, outcomes []replay.Outcome) error {
	l := &listing{columns: []string{"formula", "node hours", "most nodes", "busy %", "mean wait s", "95 % wait s", "max wait s", "tasks", "done", "requeued", "terminated", "evaluations", "failed"}}
	if r.cost > 0 {
		l.columns = append(l.columns, "cost")
	}
	for i, o := range outcomes {
		name := r.names[i]
		p := played{Formula: name, Outcome: o}
		p.Points = o.Series(200)
		cells := []any{name, fmt.Sprintf("%.2f", o.NodeHours), o.MostNodes, fmt.Sprintf("%.0f", o.Busy), fmt.Sprintf("%.0f", o.Waits.Mean), fmt.Sprintf("%.0f", o.Waits.P95), fmt.Sprintf("%.0f", o.Waits.Max),
			o.Tasks, o.Done, o.Requeued, o.Terminated, o.Evaluations, o.Failed}
		if r.cost > 0 {
			cost := o.NodeHours * r.cost
			p.Cost = &cost
			cells = append(cells, fmt.Sprintf("%.2f", cost))
		}
		l.add(p, cells...)
		if o.FirstError != "" {
			warn(cmd.ErrOrStderr(), []string{fmt.Sprintf("%s: %s of %d failed, the first with: %s", name, plural(o.Failed, "evaluation"), o.Evaluations, o.FirstError)})
		}
	}
	if how, _ := cmd.Flags().GetString("output"); how == "table" {
		drawReplays(cmd.OutOrStdout(), r.names, outcomes)
	}
	return l.print(cmd)
}

// drawReplays draws nodes and waiting tasks over time, all formulas to the same scale.
func drawReplays(w io.Writer, names []string, outcomes []replay.Outcome) {
	const width = 60
	nodes, waiting := 1, 1
	for _, o := range outcomes {
		for _, p := range o.Points {
			nodes, waiting = max(nodes, p.Nodes), max(waiting, p.Queued)
		}
	}
	fmt.Fprintf(w, "%s to %s; the highest bar is %s or %s\n", stamp(outcomes[0].From), stamp(outcomes[0].To), plural(nodes, "node"), plural(waiting, "waiting task"))
	bar := func(v, most int) rune { // what isn't 0 can be seen
		return []rune(" ▁▂▃▄▅▆▇█")[(8*v+most-1)/most]
	}
	for i, o := range outcomes {
		fmt.Fprintf(w, "\n%s\n", fleetscore.Printable(names[i]))
		var n, q []rune
		for _, p := range o.Series(width) {
			n, q = append(n, bar(p.Nodes, nodes)), append(q, bar(p.Queued, waiting))
		}
		fmt.Fprintf(w, "  nodes    |%s|\n  waiting  |%s|\n", string(n), string(q))
	}
	fmt.Fprintln(w)
}

// The largest files that are read; formula.Parse judges a formula's own size.
const (
	maxFormulaFile = 1 << 20
	maxStateFile   = 64 << 20
)

func inputName(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}

// readInput reads a whole file, or standard input for -.
func readInput(cmd *cobra.Command, op, file string, most int64) ([]byte, error) {
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fleetscore.Errorf(fleetscore.Invalid, op, file, "%w", pathCause(err))
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, inputName(file), "%w", pathCause(err))
	}
	if int64(len(text)) > most {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, inputName(file), "the file is larger than %d MB", most>>20)
	}
	return text, nil
}

func newJoinTokenCommand() *cobra.Command {
	var expires string
	cmd := &cobra.Command{
		Use:   "join-token POOL",
		Short: "Create a one-time token by which one machine may join a static pool",
		Long: `Creates a token by which exactly one node may join the pool, and writes its secret to
stdout; it can't be shown again. Bring it to the machine in a file, and start the agent there
(fleetscore node). The agent exchanges it for a credential of its own, which is for that
node of that pool only. Unused, the token expires.`,
		Example: "  fleetscore pool join-token lab --expires 1h > lab.token",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := fleetscore.ParseDuration(expires)
			if err != nil || d <= 0 {
				return usagef("--expires %s: not a duration such as 24h", expires)
			}
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			var t api.NewToken
			if err := c.Post(cmd.Context(), "/pools/"+url.PathEscape(args[0])+"/join-tokens", map[string]any{"expires": time.Now().Add(d.D()).UTC().Truncate(time.Second)}, &t); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), t.Secret)
			return nil
		}}
	cmd.Flags().StringVar(&expires, "expires", "24h", "how long it may be unused, at most 90d")
	return cmd
}
