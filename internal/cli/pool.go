package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
	"github.com/fleetscore/fleetscore/internal/client"
)

func newPoolCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "pool", Short: "Pools of nodes"}
	cmd.AddCommand(remote(&cobra.Command{Use: "list", Short: "List the pools and their queues", Example: "  fleetscore pool list", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var got api.List[api.Pool]
			if err := c.Get(ctx, "/pools", nil, &got); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"pool", "provider", "slots", "min", "max", "starting", "ready", "draining", "queued", "leased"}}
			for _, p := range got.Items {
				n := func(s fleetscore.NodeState) int64 { return p.Nodes[s] }
				l.add(p, p.Name, p.Provider, p.Slots, p.Min, p.Max,
					n(fleetscore.NodeStarting), n(fleetscore.NodeReady), n(fleetscore.NodeDraining), p.Queued, p.Leased)
			}
			return l, nil
		}))
	cmd.AddCommand(newFormulaCommand())
	return cmd
}

func newFormulaCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "formula", Short: "Formulas in the language of Azure Batch that say how many nodes a pool has"}
	cmd.AddCommand(newFormulaCheckCommand(), newFormulaEvalCommand())
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
