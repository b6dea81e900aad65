package laboratory

import (
	"bufio"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/stream"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// NewCommand returns the command query.
func NewCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "query", Short: "Try queries over files without a server, and make rows of a query again"}
	cmd.AddCommand(newTest(), newCheck(), newExplain())
	return cmd
}

const exitCodes = "\n\nExit codes: 0 done, 1 failed, 10 usage or a query that is wrong, 12 not found."

func newTest() *cobra.Command {
	var opt Options
	var policy string
	var events bool
	cmd := &cobra.Command{
		Use:   "test FILE",
		Short: "Run queries over files of events and print the rows",
		Long: `Runs all queries of a file over files of events (NDJSON, Parquet or CSV), in the
language of Azure Stream Analytics, and prints the rows in the order of their times. At the
end everything that is open is flushed. Reference data of a JOIN is an input too. If there
are several outputs, each row tells its output as _into.

Without --arrival, events go by TIMESTAMP BY alone, in any order: nothing is late or early.
With it, the policies of the service hold: late events (--late), then events out of order
(--disorder), are adjusted or dropped, and early ones (--early) are dropped. --disorder
alone judges the order without arrivals. --events prints what became of each event instead.` + exitCodes,
		Example: "  fleetscore query test query.sql --input hub=readings.ndjson -o jsonl\n  fleetscore query test query.sql --input hub=readings.ndjson --arrival Arrived --late 15s --disorder 8s --events",
		Args:    cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringArrayVar(&opt.Inputs, "input", nil, "NAME=FILE: the events of an input; once for each")
	f.StringVar(&opt.Arrival, "arrival", "", "column with the time at which an event arrived")
	f.BoolVar(&opt.ArrivalTime, "arrival-time", false, "events go by their arrival, whatever TIMESTAMP BY says")
	late, disorder, early := fleetscore.Duration(5*time.Second), fleetscore.Duration(0), fleetscore.Duration(5*time.Minute)
	f.TextVar(&late, "late", late, "the `duration` by which an event may be old at its arrival; needs --arrival")
	f.TextVar(&disorder, "disorder", disorder, "the `duration` by which an event may be behind the latest one")
	f.TextVar(&early, "early", early, "the `duration` by which an event may be ahead of its arrival; needs --arrival")
	f.StringVar(&policy, "policy", "adjust", "what happens to late and out-of-order events: adjust or drop")
	f.BoolVar(&events, "events", false, "print each event's System.Timestamp and verdict instead of rows")
	f.StringP("output", "o", "ndjson", "how to print: ndjson")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		opt.File, opt.Disordered = args[0], f.Changed("disorder")
		opt.Policy = stream.Policy{Late: late.D(), Disorder: disorder.D(), Early: early.D(), Drop: policy == "drop"}
		if how, err := f.GetString("output"); err != nil || how != "ndjson" && how != "jsonl" {
			return wrong("-o "+how, "rows are printed as ndjson")
		}
		for _, flag := range []string{"late", "early"} {
			if f.Changed(flag) && opt.Arrival == "" && !opt.ArrivalTime {
				return wrong("--"+flag, "it needs --arrival COLUMN").WithHint("without arrivals no event is late or early")
			}
		}
		if policy != "adjust" && policy != "drop" {
			return wrong("--policy "+policy, "adjust or drop are possible")
		}
		if opt.Policy.Late < 0 || opt.Policy.Disorder < 0 || opt.Policy.Early < 0 {
			return wrong("--late, --disorder, --early", "a tolerance can't be negative")
		}
		return run(cmd, opt, events)
	}
	return cmd
}

func wrong(flag, format string, args ...any) *fleetscore.Error {
	return fleetscore.Errorf(fleetscore.Invalid, "read flag", flag, format, args...)
}

func run(cmd *cobra.Command, opt Options, events bool) error {
	out := bufio.NewWriter(cmd.OutOrStdout())
	plan, err := Compile(opt.File)
	if err != nil {
		return err
	}
	several := len(plan.Outputs) > 1
	var line []byte
	row := func(output string, r *value.Record) error {
		if several {
			r = &value.Record{Shape: value.NewShape(append([]string{"_into"}, r.Shape.Names...)), Values: append([]value.Value{value.String(output)}, r.Values...)}
		}
		line = append(r.AppendJSON(line[:0]), '\n')
		_, err := out.Write(line)
		return err
	}
	var judged func(Judged) error
	if events {
		judged = func(j Judged) error {
			line = append(j.record().AppendJSON(line[:0]), '\n')
			_, err := out.Write(line)
			return err
		}
	}
	err = Test(opt, row, judged, func(format string, args ...any) {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", fleetscore.Printable(fmt.Sprintf(format, args...)))
	})
	if flush := out.Flush(); err == nil {
		err = flush
	}
	return err
}

var judgedShape = value.NewShape([]string{"input", "line", "event_time", "arrived", "System.Timestamp", "verdict", "reason", "event"})

// record is what --events prints.
func (j *Judged) record() *value.Record {
	reason := value.Null
	if j.Reason != "" {
		reason = value.String(j.Reason)
	}
	return &value.Record{Shape: judgedShape, Values: []value.Value{value.String(j.Input), value.Int(int64(j.Line)), j.Time, j.Arrived, j.Stamp, value.String(j.Outcome), reason, value.OfRecord(j.Event)}}
}

func newCheck() *cobra.Command {
	return &cobra.Command{
		Use:     "check FILE",
		Short:   "Judge queries without running them",
		Long:    "Reads a file with queries. What is wrong is named with its line, its column and the nearest thing that works." + exitCodes,
		Example: "  fleetscore query check query.sql",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			plan, err := Compile(args[0])
			if err != nil {
				return err
			}
			return say(cmd.OutOrStdout(), "%s is good: it reads %s and writes %s\n", args[0], inputs(plan), list(plan.Outputs))
		},
	}
}

func say(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format, args...)
	return err
}
