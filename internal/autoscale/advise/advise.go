// Package advise says which machines a pool should have: how many nodes of each candidate
// do the pool's jobs in time, what that costs, what bounds it, and which is cheapest.
//
// It is pure: what was measured and the candidates go in, an answer comes out. Each job is
// taken alone, on nodes that are started for it. If the load and score times of its pipeline's
// models are known, the job is cut into tasks for the slots of the candidate, as the server
// would cut it. Otherwise it has the tasks that it had: they go to free slots, the longest
// first. Work takes as long on every candidate as it took on the pool; a candidate has as many
// slots as its processors and its memory allow.
package advise

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
)

// Machine is a candidate.
type Machine struct {
	Name        string  `json:"name"`
	CPUs        float64 `json:"cpus"`
	MemoryBytes int64   `json:"memory_bytes"`
	CostPerHour float64 `json:"cost_per_hour"`
}

// Work is what the pool's jobs need, as far as it was measured.
type Work struct {
	Jobs      []autoscale.Past
	Models    []autoscale.Models // of the pipelines of these jobs, as far as they were measured
	Cut       Cut                // into tasks
	Now       time.Time
	Load      autoscale.Busy // of tasks
	Start     time.Duration  // of a node, until it takes tasks
	Measured  bool           // the start was measured
	IdleAfter time.Duration  // how long an idle node is kept, and paid for
	Within    time.Duration  // how long a job may take
	Every     time.Duration  // between two jobs, by the schedule; 0 if there is none
}

// Cut is how the server cuts a job whose models' cost is known into tasks.
type Cut struct {
	Task     time.Duration // that a task is to take
	Shortest time.Duration // below which no task is cut merely to give each slot one
	Most     int           // tasks of a job
}

// What bounds a candidate.
const (
	ByStart      = "start of the nodes"
	ByTask       = "longest task"
	ByProcessors = "processors"
	ByMemory     = "memory"
)

// Candidate is the answer for one machine. What follows Why is about the least number of
// nodes that does every job in time.
type Candidate struct {
	Machine
	Slots        int      `json:"slots" doc:"tasks that a node runs at once"`
	Possible     bool     `json:"possible"`
	Why          string   `json:"why,omitempty" doc:"why it isn't possible"`
	Nodes        int      `json:"nodes,omitempty"`
	WallSeconds  float64  `json:"wall_seconds,omitempty" doc:"of the job that takes longest, the start of the nodes included"`
	NodeHours    float64  `json:"node_hours,omitempty" doc:"of a job, on average"`
	CostPerJob   float64  `json:"cost_per_job,omitempty" doc:"on average"`
	CostPerMonth *float64 `json:"cost_per_month,omitempty" doc:"of 730 hours; absent if it isn't known how often jobs run"`
	Bound        string   `json:"bound" doc:"what keeps it from being faster or cheaper"`
}

// Advice is the answer for all candidates.
type Advice struct {
	Jobs           int         `json:"jobs"`
	Tasks          int         `json:"tasks" doc:"of the largest job"`
	CPUSeconds     float64     `json:"cpu_seconds" doc:"of the largest job"`
	LongestSeconds float64     `json:"longest_task_seconds" doc:"of all jobs"`
	StartSeconds   float64     `json:"start_seconds"`
	WithinSeconds  float64     `json:"within_seconds"`
	CPUsPerTask    float64     `json:"cpus_per_task"`
	MemoryPerTask  int64       `json:"memory_per_task_bytes,omitempty" doc:"absent if it wasn't measured"`
	Candidates     []Candidate `json:"candidates"`
	Best           string      `json:"best,omitempty" doc:"the cheapest that is possible; absent if none is"`
	Recommendation string      `json:"recommendation"`
	Measured       []string    `json:"measured" doc:"the measurements that the answer rests on, and how old they are"`
	Unmeasured     []string    `json:"unmeasured" doc:"what the answer assumes"`
}

// leastCPUs is the least that a task counts for: what tasks wait for besides processors, such
// as the store, isn't known, so that more of them on a processor may not be faster.
const leastCPUs = 0.25

// month is the hours of a month.
const month = 730.0

// Advise answers. Jobs without tasks that ran say nothing; kind NotFound if no other is
// there.
func Advise(w Work, machines []Machine) (a Advice, err error) {
	jobs := jobsOf(w)
	switch {
	case len(jobs) == 0:
		return a, fleetscore.Errorf(fleetscore.NotFound, "advise", "", "no task has run in this time, so nothing was measured")
	case w.Within <= 0 || w.Start < 0 || w.IdleAfter < 0:
		return a, fleetscore.Errorf(fleetscore.Invalid, "advise", "", "the time within which a job has to be done must be longer than nothing, and no time negative")
	case len(machines) == 0:
		return a, fleetscore.Errorf(fleetscore.Invalid, "advise", "", "there is no candidate")
	}
	largest := slices.MaxFunc(jobs, func(a, b job) int { return cmp.Compare(a.sum(), b.sum()) })
	perTask := max(leastCPUs, cmp.Or(w.Load.CPUs, 1))
	a = Advice{Jobs: len(jobs), Tasks: largest.least(), CPUSeconds: largest.sum().Seconds() * perTask, StartSeconds: w.Start.Seconds(), WithinSeconds: w.Within.Seconds(),
		CPUsPerTask: perTask, MemoryPerTask: w.Load.MemoryBytes, Measured: measured(w), Unmeasured: unmeasured(w, perTask)}
	for _, j := range jobs {
		a.LongestSeconds = max(a.LongestSeconds, j.longest(1).Seconds())
	}
	rate := jobsAnHour(w)
	for _, m := range machines {
		c, err := judge(w, perTask, jobs, m)
		if err != nil {
			return a, err
		}
		if c.Possible && rate > 0 {
			cost := c.CostPerJob * rate * month
			c.CostPerMonth = &cost
		}
		a.Candidates = append(a.Candidates, c)
	}
	a.recommend()
	return a, nil
}

