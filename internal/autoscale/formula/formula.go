// Package formula reads and evaluates formulas in the language of Azure Batch's
// automatic scaling: text in, target numbers of nodes out.
//
// A formula is a list of statements without loops. Parse reads it, Eval evaluates it
// once against a State, Check finds what is wrong or most likely not meant. Where the
// service's behaviour is documented or was recorded, it is followed; what is open
// there is decided in docs/formulas.md. Only the chosen branch of "?:" is evaluated,
// and the right side of && and || only if it matters.
//
// The package is pure: it knows no pools, reads no clock, and all its functions are
// safe for concurrent use. Formulas come from outside, so their length, number of
// statements, depth and work are bounded.
package formula

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The bounds of a formula. The first two are the service's.
const (
	MaxBytes      = 8 << 10
	MaxStatements = 100
	maxDepth      = 200        // how deeply expressions nest
	maxWork       = 20_000_000 // numbers that one evaluation may go through
	maxProblems   = 20         // syntax errors that are reported at once
)

// The codes of errors, as the service has them.
const (
	BadFormula    = "AutoScalingFormulaEvaluationError"
	TooFewSamples = "InsufficientSampleData"
)

// Error says why a formula can't be read or evaluated, and where.
type Error struct {
	Code    string // BadFormula or TooFewSamples
	Line    int    // from 1
	Column  int    // in characters, from 1
	Message string // what is wrong
	Hint    string // what to do; may be empty
}

// Error has the form of the service: "Line 9, Col 43: …", and then the hint.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Located()
	}
	return e.Located() + " (" + e.Hint + ")"
}

// Located is the message with its place, as the service writes it.
func (e *Error) Located() string {
	return fmt.Sprintf("Line %d, Col %d: %s", e.Line, e.Column, e.Message)
}

func (e *Error) hint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// errorAt is an error at a byte offset of the text.
func errorAt(src string, pos int, format string, args ...any) *Error {
	line, column := place(src, pos)
	return &Error{Code: BadFormula, Line: line, Column: column, Message: fmt.Sprintf(format, args...)}
}

func place(src string, pos int) (line, column int) {
	return 1 + strings.Count(src[:pos], "\n"), 1 + utf8.RuneCountInString(src[strings.LastIndexByte(src[:pos], '\n')+1:pos])
}

// Formula is a formula that was read. It never changes.
type Formula struct {
	src        string
	statements []statement
}

// statement is an assignment, or an expression alone if name is empty.
type statement struct {
	name string
	at   int // of the name
	x    expr
}

// expr is one of the types that follow; at is where it is reported.
type expr interface{ at() int }

type (
	numberExpr struct {
		pos   int
		value float64
	}
	textExpr struct {
		pos  int
		text string
	}
	nameExpr struct {
		pos  int
		name string
	}
	unaryExpr struct {
		pos int
		op  string
		x   expr
	}
	binaryExpr struct {
		pos  int
		op   string
		l, r expr
	}
	choiceExpr struct {
		pos           int // of the question mark
		cond, yes, no expr
	}
	callExpr struct {
		pos, open int // of the name, of the parenthesis
		name      string
		args      []expr
	}
	memberExpr struct {
		pos  int // of the member's name
		x    expr
		name string
	}
	methodExpr struct {
		pos, open int // of the method's name, of the parenthesis
		x         expr
		name      string
		args      []expr
	}
)

func (x numberExpr) at() int { return x.pos }
func (x textExpr) at() int   { return x.pos }
func (x nameExpr) at() int   { return x.pos }
func (x unaryExpr) at() int  { return x.pos }
func (x binaryExpr) at() int { return x.pos }
func (x choiceExpr) at() int { return x.pos }
func (x callExpr) at() int   { return x.open }
func (x memberExpr) at() int { return x.pos }
func (x methodExpr) at() int { return x.open }

// The read-write variables, and the words for what becomes of tasks on nodes that are
// removed.
const (
	Dedicated   = "$TargetDedicatedNodes"
	LowPriority = "$TargetLowPriorityNodes"
	Option      = "$NodeDeallocationOption"

	Requeue        = "requeue"        // tasks are stopped and queued again
	Terminate      = "terminate"      // tasks are stopped and not repeated
	TaskCompletion = "taskcompletion" // the node ends when its tasks have ended
	RetainedData   = "retaineddata"   // the node ends when its tasks' local files have expired
)

var options = []string{Requeue, Terminate, TaskCompletion, RetainedData}

// oldNames are other names, of former and of later versions of the service, that formulas
// use.
var oldNames = map[string]string{
	"$TargetDedicated":    Dedicated,
	"$TargetLowPriority":  LowPriority,
	"$CurrentDedicated":   "$CurrentDedicatedNodes",
	"$CurrentLowPriority": "$CurrentLowPriorityNodes",
	"$TargetSpotNodes":    LowPriority,
	"$CurrentSpotNodes":   "$CurrentLowPriorityNodes",
}

// metrics are the read-only variables.
var metrics = []string{
	"$ActiveTasks", "$RunningTasks", "$PendingTasks", "$SucceededTasks", "$FailedTasks",
	"$CurrentDedicatedNodes", "$CurrentLowPriorityNodes", "$PreemptedNodeCount", "$SampleNodeCount", "$UsableNodeCount", "$TaskSlotsPerNode",
	"$CPUPercent", "$WallClockSeconds", "$MemoryBytes", "$DiskBytes", "$DiskReadBytes", "$DiskWriteBytes", "$DiskReadOps", "$DiskWriteOps",
	"$NetworkInBytes", "$NetworkOutBytes",
}

// Canonical is the present name of a variable of the service, and whether there is
// such a variable.
func Canonical(name string) (string, bool) {
	if n, old := oldNames[name]; old {
		return n, true
	}
	_, known := service[name]
	return name, known
}

// Metrics are the read-only variables.
func Metrics() []string { return slices.Clone(metrics) }

// service is what each of the service's variables is, under its present name.
var service = func() map[string]bool { // true: read-write
	out := map[string]bool{Dedicated: true, LowPriority: true, Option: true}
	for _, m := range metrics {
		out[m] = false
	}
	return out
}()

// assigned is which read-write variable an assignment to name sets; empty for a name
// of the user's. Upper and lower case don't matter there, because the service's own
// reference writes $targetDedicatedNodes.
func assigned(name string) string {
	for _, n := range []string{Dedicated, LowPriority, Option, "$TargetDedicated", "$TargetLowPriority", "$TargetSpotNodes"} {
		if strings.EqualFold(n, name) {
			return n
		}
	}
	return ""
}

// intervals are the constants of type timeinterval.
var intervals = map[string]int64{
	"TimeInterval_Zero":        0,
	"TimeInterval_100ns":       1,
	"TimeInterval_Microsecond": ticksPerSecond / 1_000_000,
	"TimeInterval_Millisecond": ticksPerSecond / 1000,
	"TimeInterval_Second":      ticksPerSecond,
	"TimeInterval_Minute":      60 * ticksPerSecond,
	"TimeInterval_Hour":        3600 * ticksPerSecond,
	"TimeInterval_Day":         24 * 3600 * ticksPerSecond,
	"TimeInterval_Week":        7 * 24 * 3600 * ticksPerSecond,
	"TimeInterval_Year":        365 * 24 * 3600 * ticksPerSecond,
}

// SamplePeriod is the time between two samples of a metric, unless a State says
// otherwise.
const SamplePeriod = 30 * time.Second
