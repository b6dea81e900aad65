package autoscale

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
)

// Horizon is how long samples are kept for formulas.
const Horizon = 48 * time.Hour

// The bounds and the default of the time between two evaluations of a pool's formula.
const (
	LeastInterval = formula.SamplePeriod
	MostInterval  = 168 * time.Hour
	UsualInterval = 15 * time.Minute
)

// Sample is the metrics of a pool at a time.
type Sample struct {
	At     time.Time          `json:"at"`
	Values map[string]float64 `json:"values"`
}

// Evaluation is one evaluation of a pool's formula, as it is kept in the history.
type Evaluation struct {
	At        time.Time          `json:"time"`
	Formula   string             `json:"formula" doc:"begins the SHA-256 of the formula's text"`
	Nodes     int                `json:"nodes" doc:"the targets, within the bounds of the pool"`
	Targets   map[string]int64   `json:"targets" doc:"$TargetDedicatedNodes and $TargetLowPriorityNodes; after a failed evaluation those before it"`
	Option    string             `json:"option" doc:"what becomes of tasks on nodes that are removed"`
	Variables map[string]any     `json:"variables" doc:"the variables of the formula; long vectors are shortened"`
	Service   map[string]float64 `json:"service" doc:"the newest sample of each variable of the service"`
	Result    string             `json:"result" doc:"targets, option and variables as one text; it is shortened if it is long"`
	Samples   []formula.Read     `json:"samples,omitempty" doc:"which samples were used, the first 100"`
	Problem   *EvaluationError   `json:"error,omitempty" doc:"why the evaluation failed; absent if it didn't"`
}

// EvaluationError is why an evaluation failed.
type EvaluationError struct {
	Code    string `json:"code"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message" doc:"with line and column"`
	Hint    string `json:"hint"`
}

// The bounds of what the history keeps of one evaluation.
const (
	maxVariable = 1000    // bytes of one variable in JSON
	maxResult   = 8 << 10 // bytes of the result
	maxReads    = 100
)

// Evaluated is what to keep of an evaluation: of a pool's formula at a time, with the
// newest sample.
func Evaluated(c fleetscore.ScaleConfig, at time.Time, newest Sample, r formula.Result) Evaluation {
	e := Evaluation{At: at.UTC(), Formula: FormulaID(c.Formula), Targets: r.Targets, Option: r.Option, Variables: map[string]any{}, Service: newest.Values,
		Result: cut(r.Text(), maxResult), Samples: r.Reads[:min(len(r.Reads), maxReads)]}
	dedicated, low := Bounded(c, r.Targets)
	e.Nodes = dedicated + low
	for name, v := range r.Variables {
		e.Variables[name] = short(v)
	}
	if r.Err != nil {
		e.Problem = &EvaluationError{r.Err.Code, r.Err.Line, r.Err.Column, r.Err.Located(), r.Err.Hint}
	}
	return e
}

// short is a value as JSON has it, or the beginning of its text if it is long.
func short(v formula.Value) (out any) {
	text, err := json.Marshal(v)
	if err != nil || len(text) > maxVariable || json.Unmarshal(text, &out) != nil {
		return cut(v.String(), maxVariable)
	}
	return out
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// FormulaID tells one formula from another.
func FormulaID(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// Bounded is how many nodes of each kind a pool is to have by the targets of its formula,
// within the bounds of each kind. A pool without nodes of low priority has both targets
// together as dedicated nodes.
func Bounded(c fleetscore.ScaleConfig, targets map[string]int64) (dedicated, low int) {
	d, l := targets[formula.Dedicated], targets[formula.LowPriority]
	if c.LowPriority == nil {
		d, l = d+l, 0
	} else {
		l = min(max(l, int64(c.LowPriority.Min)), int64(c.LowPriority.Max))
	}
	return int(min(max(d, int64(c.Min)), int64(max(c.Max, c.Min)))), int(l)
}

// Series is samples by metric, as formulas read them.
func Series(samples []Sample) map[string][]formula.Sample {
	out := map[string][]formula.Sample{}
	for _, s := range samples {
		for name, v := range s.Values {
			out[name] = append(out[name], formula.Sample{At: s.At, Value: v})
		}
	}
	return out
}

// Reach decides how a pool comes to a number of nodes of each kind. Nodes without tasks end
// first, of these the youngest. The option says what becomes of tasks on other nodes: with
// taskcompletion and retaineddata their nodes end when the tasks have ended, otherwise
// the tasks are interrupted.
func Reach(dedicated, low int, option string, s State) Decision {
	alive := s.alive()
	d := Decision{Want: dedicated + low}
	d.Start = d.reach(of(fleetscore.Dedicated, alive), dedicated, option)
	d.StartLow = d.reach(of(fleetscore.LowPriority, alive), low, option)
	return d
}

// reach ends the nodes of one kind that are too many; it returns how many are missing.
func (d *Decision) reach(alive []NodeView, want int, option string) (missing int) {
	slices.SortStableFunc(alive, func(a, b NodeView) int {
		return cmp.Or(cmp.Compare(a.Running, b.Running), b.Started.Compare(a.Started))
	})
	for _, n := range alive[:max(0, len(alive)-want)] {
		if n.Running > 0 && option != formula.TaskCompletion && option != formula.RetainedData {
			d.Interrupt = append(d.Interrupt, n.ID)
		} else {
			d.Drain = append(d.Drain, n.ID)
		}
	}
	return max(0, want-len(alive))
}