// rateSpan is for how long jobs must have run before it is taken that they go on as often.
const rateSpan = time.Hour

// jobsAnHour is how often jobs run: as the schedule says, or as often as they did. 0 if
// neither is known.
func jobsAnHour(w Work) float64 {
	if w.Every > 0 {
		return 1 / w.Every.Hours()
	}
	if n := len(w.Jobs); n > 1 {
		if span := w.Jobs[n-1].Created.Sub(w.Jobs[0].Created); span >= rateSpan {
			return float64(n-1) / span.Hours()
		}
	}
	return 0
}

// judge finds how many nodes of a machine do every job in time.
func judge(w Work, perTask float64, jobs []job, m Machine) (c Candidate, err error) {
	if m.Name == "" || !(m.CPUs > 0) || m.CPUs > 1e6 || m.MemoryBytes <= 0 || !(m.CostPerHour > 0) || math.IsInf(m.CostPerHour, 0) {
		return c, fleetscore.Errorf(fleetscore.Invalid, "advise", m.Name, "a candidate needs a name, processors, memory and a price, each more than 0")
	}
	c = Candidate{Machine: m, Slots: max(1, int(m.CPUs/perTask+1e-9)), Bound: ByProcessors}
	if need := w.Load.MemoryBytes; need > 0 {
		if byMemory := int(m.MemoryBytes / need); byMemory < c.Slots {
			c.Slots, c.Bound = byMemory, ByMemory
		}
	}
	if c.Slots == 0 {
		c.Why = fmt.Sprintf("a task needs %s of memory, and a machine has %s", gib(w.Load.MemoryBytes), gib(m.MemoryBytes))
		return c, nil
	}
	most := 0
	for _, j := range jobs {
		most = max(most, (j.most()+c.Slots-1)/c.Slots)
	}
	longest := func(nodes int) (worst time.Duration) {
		for _, j := range jobs {
			worst = max(worst, j.longest(nodes*c.Slots))
		}
		return worst
	}
	wall := func(nodes int) (worst time.Duration) {
		for _, j := range jobs {
			took, _ := j.run(nodes, c.Slots)
			worst = max(worst, took)
		}
		return w.Start + worst
	}
	if wall(most) > w.Within {
		c.Bound = ByTask
		if w.Start > longest(most) {
			c.Bound = ByStart
		}
		c.Why = fmt.Sprintf("the longest task takes %s and the start of a node %s", about(longest(most)), about(w.Start))
		return c, nil
	}
	low, high := 1, most // the fewer nodes, the longer it takes
	for low < high {
		if mid := (low + high) / 2; wall(mid) <= w.Within {
			high = mid
		} else {
			low = mid + 1
		}
	}
	took := wall(low)
	c.Possible, c.Nodes, c.WallSeconds = true, low, took.Seconds()
	for _, j := range jobs {
		_, hours := j.run(low, c.Slots)
		used := min(low, (j.tasks(low*c.Slots)+c.Slots-1)/c.Slots)
		c.NodeHours += (hours + float64(used)*(w.Start+w.IdleAfter).Hours()) / float64(len(jobs))
	}
	c.CostPerJob = c.NodeHours * m.CostPerHour
	switch {
	case w.Start > took/2:
		c.Bound = ByStart
	case took-w.Start <= longest(low):
		c.Bound = ByTask
	}
	return c, nil
}

// recommend names the cheapest candidate; of equally cheap ones the faster one.
func (a *Advice) recommend() {
	var able []Candidate
	var why []string
	for _, c := range a.Candidates {
		if c.Possible {
			able = append(able, c)
		} else {
			why = append(why, fmt.Sprintf("%s: %s", c.Name, c.Why))
		}
	}
	within := about(seconds(a.WithinSeconds))
	if len(able) == 0 {
		a.Recommendation = fmt.Sprintf("No candidate does every job within %s (%s).", within, strings.Join(why, "; "))
		return
	}
	slices.SortStableFunc(able, func(x, y Candidate) int {
		return cmp.Or(cmp.Compare(x.CostPerJob, y.CostPerJob), cmp.Compare(x.WallSeconds, y.WallSeconds), cmp.Compare(x.Nodes, y.Nodes))
	})
	best := able[0]
	a.Best = best.Name
	text := fmt.Sprintf("Take %d × %s: the longest of %s (the largest has %.1f CPU-seconds in %s) then takes %s of the allowed %s, of which %s is the start of the nodes, and a job costs %s on average",
		best.Nodes, best.Name, count(a.Jobs, "job"), a.CPUSeconds, count(a.Tasks, "task"), about(seconds(best.WallSeconds)), within, about(seconds(a.StartSeconds)), money(best.CostPerJob))
	for i, c := range able[1:] {
		text += fmt.Sprintf("%s %d × %s would cost %s", []string{";", ","}[min(i, 1)], c.Nodes, c.Name, money(c.CostPerJob))
	}
	for _, w := range why {
		text += "; not possible is " + w
	}
	a.Recommendation = text + "."
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// about is a time with three digits or so.
func about(d time.Duration) time.Duration {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}

// money has three digits that aren't 0.
func money(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func gib(bytes int64) string { return fmt.Sprintf("%.2f GiB", float64(bytes)/(1<<30)) }
