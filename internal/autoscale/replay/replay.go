// Package replay plays a formula on a workload: how many nodes there would have been,
// how long tasks would have waited, and how many node-hours that costs.
//
// It is a simulation by events: tasks come, nodes start and end, samples are taken and
// the formula is evaluated, each at its time. It is pure, and equal inputs give equal
// results.
package replay

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
)

// Arrival is a number of equal tasks that come at one time.
type Arrival struct {
	At    time.Time
	Tasks int
	Takes time.Duration // of one task on one slot
}

// Config is the pool that a formula is played on.
type Config struct {
	Slots    int           // tasks that a node runs at once; 0 means 1
	Start    time.Duration // from the decision to start a node until it takes tasks
	Interval time.Duration // between two evaluations; 0 means 15 minutes
	Min, Max int           // bounds of dedicated and of low-priority nodes each; Max 0 means 1000
	Tail     time.Duration // how long to play on after the last task came or ended; 0 means 2 hours
	Until    time.Time     // play until then at least
}

// The bounds of a replay, so that it ends and fits into memory.
const (
	MaxTasks = 1_000_000
	maxRuns  = 50_000 // evaluations
	MaxSpan  = 100 * 24 * time.Hour
)

// Defaults fills what is zero.
func (c Config) Defaults() Config {
	c.Slots = max(1, c.Slots)
	c.Max = cmp.Or(c.Max, 1000)
	c.Interval = cmp.Or(c.Interval, 15*time.Minute)
	c.Tail = cmp.Or(c.Tail, 2*time.Hour)
	return c
}

// Validate judges a configuration whose defaults are filled in.
func (c Config) Validate() error {
	switch {
	case c.Min < 0 || c.Max < c.Min || c.Max > 1000:
		return fleetscore.Errorf(fleetscore.Invalid, "play formula", "", "min %d, max %d: 0 ≤ min ≤ max ≤ 1000 must hold", c.Min, c.Max)
	case c.Slots > 1000:
		return fleetscore.Errorf(fleetscore.Invalid, "play formula", "", "a node can't have %d slots; at most 1000 are possible", c.Slots)
	case c.Interval < time.Second, c.Start < 0, c.Tail < 0:
		return fleetscore.Errorf(fleetscore.Invalid, "play formula", "", "times must not be negative, and evaluations at least a second apart")
	case c.Start > MaxSpan || c.Tail > MaxSpan:
		return fleetscore.Errorf(fleetscore.Invalid, "play formula", "", "times must not be longer than %d days", MaxSpan/(24*time.Hour))
	}
	return nil
}

// Point is the state of the pool from a time on.
type Point struct {
	At      time.Time `json:"time"`
	Nodes   int       `json:"nodes"` // that are paid for: starting, ready and ending ones
	Queued  int       `json:"queued"`
	Running int       `json:"running"`
}

// Outcome is how a replay went.
type Outcome struct {
	From        time.Time       `json:"from"`
	To          time.Time       `json:"to"`
	Evaluations int             `json:"evaluations"`
	Failed      int             `json:"failed_evaluations"`
	FirstError  string          `json:"first_error,omitempty"`
	MostNodes   int             `json:"most_nodes"`
	NodeHours   float64         `json:"node_hours"`
	Busy        float64         `json:"busy_percent"` // of the slots' time, starting nodes' included
	Tasks       int             `json:"tasks"`
	Done        int             `json:"done"`
	Requeued    int             `json:"requeued"`   // tasks that ran and were queued again, each time
	Terminated  int             `json:"terminated"` // tasks that were stopped for good
	Waits       autoscale.Waits `json:"waits"`
	Last        time.Time       `json:"last_end,omitzero"` // of the last task
	Points      []Point         `json:"points"`
}

// event is something that happens at a time. Of those at one time, kinds go in order.
type event struct {
	at    time.Time
	kind  eventKind
	order int // of those alike, in the order in which they were made
	node  *node
	task  *task
	load  Arrival
}

type eventKind int

const (
	arrives eventKind = iota
	ends
	ready
	samples
	evaluates
)

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return cmp.Or(e[i].at.Compare(e[j].at), cmp.Compare(e[i].kind, e[j].kind), cmp.Compare(e[i].order, e[j].order)) < 0
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}

type task struct {
	came  time.Time
	takes time.Duration
	began time.Time
}

type node struct {
	low     bool // of low priority
	ready   bool
	ending  bool
	gone    bool
	order   int
	running []*task
}

type player struct {
	cfg      Config
	formula  *formula.Formula
	now      time.Time
	events   events
	made     int
	nodes    []*node
	queue    []*task
	targets  map[string]float64
	samples  map[string][]formula.Sample
	waits    []time.Duration
	busy     int       // slots that run a task
	nodeTime float64   // that nodes were paid for, in seconds
	slotTime float64   // that tasks ran, in seconds
	to       time.Time // when the last task came or is to end
	out      Outcome
}

