package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/pool"
	"github.com/fleetscore/fleetscore/internal/schedule"
	"github.com/fleetscore/fleetscore/internal/scheduler"
)

// Pool is a pool of the configuration and its present work.
type Pool struct {
	Name      string                         `json:"name"`
	Provider  string                         `json:"provider"`
	Slots     int                            `json:"slots" doc:"number of tasks that a node runs at once"`
	Min       int                            `json:"min"`
	Max       int                            `json:"max"`
	Nodes     map[fleetscore.NodeState]int64 `json:"nodes" doc:"nodes by state, without those that ended"`
	Kinds     map[fleetscore.NodeKind]int64  `json:"kinds" doc:"the same nodes by kind"`
	Ended     map[fleetscore.NodeState]int64 `json:"ended" doc:"nodes that ended within the last hour: stopped, lost or unusable"`
	Preempted int64                          `json:"preempted" doc:"nodes of low priority that were taken away within the last hour"`
	Queued    int64                          `json:"queued" doc:"tasks that wait"`
	Leased    int64                          `json:"leased" doc:"tasks that run"`
}

// PoolDetail is a pool with what decides how many nodes it has.
type PoolDetail struct {
	Pool
	Scale       fleetscore.ScaleConfig `json:"scale" doc:"as in fleet.yaml, with its defaults"`
	Problem     string                 `json:"problem" doc:"why the last evaluation of the formula failed; empty if it didn't"`
	Broken      string                 `json:"broken" doc:"why nodes can't be used, and when the next one is tried; empty if nothing is known to be wrong"`
	Usage       *autoscale.Usage       `json:"usage,omitempty" doc:"over the last 48 hours; absent until the first sample is taken"`
	Jobs        []JobUsage             `json:"jobs" nullable:"false" doc:"what the newest jobs of the pool that have ended took"`
	Members     []fleetscore.Node      `json:"members" nullable:"false" doc:"its nodes, the newest 100: those that work, and those that ended within the last hour"`
	Evaluations []autoscale.Evaluation `json:"evaluations" nullable:"false" doc:"evaluations of formulas, newest first; empty if there never was a formula"`
}

// JobUsage is what a job took of its pool.
type JobUsage struct {
	Job       fleetscore.JobID `json:"job"`
	Ended     *time.Time       `json:"ended"`
	NodeHours float64          `json:"node_hours" doc:"the time of its tasks from the first try to the end, divided by the slots of a node"`
	LowHours  float64          `json:"low_priority_node_hours" doc:"of these, on nodes of low priority; a task counts by its last node"`
	Cost      *float64         `json:"cost,omitempty" doc:"absent without scale.cost_per_hour, of both kinds if the pool has both"`
}

// Schedule is a pipeline's schedule and its present position.
type Schedule struct {
	Pipeline string                    `json:"pipeline"`
	When     string                    `json:"when" doc:"the cron line or the recurrence, in a few words; empty means that jobs are submitted by hand"`
	Shadow   string                    `json:"shadow,omitempty" doc:"the pipeline whose rows this one scores for comparison; absent if its results are live"`
	Config   fleetscore.ScheduleConfig `json:"config" doc:"as in fleet.yaml, with its defaults"`
	NextFrom *time.Time                `json:"next_from,omitempty" doc:"where the next interval starts"`
	LastDue  *time.Time                `json:"last_due,omitempty"`
	NextDue  *time.Time                `json:"next_due,omitempty"`
	Waiting  []time.Time               `json:"waiting,omitempty" doc:"due times that have come and wait for the end of the job that runs; the first 100"`
	Paused   *time.Time                `json:"paused,omitempty" doc:"since when due times are skipped; absent if it isn't paused"`
	Problem  string                    `json:"problem" doc:"why due times can't be decided; empty if they can"`
}

// Paused says whether a schedule is paused.
type Paused struct {
	Pipeline string     `json:"pipeline"`
	Paused   *time.Time `json:"paused,omitempty" doc:"since when; absent if it isn't paused"`
}

func (s *server) registerPools(api huma.API) {
	add(api, huma.Operation{OperationID: "list pools", Method: http.MethodGet, Path: "/pools", Tags: []string{"pools"}, Summary: "Pools and their queues"}, s.listPools)
	add(api, huma.Operation{OperationID: "show pool", Method: http.MethodGet, Path: "/pools/{name}", Tags: []string{"pools"}, Summary: "A pool, and what its formula decided"}, s.showPool)
	add(api, huma.Operation{OperationID: "show pool history", Method: http.MethodGet, Path: "/pools/{name}/history", Tags: []string{"pools"},
		Summary: "What the jobs of a pool asked of it, and how that went"}, s.poolHistory)
	s.registerJoin(api)
	add(api, huma.Operation{OperationID: "list nodes", Method: http.MethodGet, Path: "/nodes", Tags: []string{"pools"}, Summary: "Nodes"}, s.listNodes)
	add(api, huma.Operation{OperationID: "read node log", Method: http.MethodGet, Path: "/nodes/{id}/log", Tags: []string{"pools"},
		Summary: "What a node has written itself", Responses: plain("200", "text/plain")}, s.readNodeLog)
}

