package api

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/pool"
	"github.com/fleetscore/fleetscore/internal/scheduler"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/table/ipc"
)

// JobList is a page of jobs, newest first.
type JobList struct {
	Items  []fleetscore.Job              `json:"items" nullable:"false"`
	Next   string                        `json:"next" doc:"send this value as the parameter before to read the next page"`
	Counts map[fleetscore.JobState]int64 `json:"counts" doc:"all jobs by state"`
}

// TaskDetail is a task and each try of it.
type TaskDetail struct {
	fleetscore.Task
	Tries []fleetscore.Attempt `json:"tries" nullable:"false"`
}

// Log is one stream of one attempt of a task.
type Log struct {
	Task      fleetscore.TaskID `json:"task"`
	Index     int               `json:"index"`
	Attempt   int               `json:"attempt"`
	Stream    string            `json:"stream" enum:"stdout,stderr"`
	State     string            `json:"state" doc:"state of the attempt; while it is leased, the log may grow"`
	SizeBytes int64             `json:"size_bytes"`
}

func (s *server) registerJobs(api huma.API) {
	add(api, huma.Operation{OperationID: "submit job", Method: http.MethodPost, Path: "/jobs", DefaultStatus: http.StatusCreated, Tags: []string{"jobs"},
		Summary: "Score a pipeline's interval"}, s.submit)
	add(api, huma.Operation{OperationID: "submit backfill", Method: http.MethodPost, Path: "/backfills", DefaultStatus: http.StatusCreated, Tags: []string{"jobs"},
		Summary: "Score a past interval in pieces, at low priority"}, s.backfill)
	add(api, huma.Operation{OperationID: "list jobs", Method: http.MethodGet, Path: "/jobs", Tags: []string{"jobs"}, Summary: "Jobs, newest first"}, s.listJobs)
	add(api, huma.Operation{OperationID: "read job", Method: http.MethodGet, Path: "/jobs/{id}", Tags: []string{"jobs"}, Summary: "A job; the request can wait for its start or end"}, s.getJob)
	add(api, huma.Operation{OperationID: "cancel job", Method: http.MethodPost, Path: "/jobs/{id}/cancel", Tags: []string{"jobs"}, Summary: "Cancel a job"}, s.cancel)
	add(api, huma.Operation{OperationID: "rerun job", Method: http.MethodPost, Path: "/jobs/{id}/rerun", DefaultStatus: http.StatusCreated, Tags: []string{"jobs"},
		Summary: "Score some sensors of an ended job again"}, s.rerun)
	add(api, huma.Operation{OperationID: "list tasks", Method: http.MethodGet, Path: "/jobs/{id}/tasks", Tags: []string{"jobs"}, Summary: "A job's tasks and their attempts"}, s.listTasks)
	add(api, huma.Operation{OperationID: "list coverage", Method: http.MethodGet, Path: "/jobs/{id}/coverage", Tags: []string{"jobs"}, Summary: "The outcome of each key of a job, by shard, then key"}, s.coverage)
	add(api, huma.Operation{OperationID: "list logs", Method: http.MethodGet, Path: "/jobs/{id}/logs", Tags: []string{"jobs"}, Summary: "A job's logs"}, s.listLogs)
	add(api, huma.Operation{OperationID: "read log", Method: http.MethodGet, Path: "/jobs/{id}/logs/{index}/{attempt}/{stream}", Tags: []string{"jobs"},
		Summary: "The text of a log", Responses: plain("200", "text/plain")}, s.readLog)
	add(api, huma.Operation{OperationID: "read predictions", Method: http.MethodGet, Path: "/pipelines/{pipeline}/predictions", Tags: []string{"jobs"},
		Summary: "A pipeline's predictions of an interval: one row for each key and time, the latest", Responses: plain("200", "text/csv")}, s.readPredictions)
}

type submitInput struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		Pipeline string     `json:"pipeline" minLength:"1"`
		From     *time.Time `json:"from,omitempty" doc:"start of the interval; the interval doesn't include it"`
		To       *time.Time `json:"to,omitempty" doc:"end of the interval; the interval includes it"`
		Again    bool       `json:"again,omitempty" doc:"score every sensor, also those for which nothing has changed since they were scored"`
	}
}