// Run plays a formula. The workload may be in any order.
func Run(f *formula.Formula, cfg Config, work []Arrival) (Outcome, error) {
	cfg = cfg.Defaults()
	if err := cfg.Validate(); err != nil {
		return Outcome{}, err
	}
	work = slices.SortedStableFunc(slices.Values(work), func(a, b Arrival) int { return a.At.Compare(b.At) })
	if err := judge(work); err != nil {
		return Outcome{}, err
	}
	p := &player{cfg: cfg, formula: f, now: work[0].At, to: work[len(work)-1].At, targets: map[string]float64{}, samples: map[string][]formula.Sample{}}
	p.out.From = p.now
	for _, a := range work {
		p.add(event{at: a.At, kind: arrives, load: a})
		p.out.Tasks += a.Tasks
	}
	p.resize(formula.Requeue) // to the least number of nodes
	p.add(event{at: p.now, kind: samples})
	p.add(event{at: p.now, kind: evaluates})
	for p.now.Before(p.end()) {
		p.step(heap.Pop(&p.events).(event))
		if p.out.Evaluations > maxRuns {
			return Outcome{}, fleetscore.Errorf(fleetscore.Invalid, "play formula", "", "it would be evaluated more than %d times", maxRuns).
				WithHint("play a shorter workload, or evaluate less often")
		}
	}
	p.finish()
	return p.out, nil
}

func judge(work []Arrival) error {
	total := 0
	for _, a := range work {
		if a.Tasks < 1 || a.Takes <= 0 || a.Takes > MaxSpan {
			return fleetscore.Errorf(fleetscore.Invalid, "play workload", a.At.Format(time.RFC3339), "%d tasks of %s: at least one task is needed, of more than no time and at most %d days", a.Tasks, a.Takes, MaxSpan/(24*time.Hour))
		}
		if total += a.Tasks; total > MaxTasks {
			return fleetscore.Errorf(fleetscore.Invalid, "play workload", "", "there are more than %d tasks", MaxTasks)
		}
	}
	if len(work) == 0 {
		return fleetscore.Errorf(fleetscore.Invalid, "play workload", "", "there are no tasks")
	}
	if work[len(work)-1].At.Sub(work[0].At) > MaxSpan {
		return fleetscore.Errorf(fleetscore.Invalid, "play workload", "", "it takes more than %d days", MaxSpan/(24*time.Hour))
	}
	return nil
}

// end is when the replay ends, as far as is known now.
func (p *player) end() time.Time {
	end := p.to.Add(p.cfg.Tail)
	if p.cfg.Until.After(end) {
		end = p.cfg.Until
	}
	if last := p.out.From.Add(2 * MaxSpan); end.After(last) {
		end = last
	}
	return end
}

func (p *player) add(e event) {
	e.order = p.made
	p.made++
	heap.Push(&p.events, e)
}

// step goes on to an event, or to the end if that is earlier.
func (p *player) step(e event) {
	at := e.at
	if end := p.end(); at.After(end) {
		at = end
	}
	passed := at.Sub(p.now).Seconds()
	p.nodeTime += passed * float64(len(p.nodes))
	p.slotTime += passed * float64(p.busy)
	p.now = at
	if at != e.at {
		return
	}
	switch e.kind {
	case arrives:
		for range e.load.Tasks {
			p.queue = append(p.queue, &task{came: p.now, takes: e.load.Takes})
		}
	case ends:
		p.ended(e)
	case ready:
		e.node.ready = true
	case samples:
		p.sample()
		p.add(event{at: p.now.Add(formula.SamplePeriod), kind: samples})
	case evaluates:
		p.evaluate()
		p.add(event{at: p.now.Add(p.cfg.Interval), kind: evaluates})
	}
	p.assign()
	p.point()
}

