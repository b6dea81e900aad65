package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/compare"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/oneshot"
	"github.com/fleetscore/fleetscore/internal/table"
)

// diffing is the flags of fleet diff.
type diffing struct {
	pipeline, with, from, to string
	keys                     []string
	limit                    int
}

func newFleetDiffCommand() *cobra.Command {
	var d diffing
	cmd := &cobra.Command{
		Use:   "diff [FLEET[@GENERATION]] [FLEET[@GENERATION]]",
		Short: "In what two fleets differ: sensors, models, and what they say about the same rows",
		Long: `Compares the models of two fleets, or of two generations of one fleet: the sensors that
were added or removed, and those whose model's file, class or release of scikit-learn
changed. With one fleet, its current generation is compared with the one before.

With --pipeline it compares what two pipelines say about the same rows, such as a live one
and its shadow (docs/jobs.md): for each sensor the rows that both scored, rows with the same
label, differences of scores, the share of anomalies, and the outcomes. Without --from and
--to it takes the time that both have predictions of.

A table shows the sensors that differ most, and a total. json, jsonl and csv have all
sensors, or the ones that differ most if --limit is given.`,
		Example: `  fleetscore fleet diff sensors sensors_v2
  fleetscore fleet diff --pipeline anomalies --with candidate
  fleetscore fleet diff --pipeline anomalies --with candidate --key 3/pressure -o json`,
		Args: cobra.MaximumNArgs(2),
	}
	addOutputFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&d.pipeline, "pipeline", "", "compare the results of this pipeline")
	f.StringVar(&d.with, "with", "", "with those of this one (default: its shadow, or the pipeline that it shadows)")
	f.StringVar(&d.from, "from", "", "start of the interval, not in it")
	f.StringVar(&d.to, "to", "", "end of the interval, in it")
	f.StringArrayVar(&d.keys, "key", nil, "only this sensor, such as 3/pressure; may be repeated")
	f.IntVar(&d.limit, "limit", 20, "how many sensors; 0 means all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case d.limit < 0:
			return usagef("--limit %d: 0 or more are possible", d.limit)
		case d.pipeline != "" && len(args) > 0:
			return usagef("--pipeline compares results, and %s is a fleet whose models would be compared; give one of them", args[0])
		case d.pipeline == "" && (d.with != "" || d.from != "" || d.to != "" || len(d.keys) > 0):
			return usagef("--with, --from, --to and --key belong to --pipeline")
		case d.pipeline == "" && len(args) == 0:
			return usagef("name two fleets, or --pipeline and --with")
		}
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		if d.pipeline != "" {
			return d.results(cmd, c)
		}
		return d.models(cmd, c, args)
	}
	return cmd
}

// models compares generations.
func (d *diffing) models(cmd *cobra.Command, c *client.Client, args []string) error {
	name, generation, _ := strings.Cut(args[0], "@")
	query := url.Values{"generation": {generation}}
	if len(args) == 2 {
		with, other, _ := strings.Cut(args[1], "@")
		query.Set("with", with)
		query.Set("with_generation", other)
	} else if generation == "" {
		var f api.Fleet
		if err := c.Get(cmd.Context(), "/fleets/"+url.PathEscape(name), nil, &f); err != nil {
			return err
		}
		if f.Since == nil || f.Since.Generation == "" {
			return fleetscore.Errorf(fleetscore.Conflict, "compare fleets", name, "the fleet has had one generation only").WithHint("name another fleet: fleetscore fleet diff %s OTHER", name)
		}
		query.Set("generation", string(f.Since.Generation))
	}
	from := newReceived[fleet.MemberChange, fleet.Changes](cmd.Context(), c, "/fleets/"+url.PathEscape(name)+"/diff", query)
	out := &diffOutput[fleet.MemberChange]{cmd: cmd, limit: d.limit,
		columns: []string{"sensor", "what", "model a", "model b", "class a", "class b", "release a", "release b"},
		cells: func(m fleet.MemberChange) []any {
			a, b := cmp.Or(m.A, &fleet.ModelOf{}), cmp.Or(m.B, &fleet.ModelOf{})
			return []any{m.Key.String(), m.What(), digestOf(a), digestOf(b), classOf(a), classOf(b), a.Releases, b.Releases}
		},
		order: func(a, b fleet.MemberChange) int { return cmp.Compare(a.Key, b.Key) }}
	return out.write(from.items(), func() (any, string, error) {
		t, err := from.total()
		return t, fmt.Sprintf("%s (A) and %s (B): %s and %s; %s added, %s removed, %s with another content, of them %s of another class and %s by another release; %s the same",
			t.A, t.B, thousands(t.MembersA), plural(int(t.MembersB), "sensor"), thousands(t.Added), thousands(t.Removed), thousands(t.Changed), thousands(t.Classes), thousands(t.Releases), thousands(t.Same)), err
	})
}