// wishes are what a request asks of its jobs.
func wishes(again bool) []scheduler.Wish {
	if again {
		return []scheduler.Wish{scheduler.Again}
	}
	return nil
}

func (s *server) submit(ctx context.Context, in *submitInput) (*body[fleetscore.Job], error) {
	var iv *fleetscore.Interval
	switch {
	case in.Body.From != nil && in.Body.To != nil:
		iv = &fleetscore.Interval{From: in.Body.From.UTC(), To: in.Body.To.UTC()}
		if err := iv.Validate(); err != nil {
			return nil, err
		}
	case in.Body.From != nil || in.Body.To != nil:
		return nil, fleetscore.Errorf(fleetscore.Invalid, "submit job", in.Body.Pipeline, "only one end of the interval is given").
			WithHint("give both from and to, or neither for the next due interval")
	}
	job, err := s.deps.Scheduler.Submit(ctx, in.Body.Pipeline, iv, wishes(in.Body.Again)...)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "submit", string(job.ID))
	return answer(job), nil
}

type backfillInput struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		Pipeline string              `json:"pipeline" minLength:"1"`
		From     time.Time           `json:"from" doc:"start of the interval; the interval doesn't include it"`
		To       time.Time           `json:"to" doc:"end of the interval; the interval includes it"`
		Every    fleetscore.Duration `json:"every" doc:"length of the pieces, such as 1h; each is a job"`
		Again    bool                `json:"again,omitempty" doc:"score every piece and sensor, also where nothing has changed"`
	}
}

func (s *server) backfill(ctx context.Context, in *backfillInput) (*body[List[fleetscore.Job]], error) {
	b := in.Body
	jobs, err := s.deps.Scheduler.Backfill(ctx, b.Pipeline, fleetscore.Interval{From: b.From.UTC(), To: b.To.UTC()}, b.Every.D(), wishes(b.Again)...)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "submit", jobs[0].Backfill+" of "+b.Pipeline)
	return answerList(jobs, ""), nil
}

type rerunInput struct {
	JobPath
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		All    bool     `json:"all,omitempty" doc:"every sensor; the other fields don't matter then"`
		Failed bool     `json:"failed,omitempty" doc:"sensors that failed, timed out or were quarantined"`
		Cause  string   `json:"cause,omitempty" doc:"sensors that weren't scored for a reason that holds this text"`
		Keys   []string `json:"keys,omitempty" maxItems:"1000" doc:"these sensors, such as 3/pressure"`
	}
}

func (s *server) rerun(ctx context.Context, in *rerunInput) (*body[fleetscore.Job], error) {
	b := in.Body
	if !b.All && !b.Failed && b.Cause == "" && len(b.Keys) == 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "rerun job", string(in.ID), "no sensor is named").WithHint("give all, failed, cause or keys")
	}
	job, err := s.deps.Scheduler.Rerun(ctx, fleetscore.Rerun{Of: in.ID, All: b.All, Failed: b.Failed, Cause: b.Cause, Keys: b.Keys})
	if err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "rerun", string(in.ID)+" as "+string(job.ID))
	return answer(job), nil
}

