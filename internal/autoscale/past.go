package autoscale

import (
	"cmp"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Past is a job of a pool as it went.
type Past struct {
	Job      fleetscore.JobID `json:"job"`
	Pipeline string           `json:"pipeline"`
	Due      *time.Time       `json:"due,omitempty" doc:"the due time that the job was made for; absent if somebody submitted it"`
	Created  time.Time        `json:"created"`
	Queued   time.Time        `json:"queued" doc:"when its tasks were put into the pool's queue"`
	Ended    *time.Time       `json:"ended,omitempty"`
	Runs     []Runs           `json:"runs" nullable:"false" doc:"its tasks that have run, the longest first"`
	Left     int              `json:"left" doc:"tasks that aren't in runs, because they haven't ended or never ran"`
	Rows     *int64           `json:"rows,omitempty" doc:"that have a prediction; absent if the job scored only some of its sensors, as a rerun does, or hasn't ended"`
	Repeated int              `json:"repeated" doc:"tasks that ran several times; what is in runs is the last time"`
}

// Models is what the models of a pipeline cost in the job in which that was measured last. The
// times are those of its tasks, added up: a task scores with several threads.
type Models struct {
	Pipeline       string           `json:"pipeline"`
	Job            fleetscore.JobID `json:"job"`
	Measured       time.Time        `json:"measured" doc:"when that job ended"`
	Sensors        int64            `json:"sensors"`
	Rows           int64            `json:"rows" doc:"with a prediction; 0 if the ledger doesn't have the job any more"`
	LoadSeconds    float64          `json:"load_seconds" doc:"to read the models"`
	ScoreSeconds   float64          `json:"score_seconds" doc:"to predict"`
	LongestSeconds float64          `json:"longest_seconds" doc:"load and score of the models of one shard, which no task divides"`
	RestSeconds    *float64         `json:"rest_seconds,omitempty" doc:"what the job's tasks took besides: to read rows, to write results, and the like; absent if it isn't known, because a task was repeated or is forgotten"`
}

// Runs are tasks of a job that took equally long.
type Runs struct {
	Tasks   int     `json:"tasks"`
	Seconds float64 `json:"seconds" doc:"of one task on one slot, to the millisecond"`
}

// Waits is how long tasks waited for the run that did them.
type Waits struct {
	Mean float64 `json:"mean_seconds"`
	P95  float64 `json:"p95_seconds"`
	Max  float64 `json:"max_seconds"`
}

// WaitsOf sums up how long tasks waited. It is zero if there are none.
func WaitsOf(waits []time.Duration) (w Waits) {
	if len(waits) == 0 {
		return w
	}
	waits = slices.Sorted(slices.Values(waits))
	sum := 0.0
	for _, d := range waits {
		sum += d.Seconds()
	}
	return Waits{sum / float64(len(waits)), waits[(95*len(waits)+99)/100-1].Seconds(), waits[len(waits)-1].Seconds()}
}

// Recall is how the tasks of a job went, and how long each waited from being queued to its
// last run. False if the job wasn't planned into tasks. Of a task that was tried several
// times, attempts returns the tries.
func Recall(j fleetscore.Job, tasks []fleetscore.Task, attempts func(fleetscore.TaskID) ([]fleetscore.Attempt, error)) (p Past, waits []time.Duration, planned bool, err error) {
	if j.Planned == nil || len(tasks) == 0 {
		return p, nil, false, nil
	}
	p = Past{Job: j.ID, Pipeline: j.Pipeline, Due: j.Due, Created: j.Created, Queued: *j.Planned, Ended: j.Ended, Runs: []Runs{}}
	if j.Rerun == nil && j.Ended != nil {
		p.Rows = &j.Rows
	}
	same := map[time.Duration]int{}
	for _, t := range tasks {
		began, ended := t.Started, t.Ended
		if t.Attempts > 1 && began != nil && ended != nil {
			p.Repeated++
			tries, err := attempts(t.ID)
			if err != nil {
				return p, nil, false, err
			}
			if n := len(tries); n > 0 {
				began, ended = &tries[n-1].Started, tries[n-1].Ended
			}
		}
		if began == nil || ended == nil {
			p.Left++
			continue
		}
		same[max(time.Millisecond, ended.Sub(*began).Round(time.Millisecond))]++
		waits = append(waits, max(0, began.Sub(p.Queued)))
	}
	for d, n := range same {
		p.Runs = append(p.Runs, Runs{Tasks: n, Seconds: d.Seconds()})
	}
	slices.SortFunc(p.Runs, func(a, b Runs) int { return cmp.Compare(b.Seconds, a.Seconds) })
	return p, waits, true, nil
}