func digestOf(m *fleet.ModelOf) string {
	if m.Digest.IsZero() {
		return ""
	}
	return m.Digest.Short()
}

func classOf(m *fleet.ModelOf) string { return cmp.Or(m.Estimators, m.Problem) }

// results compares what pipelines said.
func (d *diffing) results(cmd *cobra.Command, c *client.Client) error {
	query := url.Values{"key": d.keys}
	for name, text := range map[string]string{"from": d.from, "to": d.to} {
		if text == "" {
			continue
		}
		t, err := table.ParseTime(text)
		if err != nil {
			return usagef("--%s %s: not a time such as 2026-11-23T10:00:00Z", name, text)
		}
		query.Set(name, t.Time().Format(time.RFC3339Nano))
	}
	if d.with == "" {
		var err error
		if d.with, err = counterpart(cmd.Context(), c, d.pipeline); err != nil {
			return err
		}
	}
	query.Set("with", d.with)
	from := newReceived[compare.Sensor, api.ResultsDiff](cmd.Context(), c, "/pipelines/"+url.PathEscape(d.pipeline)+"/diff", query)
	out := &diffOutput[compare.Sensor]{cmd: cmd, limit: d.limit, columns: sensorColumns, cells: sensorCells, order: compare.ByDifference}
	return out.write(from.items(), func() (any, string, error) {
		t, err := from.total()
		return t, fmt.Sprintf("%s (A) and %s (B), rows of %s\n%s", t.Pipeline, t.With, t.Interval, totalText(t.Total)), err
	})
}

// counterpart is the pipeline that another one is compared with if none is named.
func counterpart(ctx context.Context, c *client.Client, pipeline string) (string, error) {
	var got api.List[api.Schedule]
	if err := c.Get(ctx, "/schedules", nil, &got); err != nil {
		return "", err
	}
	var found []string
	for _, s := range got.Items {
		if s.Pipeline == pipeline && s.Shadow != "" {
			return s.Shadow, nil
		}
		if s.Shadow == pipeline {
			found = append(found, s.Pipeline)
		}
	}
	if len(found) != 1 {
		return "", usagef("--pipeline %s has %s; say which pipeline to compare it with: --with PIPELINE", pipeline, plural(len(found), "shadow"))
	}
	return found[0], nil
}

var sensorColumns = []string{"sensor", "rows", "same label", "max difference", "mean difference", "anomalies a", "anomalies b", "only a", "only b", "outcomes a", "outcomes b"}

func sensorCells(s compare.Sensor) []any {
	return []any{s.Key.String(), s.Rows, s.Agree, number(s.Max), number(s.Mean), share(s.A), share(s.B), s.A.Only, s.B.Only, outcomesOf(s.A), outcomesOf(s.B)}
}