func (p *player) ended(e event) {
	if e.node.gone {
		return // the task was interrupted
	}
	p.out.Done++
	p.busy--
	p.waits = append(p.waits, e.task.began.Sub(e.task.came))
	p.out.Last = p.now
	e.node.running = slices.DeleteFunc(e.node.running, func(t *task) bool { return t == e.task })
	if e.node.ending && len(e.node.running) == 0 {
		p.remove(e.node)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (p *player) remove(n *node) {
	n.gone = true
	p.nodes = slices.DeleteFunc(p.nodes, func(x *node) bool { return x == n })
}

// assign gives waiting tasks to free slots, the oldest nodes first.
func (p *player) assign() {
	if len(p.queue) == 0 {
		return
	}
	for _, n := range p.nodes {
		for n.ready && !n.ending && len(n.running) < p.cfg.Slots && len(p.queue) > 0 {
			t := p.queue[0]
			p.queue = p.queue[1:]
			t.began = p.now
			n.running = append(n.running, t)
			p.busy++
			p.to = later(p.to, p.now.Add(t.takes))
			p.add(event{at: p.now.Add(t.takes), kind: ends, node: n, task: t})
		}
	}
}

// point notes the state if it changed. Of several changes at one time the last counts.
func (p *player) point() {
	x := Point{p.now, len(p.nodes), len(p.queue), p.busy}
	p.out.MostNodes = max(p.out.MostNodes, x.Nodes)
	last := len(p.out.Points) - 1
	switch {
	case last >= 0 && p.out.Points[last].At.Equal(x.At):
		p.out.Points[last] = x
	case last < 0 || (Point{x.At, p.out.Points[last].Nodes, p.out.Points[last].Queued, p.out.Points[last].Running}) != x:
		p.out.Points = append(p.out.Points, x)
	}
}

// sample takes the samples of this time. Two days are kept.
func (p *player) sample() {
	running, queued := p.busy, len(p.queue)
	usable, low := 0, 0
	for _, n := range p.nodes {
		if n.ready {
			usable++
		}
		if n.low {
			low++
		}
	}
	busy := 0.0
	if usable > 0 {
		busy = 100 * float64(running) / float64(usable*p.cfg.Slots)
	}
	for metric, v := range map[string]float64{
		"$ActiveTasks": float64(queued), "$RunningTasks": float64(running), "$PendingTasks": float64(queued + running),
		"$SucceededTasks": float64(p.out.Done), "$FailedTasks": float64(p.out.Terminated),
		"$CurrentDedicatedNodes": float64(len(p.nodes) - low), "$CurrentLowPriorityNodes": float64(low), "$PreemptedNodeCount": 0,
		"$UsableNodeCount": float64(usable), "$SampleNodeCount": float64(usable), "$TaskSlotsPerNode": float64(p.cfg.Slots), "$CPUPercent": busy,
	} {
		list := append(p.samples[metric], formula.Sample{At: p.now, Value: v})
		if kept := 2 * 24 * 120; len(list) > 2*kept {
			list = slices.Clone(list[len(list)-kept:])
		}
		p.samples[metric] = list
	}
}

func (p *player) evaluate() {
	r := p.formula.Eval(formula.State{Now: p.now, Current: p.targets, Samples: p.samples})
	p.out.Evaluations++
	if r.Err != nil { // the pool stays as it is
		if p.out.Failed++; p.out.Failed == 1 {
			p.out.FirstError = r.Err.Error()
		}
		return
	}
	p.targets = map[string]float64{formula.Dedicated: float64(r.Targets[formula.Dedicated]), formula.LowPriority: float64(r.Targets[formula.LowPriority])}
	p.resize(r.Option)
}

// resize starts and ends nodes until there are as many as the targets ask for, within
// the bounds. The least number is of dedicated nodes.
func (p *player) resize(option string) {
	for _, low := range []bool{false, true} {
		want := min(max(int(p.targets[formula.Dedicated]), p.cfg.Min), p.cfg.Max)
		if low {
			want = min(int(p.targets[formula.LowPriority]), p.cfg.Max)
		}
		var alive []*node
		for _, n := range p.nodes {
			if n.low == low && !n.ending {
				alive = append(alive, n)
			}
		}
		for ; want > len(alive); want-- {
			n := &node{low: low, order: p.made}
			p.nodes = append(p.nodes, n)
			p.add(event{at: p.now.Add(p.cfg.Start), kind: ready, node: n})
		}
		// Those that have no tasks end first, and of these the youngest.
		slices.SortFunc(alive, func(a, b *node) int {
			return cmp.Or(cmp.Compare(len(a.running), len(b.running)), cmp.Compare(b.order, a.order))
		})
		for _, n := range alive[:max(0, len(alive)-want)] {
			p.endNode(n, option)
		}
	}
}

func (p *player) endNode(n *node, option string) {
	switch {
	case len(n.running) == 0:
	case option == formula.TaskCompletion || option == formula.RetainedData:
		n.ending = true
		return
	case option == formula.Terminate:
		p.out.Terminated += len(n.running)
	default:
		p.out.Requeued += len(n.running)
		p.queue = append(slices.Clone(n.running), p.queue...)
	}
	p.busy -= len(n.running)
	n.running = nil
	p.remove(n)
}

func (p *player) finish() {
	o := &p.out
	o.To, o.NodeHours = p.now, p.nodeTime/3600
	if p.nodeTime > 0 {
		o.Busy = 100 * p.slotTime / (p.nodeTime * float64(p.cfg.Slots))
	}
	o.Waits = autoscale.WaitsOf(p.waits)
}

// Series is the largest numbers of nodes and tasks in each of n equal parts of the
// replay, for a chart.
func (o Outcome) Series(n int) []Point {
	out := make([]Point, n)
	part := o.To.Sub(o.From) / time.Duration(n)
	next := 0
	var now Point
	for i := range out {
		begin := o.From.Add(time.Duration(i) * part)
		most := now
		for ; next < len(o.Points) && (i == n-1 || o.Points[next].At.Before(begin.Add(part))); next++ {
			if now = o.Points[next]; !now.At.After(begin) {
				most = now // what was before doesn't belong to this part
			}
			most.Nodes, most.Queued, most.Running = max(most.Nodes, now.Nodes), max(most.Queued, now.Queued), max(most.Running, now.Running)
		}
		most.At = begin
		out[i] = most
	}
	return out
}
