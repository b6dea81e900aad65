package portal

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/logs"
)

// Limits of what a job's page shows: items, tasks, bytes of one log and of all logs.
// The API returns everything.
const (
	maxItems = 1000
	maxTasks = 500
	maxLog   = 64 << 10
	maxLogs  = 512 << 10
)

type jobPage struct {
	Job       fleetscore.Job
	Tasks     []fleetscore.Task
	MoreTasks int // tasks that are not shown
	Outcomes  []outcome
	Filter    fleetscore.Outcome
	Items     []fleetscore.Item
	First     int    // place of the first item that is shown, from 1
	Of        int    // the number of all items
	Back, On  string // addresses of the items before and after these; empty if there are none
	Logs      []logText
	LogsLeft  int // logs tasks that are not shown
}

// refresh is the number of seconds after which a browser loads the page again, until
// the job has ended.
func (p jobPage) refresh() int {
	if p.Job.State.Ended() {
		return 0
	}
	return 2
}

type outcome struct {
	Outcome fleetscore.Outcome
	N       int64
}

type logText struct {
	logs.Ref
	Text string
	Cut  bool
}

func (p *Portal) job(r *http.Request) (any, error) {
	ctx := r.Context()
	id := fleetscore.JobID(r.PathValue("id"))
	j, err := p.deps.Ledger.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	v := jobPage{Job: j, Filter: fleetscore.Outcome(r.URL.Query().Get("outcome"))}
	if v.Tasks, err = p.deps.Ledger.Tasks(ctx, id); err != nil {
		return nil, err
	}
	if len(v.Tasks) > maxTasks {
		v.Tasks, v.MoreTasks = v.Tasks[:maxTasks], len(v.Tasks)-maxTasks
	}
	for _, o := range fleetscore.Outcomes {
		if n := j.Outcomes[o]; n > 0 {
			v.Outcomes = append(v.Outcomes, outcome{o, n})
		}
	}
	if v.Items, err = p.items(ctx, j, v.Filter); err != nil {
		return nil, err
	}
	v.page(r.URL.Query().Get("skip"))
	refs, err := p.deps.Logs.List(ctx, id)
	if err != nil {
		return nil, err
	}
	shown := int64(0)
	for i, ref := range refs {
		if shown += min(ref.SizeBytes, maxLog); shown > maxLogs && i > 0 {
			v.LogsLeft = len(refs) - i
			break
		}
		text, err := p.logText(ctx, id, ref)
		if err != nil {
			return nil, err
		}
		v.Logs = append(v.Logs, logText{ref, text, ref.SizeBytes > maxLog})
	}
	return v, nil
}

// page skips the first items and keeps as many as a page holds.
func (v *jobPage) page(skip string) {
	v.Of = len(v.Items)
	n, err := strconv.Atoi(skip)
	if err != nil || n < 0 || n >= v.Of {
		n = 0
	}
	address := func(skip int) string {
		q := url.Values{"skip": {strconv.Itoa(skip)}}
		if v.Filter != "" {
			q.Set("outcome", string(v.Filter))
		}
		return "/jobs/" + url.PathEscape(string(v.Job.ID)) + "?" + q.Encode() + "#coverage"
	}
	if n > 0 {
		v.Back = address(max(0, n-maxItems))
	}
	if n+maxItems < v.Of {
		v.On = address(n + maxItems)
	}
	v.First = n + 1
	v.Items = v.Items[n:min(n+maxItems, v.Of)]
}

func (p *Portal) items(ctx context.Context, j fleetscore.Job, only fleetscore.Outcome) ([]fleetscore.Item, error) {
	items, err := p.deps.Catalog.Coverage(j.Pipeline).JobItems(ctx, j.ResultsOf(), j.Interval)
	if only != "" {
		items = slices.DeleteFunc(slices.Clone(items), func(i fleetscore.Item) bool { return i.Outcome != only })
	}
	return items, err
}

func (p *Portal) logText(ctx context.Context, id fleetscore.JobID, ref logs.Ref) (string, error) {
	in, err := p.deps.Logs.Open(ctx, id, ref.Index, ref.Attempt, ref.Stream, 0)
	if err != nil {
		return "", err
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxLog))
	return string(b), fleetscore.Wrap("read log", string(id), err)
}