type nodeLogInput struct {
	NodePath
	From int64 `query:"from" minimum:"0" doc:"bytes at the beginning to leave out, as a client does that follows a log"`
}

func (s *server) readNodeLog(ctx context.Context, in *nodeLogInput) (*huma.StreamResponse, error) {
	n, err := s.deps.Ledger.Node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	r, err := s.deps.Logs.OpenNode(ctx, n.Pool, in.ID, in.From)
	if err != nil {
		return nil, err
	}
	return stream(r, "text/plain; charset=utf-8"), nil
}

func (s *server) registerSchedules(api huma.API) {
	add(api, huma.Operation{OperationID: "list schedules", Method: http.MethodGet, Path: "/schedules", Tags: []string{"schedules"}, Summary: "When pipelines are due"}, s.listSchedules)
	add(api, huma.Operation{OperationID: "list occurrences", Method: http.MethodGet, Path: "/schedules/{pipeline}/occurrences", Tags: []string{"schedules"},
		Summary: "Due times and their outcomes, newest first"}, s.listOccurrences)
	add(api, huma.Operation{OperationID: "pause schedule", Method: http.MethodPost, Path: "/schedules/{pipeline}/pause", Tags: []string{"schedules"},
		Summary: "Skip due times until it is resumed; their rows are in the next interval"}, s.setPaused(true))
	add(api, huma.Operation{OperationID: "resume schedule", Method: http.MethodPost, Path: "/schedules/{pipeline}/resume", Tags: []string{"schedules"}, Summary: "Let a schedule go on"}, s.setPaused(false))
	add(api, huma.Operation{OperationID: "trigger schedule", Method: http.MethodPost, Path: "/schedules/{pipeline}/trigger", Tags: []string{"schedules"},
		Summary: "Make a schedule due now"}, s.triggerSchedule)
}

// configured returns the configuration in force. It is empty until a configuration is applied.
func (s *server) configured(ctx context.Context) (fleetscore.Config, error) {
	cfg, _, _, err := s.deps.Ledger.Config(ctx)
	if fleetscore.NotFound.Is(err) {
		return fleetscore.Config{}, nil
	}
	return cfg, err
}