func totalText(t compare.Total) string {
	var same string
	if t.Rows > 0 {
		same = fmt.Sprintf(" (%s %%)", number(100*float64(t.Agree)/float64(t.Rows)))
	} else {
		same = ": no row was scored by both"
	}
	return fmt.Sprintf(`  sensors      %s, of them %s that differ
  rows         %s that both scored, of them %s with the same label%s; %s only in A, %s only in B
  scores       differ by %s at most, by %s on average
  anomalies    A %s, B %s
  outcomes     A %s
               B %s`, thousands(t.Sensors), thousands(t.Different), thousands(t.Rows), thousands(t.Agree), same, thousands(t.A.Only), thousands(t.B.Only),
		number(t.Max), number(t.Mean), share(t.A), share(t.B), outcomeList(t.A.Outcomes), outcomeList(t.B.Outcomes))
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', 4, 64) }

// share is the share of rows that are anomalies.
func share(s compare.Side) string {
	if s.Rows == 0 {
		return ""
	}
	return number(100*s.AnomalyRate()) + " %"
}

// outcomesOf lists outcomes; with a single job it is only its name.
func outcomesOf(s compare.Side) string {
	if s.Outcomes.Total() == 1 {
		for o := range s.Outcomes {
			return string(o)
		}
	}
	if s.Outcomes.Total() == 0 {
		return ""
	}
	return outcomeList(s.Outcomes)
}

// received reads a comparison from the server while it is made.
type received[T, S any] struct {
	open func() (io.ReadCloser, error)
	last *S
	err  error
}

func newReceived[T, S any](ctx context.Context, c *client.Client, path string, query url.Values) *received[T, S] {
	return &received[T, S]{open: func() (io.ReadCloser, error) { return c.Open(ctx, path, query) }}
}

// items yields the sensors; the total is known after the last one.
func (r *received[T, S]) items() iter.Seq[T] {
	return func(yield func(T) bool) {
		in, err := r.open()
		if r.err = err; err != nil {
			return
		}
		defer in.Close()
		d := json.NewDecoder(bufio.NewReaderSize(in, 64<<10))
		for {
			var line api.Line[T, S]
			if err := d.Decode(&line); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				r.err = fleetscore.Errorf(fleetscore.Unavailable, "compare", "", "the answer can't be read to its end: %w", err)
				return
			}
			if line.Total != nil {
				r.last = line.Total
			} else if line.Item != nil && !yield(*line.Item) {
				return
			}
		}
	}
}

// total is the last line; it is an error if there was none.
func (r *received[T, S]) total() (S, error) {
	if r.last == nil {
		var none S
		if r.err == nil {
			r.err = fleetscore.Errorf(fleetscore.Unavailable, "compare", "", "the answer ended before its total")
		}
		return none, r.err
	}
	return *r.last, r.err
}

// diffOutput prints a comparison as -o asks. It holds all sensors in memory only where
// they have to be sorted or aligned.
type diffOutput[T any] struct {
	cmd     *cobra.Command
	limit   int
	columns []string
	cells   func(T) []any
	order   func(a, b T) int // the sensors that matter most first
}

// write prints the items, then what total returns: an object for programs, a text for
// people.
func (o *diffOutput[T]) write(items iter.Seq[T], total func() (any, string, error)) error {
	how, err := o.cmd.Flags().GetString("output")
	if err != nil {
		return err
	}
	w := bufio.NewWriter(o.cmd.OutOrStdout())
	if how == "table" || o.cmd.Flags().Changed("limit") && o.limit > 0 {
		items = slices.Values(o.most(items))
	}
	switch how {
	case "table":
		return o.table(w, items, total)
	case "csv":
		err = o.csv(w, items)
	case "json":
		return o.json(w, items, total)
	default:
		e := json.NewEncoder(w)
		for i := range items {
			if err = e.Encode(i); err != nil {
				break
			}
		}
	}
	if err = errors.Join(err, w.Flush()); err != nil {
		return err
	}
	_, text, err := total()
	if err == nil {
		fmt.Fprintln(o.cmd.ErrOrStderr(), text)
	}
	return err
}

