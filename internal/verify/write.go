package verify

import (
	"fmt"
	"io"
	"strings"

	"github.com/fleetscore/fleetscore/sklearn"
)

// Write prints the report for people; table prints rows in columns.
func (r *Report) Write(w io.Writer, table func(w io.Writer, columns []string, rows [][]string) error) error {
	var b strings.Builder
	p := r.Python
	how := "isolated"
	if !p.Isolated {
		how = "with your own packages and variables, because scikit-learn isn't found without them"
	}
	fmt.Fprintf(&b, "Python %s with scikit-learn %s and NumPy %s, %s: %s\n", p.Version, p.Sklearn, p.NumPy, how, p.Executable)
	fmt.Fprintf(&b, "%d of %d models compared, on %d rows\n", r.Compared, r.Files, r.Rows)
	if len(r.Kinds) > 0 {
		rows := make([][]string, 0, len(r.Kinds))
		for _, k := range r.Kinds {
			worst := "-"
			if k.Compared > 0 {
				worst = fmt.Sprintf("%.1e", k.Worst)
			}
			rows = append(rows, []string{k.Estimators, dash(k.Releases), fmt.Sprint(k.Models), fmt.Sprint(k.Compared), fmt.Sprint(k.Rows),
				fmt.Sprint(k.Labels), fmt.Sprint(k.Ties), worst, fmt.Sprint(k.Differ)})
		}
		b.WriteByte('\n')
		if err := table(&b, []string{"estimators", "scikit-learn", "models", "compared", "rows", "label differences", "ties", "worst difference", "models that differ"}, rows); err != nil {
			return err
		}
	}
	for _, k := range r.Kinds {
		for _, o := range k.Offending {
			if o.Problem != "" {
				fmt.Fprintf(&b, "\n%s, %s: %s\n", o.File, dash(o.Method), o.Problem)
			} else {
				fmt.Fprintf(&b, "\n%s, %s: Fleetscore returns %v and scikit-learn returns %v for the row %v\n", o.File, o.Method, o.Ours, o.Theirs, o.Row)
			}
		}
		if more := k.Differ - int64(len(k.Offending)); more > 0 {
			fmt.Fprintf(&b, "and %d more of %s\n", more, k.Estimators)
		}
	}
	section(&b, "This Python can't use", r.NotLoadable)
	code, other := []Failure{}, []Failure{}
	for _, f := range r.Unsupported {
		if f.Code == sklearn.HoldsCode.String() {
			code = append(code, f)
		} else {
			other = append(other, f)
		}
	}
	section(&b, "Python would run code to read", code)
	section(&b, "The native runtime can't score", other)
	if r.Equal {
		b.WriteString("\nno difference\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func section(b *strings.Builder, title string, failures []Failure) {
	for _, f := range failures {
		fmt.Fprintf(b, "\n%s %d of the models: %s\n", title, f.Models, f.Error)
		if f.Explanation != "" {
			fmt.Fprintf(b, "  %s\n", f.Explanation)
		}
		names := strings.Join(f.Examples[:min(len(f.Examples), 8)], ", ")
		if more := f.Models - 8; more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		fmt.Fprintf(b, "  %s\n", names)
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