type listJobsInput struct {
	Pipeline string   `query:"pipeline"`
	State    []string `query:"state" doc:"states, separated by commas" enum:"waiting,queued,running,committing,succeeded,partly_failed,failed,canceled"`
	Limit    int      `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Before   string   `query:"before" doc:"the field next of the previous page"`
}

func (s *server) listJobs(ctx context.Context, in *listJobsInput) (*body[JobList], error) {
	f := ledger.JobFilter{Pipeline: in.Pipeline, Limit: in.Limit + 1, Before: fleetscore.JobID(in.Before)}
	for _, st := range in.State {
		f.States = append(f.States, fleetscore.JobState(st))
	}
	jobs, err := s.deps.Ledger.Jobs(ctx, f)
	if err != nil {
		return nil, err
	}
	counts, err := s.deps.Ledger.CountJobs(ctx)
	if err != nil {
		return nil, err
	}
	out := JobList{Items: jobs, Counts: counts}
	if len(jobs) > in.Limit {
		out.Items = jobs[:in.Limit]
		out.Next = string(jobs[in.Limit-1].ID)
	}
	if out.Items == nil {
		out.Items = []fleetscore.Job{}
	}
	return answer(out), s.withoutNodes(ctx, out.Items)
}

// withoutNodes says of jobs whose tasks no node can take at present why that is.
func (s *server) withoutNodes(ctx context.Context, jobs []fleetscore.Job) error {
	known := map[string]string{}
	for i := range jobs {
		j := &jobs[i]
		if j.Reason != "" || j.State != fleetscore.JobQueued && j.State != fleetscore.JobRunning {
			continue
		}
		why, ok := known[j.Config.Pool]
		if !ok {
			var err error
			if why, err = s.withoutNode(ctx, j.Config.Pool); err != nil {
				return err
			}
			known[j.Config.Pool] = why
		}
		j.Reason = why
	}
	return nil
}

// withoutNode says why no node of a pool takes tasks; empty if one does.
func (s *server) withoutNode(ctx context.Context, name string) (string, error) {
	// There may be ten thousand nodes, so they are looked at only while none of them has a task.
	_, leased, err := s.deps.Ledger.QueueDepth(ctx, name)
	if err != nil || leased > 0 {
		return "", err
	}
	nodes, err := s.deps.Ledger.Nodes(ctx, name)
	if err != nil {
		return "", err
	}
	coming := 0
	for _, n := range nodes {
		if n.State.Works() || n.State == fleetscore.NodeDraining && n.Running > 0 {
			return "", nil
		}
		if n.State.Coming() {
			coming++
		}
	}
	cfg, err := s.configured(ctx)
	if err != nil {
		return "", err
	}
	for _, p := range s.deps.Health.Problems() {
		if p.Part == pool.BrokenPart(name) || p.Part == pool.FormulaPart(name) {
			return fmt.Sprintf("no node of pool %s takes tasks: %s", name, p.Problem), nil
		}
	}
	c := cfg.Pools[name]
	switch {
	case coming > 0:
		return fmt.Sprintf("waits for the nodes of pool %s that start", name), nil
	case c.Provider == "static":
		return fmt.Sprintf("pool %s has no node: start an agent on a machine with the token of 'fleetscore pool join-token %s'", name, name), nil
	case c.Scale.Max == 0 && (c.Scale.LowPriority == nil || c.Scale.LowPriority.Max == 0):
		return fmt.Sprintf("pool %s may have no node: set scale.max", name), nil
	}
	if n := len(nodes); n > 0 { // they are sorted by start; health tells of several in a row that can't be used
		if last := nodes[n-1]; last.Reason != "" && (last.State == fleetscore.NodeUnusable || last.State == fleetscore.NodeLost) {
			return fmt.Sprintf("waits for a node of pool %s; the last one, %s, is %s: %s", name, last.ID, last.State, last.Reason), nil
		}
	}
	return fmt.Sprintf("waits for a node of pool %s", name), nil
}

// maxWait bounds a long poll, so that a lost client is noticed.
const maxWait = time.Minute

type getJobInput struct {
	JobPath
	Wait  string `query:"wait" doc:"how long to wait at most, e.g. 30s; at most 1m"`
	Until string `query:"until" default:"ended" enum:"ended,started" doc:"what to wait for"`
}

// JobPath is the path of a job.
type JobPath struct {
	ID fleetscore.JobID `path:"id"`
}

func (s *server) getJob(ctx context.Context, in *getJobInput) (*body[JobDetail], error) {
	id := in.ID
	var wait time.Duration
	if in.Wait != "" {
		d, err := fleetscore.ParseDuration(in.Wait)
		if err != nil {
			return nil, err
		}
		wait = min(d.D(), maxWait)
	}
	if wait <= 0 {
		job, err := s.deps.Ledger.Job(ctx, id)
		if err != nil {
			return nil, err
		}
		return s.detail(ctx, job)
	}
	changed, stop := s.deps.Ledger.Watch(ledger.JobTopic(id)) // before reading, so that no change is missed
	defer stop()
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		job, err := s.deps.Ledger.Job(ctx, id)
		if err != nil {
			return nil, err
		}
		if job.State.Ended() || in.Until == "started" && job.Started != nil {
			return s.detail(ctx, job)
		}
		select {
		case <-changed:
		case <-timeout.C:
			return s.detail(ctx, job)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// JobDetail is a job with what it took of its pool.
type JobDetail struct {
	fleetscore.Job
	Used *JobUsage `json:"used,omitempty" doc:"what it took of its pool; absent until it has ended"`
}

func (s *server) detail(ctx context.Context, j fleetscore.Job) (*body[JobDetail], error) {
	d := JobDetail{Job: j}
	if one := []fleetscore.Job{j}; j.Ended == nil {
		if err := s.withoutNodes(ctx, one); err != nil {
			return nil, err
		}
		d.Job = one[0]
	}
	if j.Ended != nil {
		cfg, err := s.configured(ctx)
		if err != nil {
			return nil, err
		}
		u, err := s.usageOf(ctx, j, cfg.Pools[j.Config.Pool])
		if err != nil {
			return nil, err
		}
		d.Used = &u
	}
	return answer(d), nil
}

type cancelInput struct {
	JobPath
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
}

func (s *server) cancel(ctx context.Context, in *cancelInput) (*body[fleetscore.Job], error) {
	job, err := s.deps.Scheduler.Cancel(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "cancel", string(in.ID))
	return answer(job), nil
}

func (s *server) listTasks(ctx context.Context, in *JobPath) (*body[List[TaskDetail]], error) {
	if _, err := s.deps.Ledger.Job(ctx, in.ID); err != nil {
		return nil, err
	}
	tasks, err := s.deps.Ledger.Tasks(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	out := make([]TaskDetail, len(tasks))
	for i, t := range tasks {
		tries, err := s.deps.Ledger.Attempts(ctx, t.ID)
		if err != nil {
			return nil, err
		}
		if tries == nil {
			tries = []fleetscore.Attempt{}
		}
		out[i] = TaskDetail{Task: t, Tries: tries}
	}
	return answerList(out, ""), nil
}

type coverageInput struct {
	JobPath
	Outcome []string `query:"outcome" doc:"only these outcomes, separated by commas" enum:"scored,no_data,no_model,failed,timed_out,quarantined,excluded"`
	Limit   int      `query:"limit" default:"1000" minimum:"1" maximum:"100000"`
	After   string   `query:"after" doc:"the field next of the previous page"`
}

func (s *server) coverage(ctx context.Context, in *coverageInput) (*body[List[fleetscore.Item]], error) {
	job, err := s.deps.Ledger.Job(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if !job.State.Ended() {
		return nil, fleetscore.Errorf(fleetscore.Conflict, "read coverage", string(in.ID), "the job is %s: its coverage is written when it ends", job.State).
			WithHint("wait for the job: fleetscore job wait %s", in.ID)
	}
	p := catalog.ItemPage{After: fleetscore.Key(in.After), Limit: in.Limit}
	for _, o := range in.Outcome {
		p.Outcomes = append(p.Outcomes, fleetscore.Outcome(o))
	}
	if len(p.Outcomes) > 0 && !slices.ContainsFunc(p.Outcomes, func(o fleetscore.Outcome) bool { return job.Outcomes[o] > 0 }) {
		return answerList([]fleetscore.Item{}, ""), nil // the job's counts say so, however many items there are
	}
	items, more, err := s.deps.Catalog.Coverage(job.Pipeline).PageOf(ctx, job, p)
	if err != nil {
		return nil, err
	}
	if items == nil {
		items = []fleetscore.Item{}
	}
	next := ""
	if more {
		next = string(items[len(items)-1].Key)
	}
	return answerList(items, next), nil
}

func (s *server) listLogs(ctx context.Context, in *JobPath) (*body[List[Log]], error) {
	refs, err := s.deps.Logs.List(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	out := make([]Log, len(refs))
	for i, r := range refs {
		out[i] = Log{Task: r.Task, Index: r.Index, Attempt: r.Attempt, Stream: r.Stream, State: r.State, SizeBytes: r.SizeBytes}
	}
	return answerList(out, ""), nil
}

type readLogInput struct {
	JobPath
	Index   int    `path:"index" minimum:"0"`
	Attempt int    `path:"attempt" minimum:"1"`
	Stream  string `path:"stream" enum:"stdout,stderr"`
	From    int64  `query:"from" minimum:"0" doc:"bytes at the beginning to leave out, as a client does that follows a log"`
}

func (s *server) readLog(ctx context.Context, in *readLogInput) (*huma.StreamResponse, error) {
	r, err := s.deps.Logs.Open(ctx, in.ID, in.Index, in.Attempt, in.Stream, in.From)
	if err != nil {
		return nil, err
	}
	return stream(r, "text/plain; charset=utf-8"), nil
}

// maxPredictions is how many rows an answer may have, which are in memory meanwhile.
const maxPredictions = 5_000_000

type readPredictionsInput struct {
	Upload
	Pipeline string    `path:"pipeline"`
	From     time.Time `query:"from" doc:"start of the interval; the interval doesn't include it. By default the first row is the start"`
	To       time.Time `query:"to" doc:"end of the interval; the interval includes it. By default the last row is the end"`
	Format   string    `query:"format" default:"csv" enum:"csv,parquet,arrow" doc:"arrow is Arrow's file format"`
}

func (s *server) readPredictions(_ context.Context, in *readPredictionsInput) (*huma.StreamResponse, error) {
	const op = "read predictions"
	ctx := in.request.Context() // it lasts as long as the answer is written
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	if _, ok := cfg.Pipelines[in.Pipeline]; !ok {
		return nil, fleetscore.Errorf(fleetscore.NotFound, op, in.Pipeline, "there is no such pipeline%s", nearest(in.Pipeline, slices.Collect(maps.Keys(cfg.Pipelines)))).
			WithHint("fleetscore schedule list shows the pipelines")
	}
	iv := fleetscore.Interval{From: time.Unix(-1<<40, 0), To: time.Unix(1<<40, 0)}
	if !in.From.IsZero() {
		iv.From = in.From.UTC()
	}
	if !in.To.IsZero() {
		iv.To = in.To.UTC()
	}
	if err := iv.Validate(); err != nil {
		return nil, err
	}
	rows, err := s.predictionsOf(ctx, in.Pipeline, table.ReadQuery{Interval: &iv})
	if err != nil {
		return nil, err
	}
	write, contentType := func(w io.Writer) error { return table.WriteCSV(w, rows, table.WriteOptions{Layout: table.RFC3339}) }, "text/csv"
	switch in.Format {
	case "parquet":
		write, contentType = func(w io.Writer) error { return table.WriteParquet(w, rows) }, ParquetType
	case "arrow":
		write, contentType = func(w io.Writer) error { return ipc.WritePredictions(w, rows) }, "application/vnd.apache.arrow.file"
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", contentType)
		if err := write(ctx.BodyWriter()); err != nil {
			panic(http.ErrAbortHandler) // the answer ends early, so that the client notices that it isn't complete
		}
	}}, nil
}

// predictionsOf reads predictions; only one reader at a time fills memory.
func (s *server) predictionsOf(ctx context.Context, pipeline string, q table.ReadQuery) (*fleetscore.Predictions, error) {
	t := s.deps.Catalog.Predictions(pipeline)
	snap, err := t.Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "read predictions", pipeline, "the pipeline has no results yet").WithHint("fleetscore job list --pipeline %s shows its jobs", pipeline)
	} else if err != nil {
		return nil, err
	}
	files, n := q.Prune(snap.Files), int64(0)
	for _, f := range files {
		n += f.Rows
	}
	if n > maxPredictions {
		return nil, fleetscore.Errorf(fleetscore.Exhausted, "read predictions", pipeline, "the files of this interval hold %d rows, and an answer has at most %d", n, maxPredictions).
			WithHint("ask for shorter intervals, or read the Delta table predictions/%s in the store (docs/results.md)", pipeline)
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return t.ReadPredictions(ctx, files, q)
}

// stream answers with the content of r and closes it. An error ends the answer early,
// so that the client notices that it isn't complete.
func stream(r io.ReadCloser, contentType string) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer r.Close()
		ctx.SetHeader("Content-Type", contentType)
		if _, err := io.Copy(ctx.BodyWriter(), r); err != nil {
			panic(http.ErrAbortHandler)
		}
	}}
}