func (s *server) listPools(ctx context.Context, _ *struct{}) (*body[List[Pool]], error) {
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	var out []Pool
	for _, name := range slices.Sorted(maps.Keys(cfg.Pools)) {
		nodes, err := s.deps.Ledger.Nodes(ctx, name)
		if err != nil {
			return nil, err
		}
		p, err := s.poolOf(ctx, name, cfg.Pools[name], nodes)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return answerList(out, ""), nil
}

func (s *server) poolOf(ctx context.Context, name string, c fleetscore.PoolConfig, nodes []fleetscore.Node) (p Pool, err error) {
	p = Pool{Name: name, Provider: c.Provider, Slots: c.Slots, Min: c.Scale.Min, Max: c.Scale.Max, Nodes: map[fleetscore.NodeState]int64{}, Kinds: map[fleetscore.NodeKind]int64{}, Ended: map[fleetscore.NodeState]int64{}}
	p.Queued, p.Leased, err = s.deps.Ledger.QueueDepth(ctx, name)
	for _, n := range nodes {
		if !n.State.Ended() {
			p.Nodes[n.State]++
			p.Kinds[n.Kind]++
		} else {
			p.Ended[n.State]++
		}
		if n.Preempted() {
			p.Preempted++
		}
	}
	return p, err
}

// shownNodes is how many nodes are shown with a pool.
const shownNodes = 100

// newestNodes are those that were started last, the newest first.
func newestNodes(nodes []fleetscore.Node) []fleetscore.Node {
	nodes = nodes[max(0, len(nodes)-shownNodes):] // they are in the order of their start
	slices.Reverse(nodes)
	return append([]fleetscore.Node{}, nodes...)
}

func noPool(op, name string) error {
	return fleetscore.Errorf(fleetscore.NotFound, op, name, "there is no such pool").WithHint("fleetscore pool list shows all pools")
}

func (s *server) showPool(ctx context.Context, in *struct {
	Name  string `path:"name"`
	Limit int    `query:"evaluations" default:"20" minimum:"0" maximum:"500" doc:"how many evaluations to list"`
}) (*body[PoolDetail], error) {
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	c, ok := cfg.Pools[in.Name]
	if !ok {
		return nil, noPool("show pool", in.Name)
	}
	d := PoolDetail{Scale: c.Scale, Evaluations: []autoscale.Evaluation{}}
	nodes, err := s.deps.Ledger.Nodes(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if d.Pool, err = s.poolOf(ctx, in.Name, c, nodes); err != nil {
		return nil, err
	}
	d.Members = newestNodes(nodes)
	if d.Jobs, err = s.jobsOf(ctx, in.Name, c); err != nil {
		return nil, err
	}
	samples, err := s.deps.Ledger.Samples(ctx, in.Name, s.now().Add(-autoscale.Horizon))
	if err != nil {
		return nil, err
	}
	if len(samples) > 0 {
		u := autoscale.Used(samples, c.Scale)
		d.Usage = &u
	}
	evaluations, err := s.deps.Ledger.Evaluations(ctx, in.Name, in.Limit)
	d.Evaluations = append(d.Evaluations, evaluations...)
	for _, p := range s.deps.Health.Problems() {
		switch p.Part {
		case pool.FormulaPart(in.Name):
			d.Problem = p.Problem
		case pool.BrokenPart(in.Name), pool.BrokenLowPart(in.Name):
			d.Broken = p.Problem
		}
	}
	return answer(d), err
}

// How many jobs are looked at, and how many of them are shown with a pool.
const (
	jobsSearched = 100
	jobsShown    = 5
)

// jobsOf is what the newest jobs of a pool that have ended took of it.
func (s *server) jobsOf(ctx context.Context, name string, c fleetscore.PoolConfig) ([]JobUsage, error) {
	out := []JobUsage{}
	jobs, err := s.deps.Ledger.Jobs(ctx, ledger.JobFilter{Limit: jobsSearched})
	for _, j := range jobs {
		if j.Config.Pool != name || j.Ended == nil || len(out) == jobsShown {
			continue
		}
		u, err := s.usageOf(ctx, j, c)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, err
}

// PoolHistory is what a pool had to do in a time, and how that went: what its formula can be
// played on.
type PoolHistory struct {
	Pool         string                 `json:"pool"`
	From         time.Time              `json:"from" doc:"jobs that were made from then on are listed"`
	To           time.Time              `json:"to"`
	Shortened    bool                   `json:"shortened" doc:"there were too many jobs: from is later than was asked for"`
	Slots        int                    `json:"slots" doc:"number of tasks that a node runs at once"`
	Scale        fleetscore.ScaleConfig `json:"scale" doc:"as in fleet.yaml, with its defaults"`
	StartSeconds *float64               `json:"start_seconds,omitempty" doc:"from the start of a node until it took tasks, the longest of the newest nodes; absent if no node ran within the last hour"`
	EverySeconds *float64               `json:"every_seconds,omitempty" doc:"the shortest time between the next two due times of a pipeline of the pool; absent if none has a schedule"`
	Busy         autoscale.Busy         `json:"busy" doc:"what a task kept busy of its node within the last 48 hours"`
	Waits        autoscale.Waits        `json:"waits" doc:"how long the tasks waited"`
	Usage        *autoscale.Usage       `json:"usage,omitempty" doc:"of this time, at most the last 48 hours; absent if no samples were taken"`
	Models       []autoscale.Models     `json:"models" nullable:"false" doc:"what the models of the pool's pipelines cost, as far as it was measured"`
	Jobs         []autoscale.Past       `json:"jobs" nullable:"false" doc:"those that were planned into tasks, the oldest first"`
}

// The bounds of a pool's history: jobs that are looked at, jobs of the pool, and entries of
// their runs.
const (
	historyPage = 500
	historyLook = 10_000
	historyJobs = 1000
	historyRuns = 50_000
)

func (s *server) poolHistory(ctx context.Context, in *struct {
	Name  string    `path:"name"`
	Since time.Time `query:"since" doc:"24 hours ago unless given"`
}) (*body[PoolHistory], error) {
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	c, ok := cfg.Pools[in.Name]
	if !ok {
		return nil, noPool("show pool history", in.Name)
	}
	h := PoolHistory{Pool: in.Name, To: s.now().UTC(), From: in.Since.UTC(), Slots: c.Slots, Scale: c.Scale, Models: []autoscale.Models{}, Jobs: []autoscale.Past{}}
	if in.Since.IsZero() {
		h.From = h.To.Add(-24 * time.Hour)
	}
	if err := s.recall(ctx, &h); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		if cfg.Pipelines[name].Pool != in.Name {
			continue
		}
		if m, known, err := s.modelsOf(ctx, name, cfg.Pipelines[name]); err != nil {
			return nil, err
		} else if known {
			h.Models = append(h.Models, m)
		}
	}
	nodes, err := s.deps.Ledger.Nodes(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if takes, known := autoscale.StartTime(nodes); known {
		seconds := takes.Seconds()
		h.StartSeconds = &seconds
	}
	samples, err := s.deps.Ledger.Samples(ctx, in.Name, h.From)
	if len(samples) > 0 {
		u := autoscale.Used(samples, c.Scale)
		h.Usage = &u
	}
	h.Busy = autoscale.BusyOf(samples, nodes, c.Slots)
	h.EverySeconds = s.every(cfg, in.Name)
	return answer(h), err
}

// modelsOf is what the models of a pipeline cost, if that was measured as the pipeline is now.
func (s *server) modelsOf(ctx context.Context, pipeline string, c fleetscore.PipelineConfig) (m autoscale.Models, known bool, err error) {
	costs, err := s.deps.Ledger.Costs(ctx, pipeline)
	if err != nil || len(costs.Shards) == 0 || costs.Of != scheduler.CostsDependOn(c) {
		return m, false, err
	}
	m = autoscale.Models{Pipeline: pipeline, Job: costs.Job, Measured: costs.At}
	for _, c := range costs.Shards {
		m.Sensors += c.Keys
		m.LoadSeconds += c.Load.Seconds()
		m.ScoreSeconds += c.Score.Seconds()
		m.LongestSeconds = max(m.LongestSeconds, (c.Load + c.Score).Seconds())
	}
	j, err := s.deps.Ledger.Job(ctx, costs.Job)
	if fleetscore.NotFound.Is(err) { // it is older than the retention
		return m, true, nil
	} else if err != nil {
		return m, false, err
	}
	m.Rows = j.Rows
	tasks, err := s.deps.Ledger.Tasks(ctx, j.ID)
	if err != nil {
		return m, false, err
	}
	took := 0.0
	for _, t := range tasks {
		if t.Started == nil || t.Ended == nil || t.Attempts != 1 {
			return m, true, nil
		}
		took += t.Ended.Sub(*t.Started).Seconds()
	}
	if whole := j.Rerun == nil && j.Kept == 0 && len(tasks) > 0; whole {
		rest := max(0, took-m.LoadSeconds-m.ScoreSeconds)
		m.RestSeconds = &rest
	}
	return m, true, nil
}

// every is the shortest time between the next two due times of a pipeline of a pool, in
// seconds.
func (s *server) every(cfg fleetscore.Config, pool string) (shortest *float64) {
	for _, p := range cfg.Pipelines {
		if p.Pool != pool || !p.Schedule.IsSet() {
			continue
		}
		_, first := s.nextDue(p.Schedule, ledger.ScheduleState{})
		if first == nil {
			continue
		}
		if _, second := s.nextDue(p.Schedule, ledger.ScheduleState{LastDue: *first}); second != nil {
			if gap := second.Sub(*first).Seconds(); shortest == nil || gap < *shortest {
				shortest = &gap
			}
		}
	}
	return shortest
}

// recall reads the jobs of a pool's history, the newest first, until there are too many.
func (s *server) recall(ctx context.Context, h *PoolHistory) error {
	var waits []time.Duration
	runs := 0
	f := ledger.JobFilter{Limit: historyPage}
	for looked := 0; ; looked += historyPage {
		jobs, err := s.deps.Ledger.Jobs(ctx, f)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if j.Created.Before(h.From) {
				jobs = nil
				break
			}
			if looked >= historyLook || len(h.Jobs) >= historyJobs || runs >= historyRuns {
				h.Shortened, jobs = true, nil
				break
			}
			f.Before = j.ID
			if j.Config.Pool != h.Pool {
				continue
			}
			tasks, err := s.deps.Ledger.Tasks(ctx, j.ID)
			if err != nil {
				return err
			}
			p, w, planned, err := autoscale.Recall(j, tasks, func(id fleetscore.TaskID) ([]fleetscore.Attempt, error) { return s.deps.Ledger.Attempts(ctx, id) })
			if err != nil {
				return err
			}
			if planned {
				h.Jobs, waits = append(h.Jobs, p), append(waits, w...)
				runs += len(p.Runs)
			}
		}
		if len(jobs) < historyPage {
			break
		}
	}
	slices.Reverse(h.Jobs)
	if h.Shortened && len(h.Jobs) > 0 {
		h.From = h.Jobs[0].Created
	}
	h.Waits = autoscale.WaitsOf(waits)
	return nil
}

// usageOf is what a job took of its pool, by the pool's present prices.
func (s *server) usageOf(ctx context.Context, j fleetscore.Job, c fleetscore.PoolConfig) (JobUsage, error) {
	u := JobUsage{Job: j.ID, Ended: j.Ended}
	tasks, err := s.deps.Ledger.Tasks(ctx, j.ID)
	u.NodeHours, u.LowHours = autoscale.TaskHours(tasks, c.Slots)
	if cost, known := autoscale.Cost(c.Scale, u.NodeHours-u.LowHours, u.LowHours); known {
		u.Cost = &cost
	}
	return u, err
}

func (s *server) listNodes(ctx context.Context, in *struct {
	Pool string `query:"pool"`
}) (*body[List[fleetscore.Node]], error) {
	nodes, err := s.deps.Ledger.Nodes(ctx, in.Pool)
	if err != nil {
		return nil, err
	}
	return answerList(nodes, ""), nil
}

func (s *server) listSchedules(ctx context.Context, _ *struct{}) (*body[List[Schedule]], error) {
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	var out []Schedule
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		c := cfg.Pipelines[name].Schedule
		sc := Schedule{Pipeline: name, When: schedule.Describe(c), Shadow: cfg.Pipelines[name].Shadow, Config: c}
		view, err := s.deps.Ledger.Schedule(ctx, name)
		if err != nil {
			return nil, err
		}
		st := view.State
		sc.NextFrom, sc.LastDue, sc.Paused = known(st.NextFrom), known(st.LastDue), known(st.Paused)
		if c.IsSet() {
			sc.Waiting, sc.NextDue = s.nextDue(c, st)
		}
		for _, p := range s.deps.Health.Problems() {
			if p.Part == scheduler.SchedulePart(name) {
				sc.Problem = p.Problem
			}
		}
		out = append(out, sc)
	}
	return answerList(out, ""), nil
}

type pipelinePath struct {
	Pipeline string `path:"pipeline"`
}

func (s *server) setPaused(paused bool) func(context.Context, *pipelinePath) (*body[Paused], error) {
	return func(ctx context.Context, in *pipelinePath) (*body[Paused], error) {
		since, err := s.deps.Scheduler.SetPaused(ctx, in.Pipeline, paused)
		if err != nil {
			return nil, err
		}
		return &body[Paused]{Body: Paused{in.Pipeline, known(since)}}, nil
	}
}

func (s *server) triggerSchedule(ctx context.Context, in *pipelinePath) (*body[fleetscore.Job], error) {
	j, err := s.deps.Scheduler.Trigger(ctx, in.Pipeline)
	if err != nil {
		return nil, err
	}
	return &body[fleetscore.Job]{Body: j}, nil
}

// known returns the time, or nil for the zero time.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (s *server) listOccurrences(ctx context.Context, in *struct {
	Pipeline string `path:"pipeline"`
	Limit    int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
}) (*body[List[fleetscore.Occurrence]], error) {
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	occ, err := s.deps.Ledger.Occurrences(ctx, in.Pipeline, in.Limit)
	if err != nil {
		return nil, err
	}
	if _, ok := cfg.Pipelines[in.Pipeline]; !ok && len(occ) == 0 {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "list occurrences", in.Pipeline, "there is no such pipeline").
			WithHint("fleetscore schedule list shows all pipelines with their schedules")
	}
	return answerList(occ, ""), nil
}

// maxDueWaiting bounds the due times that wait in an answer.
const maxDueWaiting = 100

// nextDue are the due times that wait for the end of a job, and the next one that comes; nil if
// none does.
func (s *server) nextDue(c fleetscore.ScheduleConfig, st ledger.ScheduleState) (waiting []time.Time, next *time.Time) {
	spec, err := schedule.Parse(c)
	if err != nil {
		return nil, nil
	}
	last := st.LastDue
	if last.IsZero() {
		last = s.now()
	}
	for _, until := range []time.Time{st.CatchUp, st.Queued} { // the first comes before the second
		for t, ok := spec.Next(last); ok && !t.After(until); t, ok = spec.Next(t) {
			if last = t; len(waiting) < maxDueWaiting {
				waiting = append(waiting, t)
			}
		}
	}
	if t, ok := spec.Next(last); ok {
		next = &t
	}
	return waiting, next
}
