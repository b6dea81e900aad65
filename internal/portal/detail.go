package portal

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/catalog"
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
	NodeHours float64  // what it took of its pool, once it has ended
	Cost      *float64 // of these; nil if the price isn't known
	Job       fleetscore.Job
	Tasks     []fleetscore.Task
	MoreTasks int // tasks that are not shown
	Outcomes  []outcome
	Filter    fleetscore.Outcome
	Items     []fleetscore.Item
	Images    bool   // models of these items were asked in containers
	First     int    // place of the first item that is shown, from 1
	Of        int    // the number of all items
	Start, On string // addresses of the first items and of those after these; empty if these are shown already, or if there are none
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

// costs fills in what a job that has ended took of its pool.
func (p *Portal) costs(ctx context.Context, v *jobPage) error {
	if v.Job.Ended == nil {
		return nil
	}
	cfg, _, _, err := p.deps.Ledger.Config(ctx)
	if err != nil && !fleetscore.NotFound.Is(err) {
		return err
	}
	c := cfg.Pools[v.Job.Config.Pool]
	all, low := autoscale.TaskHours(v.Tasks, c.Slots)
	v.NodeHours = all
	if cost, known := autoscale.Cost(c.Scale, all-low, low); known {
		v.Cost = &cost
	}
	return nil
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
	if err := p.costs(ctx, &v); err != nil {
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
	if err := p.items(ctx, &v, r.URL.Query()); err != nil {
		return nil, err
	}
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

// items reads one page of a job's items. The address says after which key it begins, so
// that no page reads the items of the others, and how many come before it. Pages follow
// each other by shard; within a page the items are sorted by key.
func (p *Portal) items(ctx context.Context, v *jobPage, address url.Values) error {
	j := v.Job
	if !j.State.Ended() {
		return nil // coverage is written when the job ends
	}
	page := catalog.ItemPage{After: fleetscore.Key(address.Get("after")), Limit: maxItems}
	for o, n := range j.Outcomes {
		if v.Filter == "" || v.Filter == o {
			v.Of += int(n)
		}
	}
	if v.Of == 0 {
		return nil // the job's counts say so, however many items there are
	}
	if v.Filter != "" {
		page.Outcomes = []fleetscore.Outcome{v.Filter}
	}
	items, more, err := p.deps.Catalog.Coverage(j.Pipeline).PageOf(ctx, j, page)
	if err != nil {
		return err
	}
	link := func(after fleetscore.Key, before int) string {
		q := url.Values{}
		if after != "" {
			q.Set("after", string(after))
			q.Set("before", strconv.Itoa(before))
		}
		if v.Filter != "" {
			q.Set("outcome", string(v.Filter))
		}
		return "/jobs/" + url.PathEscape(string(j.ID)) + "?" + q.Encode() + "#coverage"
	}
	v.First = 1
	if page.After != "" {
		v.Start = link("", 0)
		if before, err := strconv.Atoi(address.Get("before")); err == nil && before > 0 && before < v.Of {
			v.First += before
		}
	}
	if more {
		v.On = link(items[len(items)-1].Key, v.First-1+len(items))
	}
	slices.SortFunc(items, func(a, b fleetscore.Item) int { return cmp.Compare(a.Key, b.Key) })
	v.Items, v.Images = items, slices.ContainsFunc(items, func(i fleetscore.Item) bool { return i.Image != "" })
	return nil
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
