package laboratory

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/stream"
)

func newExplain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain FILE",
		Short: "Tell what queries read, keep and write",
		Long: `Tells for each step and statement of a file what it reads, its windows and keys, its
columns with their types (any: the type depends on the events), and what it keeps in memory.` + exitCodes,
		Example: "  fleetscore query explain query.sql",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			plan, err := Compile(args[0])
			if err != nil {
				return err
			}
			for i, q := range plan.Queries {
				if err := explain(cmd.OutOrStdout(), plan, i, q); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func explain(w io.Writer, p *stream.Plan, i int, q *stream.Query) error {
	var b strings.Builder
	switch {
	case q.Output != "":
		fmt.Fprintf(&b, "%d. statement, writes %s\n", i+1, q.Output)
	default:
		fmt.Fprintf(&b, "%d. %s\n", i+1, q.Name)
	}
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "   %-8s %s\n", what, fmt.Sprintf(format, args...))
	}
	for _, s := range q.Sources {
		line("reads", "%s", source(p, s))
	}
	for _, win := range q.Windows {
		line("window", "%s", window(win))
	}
	if len(q.Windows) > 0 {
		line("keys", "%s", orNone(list(q.Keys)))
	}
	var columns []string
	for _, c := range q.Columns {
		columns = append(columns, c.Name+" "+c.Type.String())
	}
	if q.Open {
		columns = append(columns, "those of the events")
	}
	line("columns", "%s", list(columns))
	line("keeps", "%s", state(p, q))
	_, err := io.WriteString(w, b.String())
	return err
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func source(p *stream.Plan, s stream.Source) string {
	if s.Query >= 0 {
		name := p.Queries[s.Query].Name
		return fmt.Sprintf("%s (%d.)", name, s.Query+1)
	}
	in := p.Inputs[s.Input]
	switch {
	case in.Reference:
		return "reference data " + in.Name + ", as a whole"
	case in.HasTime:
		return "input " + in.Name + ", by the time of the events"
	}
	return "input " + in.Name + ", by arrival"
}

// window describes a window in words.
func window(w sql.Window) string {
	text := ""
	switch w.Kind {
	case sql.Tumbling:
		text = fmt.Sprintf("tumbling, (end - %s, end]", length(w.Size))
	case sql.Hopping:
		text = fmt.Sprintf("hopping, (end - %s, end], one every %s", length(w.Size), length(w.Hop))
	case sql.Sliding:
		text = fmt.Sprintf("sliding, the last %s, a row whenever an event enters or leaves", length(w.Size))
	case sql.Session:
		text = fmt.Sprintf("session, ends %s after its last event, cut at multiples of %s if longer", length(w.Timeout), length(w.Max))
		if len(w.Over) > 0 {
			text += ", one for each key"
		}
	default:
		text = "snapshot, the events of one instant"
	}
	if w.Offset != 0 {
		text += fmt.Sprintf(", ends moved by %s", length(w.Offset))
	}
	if w.Named {
		text = "'" + w.ID + "': " + text
	}
	return text
}

// length writes a duration without units that are zero.
func length(d time.Duration) string {
	if d%sql.Day == 0 && d != 0 {
		return fmt.Sprintf("%dd", d/sql.Day)
	}
	s := d.String()
	s = strings.TrimSuffix(s, "0s")
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	if s == "" || s[len(s)-1] >= '0' && s[len(s)-1] <= '9' { // 10s lost its end
		return d.String()
	}
	return s
}

// state says what a query keeps in memory.
func state(p *stream.Plan, q *stream.Query) string {
	var out []string
	for _, a := range q.Analytics {
		out = append(out, fmt.Sprintf("%s: events of the last %s", strings.ToUpper(a.Name), length(time.Duration(a.Limit)*time.Microsecond)))
	}
	for i, s := range q.Sources {
		switch {
		case s.Input >= 0 && p.Inputs[s.Input].Reference:
			out = append(out, "all rows of "+p.Inputs[s.Input].Name)
		case i > 0:
			out = append(out, "the events that the JOIN's bound of time reaches")
		}
	}
	for _, w := range q.Windows {
		switch w.Kind {
		case sql.Sliding:
			out = append(out, "the events of the last "+length(w.Size))
		case sql.Hopping:
			out = append(out, fmt.Sprintf("%d open windows for each key, with fixed state for each aggregate", (w.Size+w.Hop-1)/w.Hop))
		default:
			out = append(out, "one open window for each key, with fixed state for each aggregate")
		}
	}
	if ordered := slices.Compact(slices.Sorted(slices.Values(q.Ordered()))); len(ordered) > 0 {
		out = append(out, "all values of "+list(ordered)+" in open windows")
	}
	return orNone(strings.Join(slices.Compact(slices.Sorted(slices.Values(out))), "; "))
}

func list(names []string) string { return strings.Join(names, ", ") }

// inputs are the names of a plan's inputs.
func inputs(p *stream.Plan) string {
	var out []string
	for _, in := range p.Inputs {
		if !slices.Contains(out, in.Name) {
			out = append(out, in.Name)
		}
	}
	return list(out)
}
