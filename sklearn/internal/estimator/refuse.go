package estimator

import (
	"errors"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// Err returns the first error, or nil.
func (a *Attributes) Err() error { return a.err }

// Fail records an error.
func (a *Attributes) Fail(format string, args ...any) {
	if a.err != nil {
		return
	}
	if err := a.b.Graph.Err(); err != nil { // the values read after the refusal aren't valid
		a.err = err
		return
	}
	parameter, _ := firstText(args)
	e := a.refusal(refusal.Damaged, parameter, format, args...).WithHint("%s", changed)
	if errors.Is(e, pickle.ErrNotFinite) {
		e = a.refusal(refusal.NotFinite, parameter, format, args...).
			WithHint("training didn't lead to finite numbers; scale the rows and train the model again")
	}
	a.err = e
}

// Unsupported records that a parameter's value isn't supported.
func (a *Attributes) Unsupported(what, hint string) {
	if a.err == nil {
		parameter, _, _ := strings.Cut(what, "=")
		if strings.ContainsAny(parameter, " (") {
			parameter = ""
		}
		a.err = a.refusal(refusal.Parameter, parameter, "%s is not supported", what).WithHint("%s", hint)
	}
}

// refusal returns an error that names this estimator.
func (a *Attributes) refusal(reason refusal.Reason, parameter, format string, args ...any) *fleetscore.Error {
	r := refusal.Refusal{Reason: reason, Class: a.Class, Step: a.Name, Parameter: parameter}
	return refusal.Of(r, "%s: "+format, append([]any{at(a.Class, a.Name)}, args...)...)
}

// firstText returns the first text among a message's arguments, which is an attribute's
// name.
func firstText(args []any) (string, bool) {
	if len(args) > 0 {
		if s, ok := args[0].(string); ok {
			return s, true
		}
	}
	return "", false
}

// fitted reports whether there is an attribute that only fitting makes.
func (a *Attributes) fitted() bool {
	for i := range a.list {
		name := ""
		if k := a.list[i].Key; k.Kind() == pickle.KindUnset {
			name = a.b.names[int(k)-1]
		} else if t, ok := a.b.Graph.Text(k); ok {
			name = string(t)
		}
		if strings.HasSuffix(name, "_") && !strings.HasPrefix(name, "_") {
			return true
		}
	}
	return false
}

func (a *Attributes) missing(name string) {
	if a.err == nil {
		if a.fitted() {
			a.err = a.refusal(refusal.Damaged, name, "%s is missing, though the model is fitted", name).WithHint("%s", changed)
			return
		}
		a.err = a.refusal(refusal.NotFitted, name, "%s is missing: the model isn't fitted", name).WithHint("fit the model before saving it")
	}
}

// OneLabel refuses a LabelBinarizer with several labels per row.
func (a *Attributes) OneLabel() {
	if y := a.Text("y_type_", "multiclass"); y != "multiclass" && y != "binary" {
		a.Unsupported("several labels per row", "train one classifier per label")
	}
}

// Unset refuses attributes that are missing, None or False after fitting, and that
// change predictions otherwise.
func (a *Attributes) Unset(names ...string) {
	g := a.b.Graph
	for _, name := range names {
		v := a.Value(name)
		if v == 0 || v.Kind() == pickle.KindNone || v.Kind() == pickle.KindBool && !v.True() {
			continue
		}
		a.Unsupported(name+"="+g.Describe(v), "write "+a.of+" without changing it after the fit")
	}
}

// Agrees refuses a count that differs from the number of things that it counts, for
// example after a change by hand: scikit-learn would use it, or fail.
func (a *Attributes) Agrees(name string, want int) {
	if v := a.Value(name); v != 0 {
		if n, ok := a.b.Graph.Number(v); ok && n != float64(want) {
			a.Fail("%s is %v instead of %d", name, n, want)
		}
	}
}