// most keeps the items that come first.
func (o *diffOutput[T]) most(items iter.Seq[T]) (out []T) {
	for i := range items {
		out = append(out, i)
		if o.limit > 0 && len(out) >= 2*o.limit {
			slices.SortStableFunc(out, o.order)
			out = out[:o.limit]
		}
	}
	slices.SortStableFunc(out, o.order)
	if o.limit > 0 && len(out) > o.limit {
		out = out[:o.limit]
	}
	return out
}

func (o *diffOutput[T]) table(w *bufio.Writer, items iter.Seq[T], total func() (any, string, error)) error {
	l := listing{columns: o.columns}
	for i := range items {
		l.add(i, o.cells(i)...)
	}
	_, text, err := total()
	if err != nil {
		return err
	}
	fmt.Fprintln(w, text)
	if len(l.rows) > 0 {
		fmt.Fprintln(w)
		if err := writeTable(w, l.columns, l.texts(forPeople)); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (o *diffOutput[T]) csv(w io.Writer, items iter.Seq[T]) error {
	c := csv.NewWriter(w)
	header := make([]string, len(o.columns))
	for i, name := range o.columns {
		header[i] = strings.ReplaceAll(name, " ", "_")
	}
	if err := c.Write(header); err != nil {
		return err
	}
	l := listing{}
	for i := range items {
		l.rows = append(l.rows[:0], o.cells(i))
		if err := c.Write(l.texts(forPrograms)[0]); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

func (o *diffOutput[T]) json(w *bufio.Writer, items iter.Seq[T], total func() (any, string, error)) error {
	fmt.Fprint(w, "{\n  \"sensors\": [")
	between := "\n    "
	for i := range items {
		text, err := json.Marshal(i)
		if err != nil {
			return err
		}
		fmt.Fprint(w, between, string(text))
		between = ",\n    "
	}
	t, _, err := total()
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(t, "  ", "  ")
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n  ],\n  \"total\": %s\n}\n", text)
	return w.Flush()
}

func newModelDiffCommand() *cobra.Command {
	var s scoring
	limit := 20
	cmd := &cobra.Command{
		Use:   "diff MODELS MODELS --data PATH",
		Short: "Score rows with two folders of models, and compare what they say",
		Long: `Scores rows with the models of two folders or packs, on this machine and without a
server, and compares sensor by sensor: rows with the same label, differences of scores, the
share of anomalies, and the outcomes. Rows and models are named as for fleetscore score.

A table shows the sensors that differ most, and a total. json, jsonl and csv have all
sensors, or the ones that differ most if --limit is given.`,
		Example: `  fleetscore model diff models models_v2 --data readings.csv --model 'model_{Device}_{Tag}' --key Device,Tag --time TS --feature Value`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if limit < 0 {
				return usagef("--limit %d: 0 or more are possible", limit)
			}
			s.Stdin, s.Models, s.Format = cmd.InOrStdin(), args[0], "csv"
			if err := s.parse(); err != nil {
				return err
			}
			if s.Runtime = fleetscore.RuntimeName(s.python.runtime); s.Runtime == fleetscore.RuntimeCommand {
				return usagef("--runtime command: native, auto, python or onnx are possible")
			}
			end, err := s.openForeign(cmd)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, end()) }()
			g, err := oneshot.Compare(cmd.Context(), s.Config, args[1])
			if err != nil {
				return err
			}
			total := compare.NewTotal()
			for k := range g.Sensors() {
				total.Add(k)
			}
			out := &diffOutput[compare.Sensor]{cmd: cmd, limit: limit, columns: sensorColumns, cells: sensorCells, order: compare.ByDifference}
			return out.write(g.Sensors(), func() (any, string, error) {
				return total, fmt.Sprintf("%s (A) and %s (B)\n%s", args[0], args[1], totalText(total)), nil
			})
		},
	}
	s.addInputs(cmd)
	addOutputFlag(cmd)
	cmd.Flags().IntVar(&limit, "limit", limit, "how many sensors; 0 means all")
	return cmd
}
