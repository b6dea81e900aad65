package advise

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore/internal/autoscale"
)

// job is the work of a job: either the tasks that it had, or, if models isn't 0, what is cut
// into equal tasks for the slots there are.
type job struct {
	had    []time.Duration // the longest first
	models time.Duration   // to load models and to score
	rest   time.Duration   // to read rows, to write results
	shard  time.Duration   // of the shard that takes longest, which isn't divided
	cut    Cut
}

// jobsOf is the work of the jobs, as the models of their pipelines are known to cost, or else
// as it went. Twice as many rows take twice as long to score.
func jobsOf(w Work) (out []job) {
	for _, p := range w.Jobs {
		j := job{cut: w.Cut}
		for _, r := range p.Runs {
			for range r.Tasks {
				j.had = append(j.had, seconds(r.Seconds))
			}
		}
		slices.SortFunc(j.had, func(a, b time.Duration) int { return cmp.Compare(b, a) })
		if m := modelsOf(w, p); m != nil {
			more := float64(*p.Rows) / float64(m.Rows)
			score, rest := m.ScoreSeconds*more, 0.0
			if m.RestSeconds != nil {
				rest = *m.RestSeconds * more
			}
			j = job{models: seconds(m.LoadSeconds + score), rest: seconds(rest), shard: seconds(min(m.LongestSeconds*max(1, more), m.LoadSeconds+score)), cut: w.Cut}
		}
		if j.sum() > 0 {
			out = append(out, j)
		}
	}
	return out
}

// modelsOf is what the models of a past job cost; nil if that isn't known, or if the job
// didn't score all of its sensors.
func modelsOf(w Work, p autoscale.Past) *autoscale.Models {
	i := slices.IndexFunc(w.Models, func(m autoscale.Models) bool { return m.Pipeline == p.Pipeline })
	if i < 0 || p.Rows == nil || *p.Rows == 0 || w.Models[i].Rows == 0 || w.Models[i].LoadSeconds+w.Models[i].ScoreSeconds <= 0 {
		return nil
	}
	return &w.Models[i]
}

// sum is the time of all tasks.
func (j job) sum() (all time.Duration) {
	for _, d := range j.had {
		all += d
	}
	return all + j.models + j.rest
}

// tasks is how many tasks the job has on so many slots.
func (j job) tasks(slots int) int {
	if j.models == 0 {
		return len(j.had)
	}
	n := max((j.models+j.cut.Task-1)/j.cut.Task, min(time.Duration(slots), j.models/j.cut.Shortest))
	return int(min(max(1, n), time.Duration(j.cut.Most)))
}

// least and most are how many tasks the job has on one slot, and on any number of them.
func (j job) least() int { return j.tasks(1) }
func (j job) most() int  { return j.tasks(j.cut.Most) }

// longest is the time of the longest task on so many slots.
func (j job) longest(slots int) time.Duration {
	if j.models == 0 {
		return j.had[0]
	}
	return max(j.sum()/time.Duration(j.tasks(slots)), j.shard)
}

// run gives the tasks to free slots of nodes that are all there from the beginning: how long
// the job takes, and the hours until each node has no more tasks.
func (j job) run(nodes, slots int) (took time.Duration, hours float64) {
	n := j.tasks(nodes * slots)
	free := make([]time.Duration, min(nodes*slots, n)) // when each slot is free; slot k is of node k mod nodes
	ends := make([]time.Duration, min(nodes, len(free)))
	each := j.sum() / time.Duration(max(1, n))
	for i := range n {
		k, d := i%len(free), each
		if j.models == 0 {
			d = j.had[i]
			for l := range free {
				if free[l] < free[k] {
					k = l
				}
			}
		}
		free[k] += d
		ends[k%len(ends)] = max(ends[k%len(ends)], free[k])
	}
	for _, e := range ends {
		took = max(took, e)
		hours += e.Hours()
	}
	return max(took, j.shard), hours
}

// measured says what the answer rests on.
func measured(w Work) []string {
	out := []string{}
	ago := func(at time.Time) string {
		if at.IsZero() {
			return "at an unknown time"
		}
		return fmt.Sprintf("%s ago", about(max(0, w.Now.Sub(at))))
	}
	for _, m := range w.Models {
		jobs := 0
		for _, p := range w.Jobs {
			if modelsOf(w, p) != nil && p.Pipeline == m.Pipeline {
				jobs++
			}
		}
		if jobs == 0 {
			continue
		}
		text := fmt.Sprintf("the models of %s: %s to load and %s to score %s and %s, measured %s in job %s", m.Pipeline,
			about(seconds(m.LoadSeconds)), about(seconds(m.ScoreSeconds)), count(int(m.Sensors), "sensor"), count(int(m.Rows), "row"), ago(m.Measured), m.Job)
		if m.RestSeconds != nil {
			text += fmt.Sprintf("; its tasks took %s for the rest, such as to read rows and to write results", about(seconds(*m.RestSeconds)))
		}
		out = append(out, fmt.Sprintf("%s; %s of it rest on this", text, count(jobs, "job")))
	}
	had := map[string]int{}
	for _, p := range w.Jobs {
		if modelsOf(w, p) == nil && len(p.Runs) > 0 {
			had[p.Pipeline]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(had)) {
		out = append(out, fmt.Sprintf("the tasks of %s of %s as they ran, the latest %s", count(had[name], "job"), name, ago(latest(w.Jobs, name))))
	}
	if w.Load.CPUs > 0 {
		out = append(out, fmt.Sprintf("the load of the nodes in %s within the last 48 hours in which tasks ran", count(w.Load.Samples, "sample")))
	}
	if w.Measured {
		out = append(out, "how long a node takes to start")
	}
	return out
}

// unmeasured says what the answer assumes.
func unmeasured(w Work, perTask float64) []string {
	out := []string{"the processors of all candidates are taken to be as fast as those of the pool"}
	for _, m := range w.Models {
		if m.Rows == 0 {
			out = append(out, fmt.Sprintf("how many rows the models of %s had in job %s isn't known: what its tasks report has no times of models, as with commands, or is forgotten; the tasks of its jobs are taken as they ran", m.Pipeline, m.Job))
		} else if m.RestSeconds == nil {
			out = append(out, fmt.Sprintf("what the tasks of %s took besides loading and scoring isn't known, as some of its last job's tasks or sensors were done at other times; it is left out", m.Pipeline))
		}
	}
	if !w.Measured {
		out = append(out, fmt.Sprintf("how long a node takes to start wasn't measured, as none ran within the last hour; %s is assumed", w.Start))
	}
	if w.Load.CPUs == 0 {
		out = append(out, fmt.Sprintf("how many processors a task keeps busy wasn't measured, as no node reported while tasks ran; %g is assumed", perTask))
	}
	if w.Load.MemoryBytes == 0 {
		out = append(out, "how much memory a task needs wasn't measured; memory isn't looked at")
	}
	return out
}

// latest is when the newest job of a pipeline was made.
func latest(jobs []autoscale.Past, pipeline string) (at time.Time) {
	for _, p := range jobs {
		if p.Pipeline == pipeline && p.Created.After(at) {
			at = p.Created
		}
	}
	return at
}
