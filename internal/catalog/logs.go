package catalog

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// JobLogs are the logs of a job's attempts that lie in the store, with their sizes in
// bytes. One listing finds them all.
func JobLogs(ctx context.Context, b store.Bucket, pipeline string, job fleetscore.JobID) (map[fleetscore.BlobName]int64, error) {
	out := map[fleetscore.BlobName]int64{}
	for info, err := range b.List(ctx, jobLogs(pipeline, job), store.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		out[info.Name] = info.SizeBytes
	}
	return out, nil
}

// Timed is whose times WriteTiming writes.
type Timed struct {
	Pipeline string
	Job      fleetscore.JobID
	Task     int
	Attempt  int
	Node     fleetscore.NodeID
	KeyNames []string
}

// WriteTiming writes how long each sensor's model took to load and to score, as a Parquet
// file beside the job's logs. Sensors without rows are left out.
func (c *Catalog) WriteTiming(ctx context.Context, t Timed, items []fleetscore.Item) error {
	measured := make([]*fleetscore.Item, 0, len(items))
	for i := range items {
		if items[i].Load > 0 || items[i].Score > 0 {
			measured = append(measured, &items[i])
		}
	}
	n, f := len(measured), &table.Frame{}
	longs := func(name string, value func(*fleetscore.Item) int64) {
		out := make([]int64, n)
		for i, m := range measured {
			out[i] = value(m)
		}
		f.AddLongs(name, out)
	}
	seconds := func(name string, value func(*fleetscore.Item) time.Duration) {
		out := make([]float64, n)
		for i, m := range measured {
			out[i] = value(m).Seconds()
		}
		f.AddDoubles(name, out)
	}
	longs("task", func(*fleetscore.Item) int64 { return int64(t.Task) })
	longs("attempt", func(*fleetscore.Item) int64 { return int64(t.Attempt) })
	f.AddTexts("node", n, func(int) string { return string(t.Node) })
	keys := make([][]string, n)
	for i, m := range measured {
		keys[i] = m.Key.Values()
	}
	for k, name := range t.KeyNames {
		f.AddTexts(name, n, func(row int) string { return keys[row][k] })
	}
	f.AddTexts("outcome", n, func(row int) string { return string(measured[row].Outcome) })
	longs("rows", func(m *fleetscore.Item) int64 { return m.Rows })
	seconds("load_seconds", func(m *fleetscore.Item) time.Duration { return m.Load })
	seconds("score_seconds", func(m *fleetscore.Item) time.Duration { return m.Score })
	var b bytes.Buffer
	if err := table.WriteFrame(&b, f); err != nil {
		return fleetscore.Wrap("write timing", string(t.Job), err)
	}
	_, err := c.store.Put(ctx, Timing(t.Pipeline, t.Job, t.Task, t.Attempt), &b, store.PutOptions{})
	return err
}

// JoinTiming joins what the attempts of a job wrote by WriteTiming to one file. Of several
// attempts at a task the last one counts. If it was interrupted, it can be repeated.
func (c *Catalog) JoinTiming(ctx context.Context, pipeline string, job fleetscore.JobID) error {
	var parts []fleetscore.BlobName
	attempts := map[int]int{} // by task, the last one
	joined := false
	for info, err := range c.store.List(ctx, jobLogs(pipeline, job)+"timing", store.ListOptions{}) {
		if err != nil {
			return err
		}
		var task, attempt int
		if n, err := fmt.Sscanf(strings.TrimPrefix(string(info.Name), jobLogs(pipeline, job)), timingName+"%d-%d.parquet", &task, &attempt); n == 2 && err == nil {
			parts, attempts[task] = append(parts, info.Name), max(attempts[task], attempt)
		}
		joined = joined || info.Name == JobTiming(pipeline, job)
	}
	if !joined && len(parts) > 0 {
		files := make([][]byte, len(attempts))
		for i, task := range slices.Sorted(maps.Keys(attempts)) {
			var err error
			if files[i], err = store.ReadAll(ctx, c.store, Timing(pipeline, job, task, attempts[task])); err != nil {
				return err
			}
		}
		var b bytes.Buffer
		if err := table.JoinParquet(&b, files); err != nil {
			return fleetscore.Wrap("join timing", string(job), err)
		}
		if _, err := c.store.Put(ctx, JobTiming(pipeline, job), &b, store.PutOptions{}); err != nil {
			return err
		}
	}
	_, err := c.delete(ctx, parts)
	return err
}

// DeleteJobLogs deletes the logs of a job's attempts. It returns how many there were.
func (c *Catalog) DeleteJobLogs(ctx context.Context, pipeline string, job fleetscore.JobID) (deleted int, err error) {
	var names []fleetscore.BlobName
	for info, err := range c.store.List(ctx, jobLogs(pipeline, job), store.ListOptions{}) {
		if err != nil {
			return 0, err
		}
		names = append(names, info.Name)
	}
	return c.delete(ctx, names)
}

// jobsAtOnce is how many jobs DeleteStrayLogs asks for in one go.
const jobsAtOnce = 1000

// DeleteStrayLogs deletes logs that were last written before a time and that users can't
// ask for any more: logs of nodes, and logs of jobs that don't exist according to
// unknown. It returns how many it deleted. If the wall clock was moved, nothing is
// deleted and the error is of kind Unavailable.
func (c *Catalog) DeleteStrayLogs(ctx context.Context, before time.Time, unknown func(context.Context, []fleetscore.JobID) ([]fleetscore.JobID, error)) (deleted int, err error) {
	if err := c.clockMoved("delete old logs"); err != nil {
		return 0, err
	}
	if deleted, err = c.deleteOldNodeLogs(ctx, before); err != nil {
		return deleted, err
	}
	pipelines, err := c.folders(ctx, logsArea)
	if err != nil {
		return deleted, err
	}
	for _, p := range pipelines {
		jobs, err := c.folders(ctx, logsArea+p+"/")
		if err != nil {
			return deleted, err
		}
		for len(jobs) > 0 {
			n := min(len(jobs), jobsAtOnce)
			ids := make([]fleetscore.JobID, n)
			for i, j := range jobs[:n] {
				ids[i] = fleetscore.JobID(j)
			}
			jobs = jobs[n:]
			if ids, err = unknown(ctx, ids); err != nil {
				return deleted, err
			}
			for _, id := range ids {
				if p == nodesFolder && !strings.HasPrefix(string(id), p+"-") {
					continue // a pool's, and no job's
				}
				n, err := c.deleteOld(ctx, jobLogs(p, id), before)
				if deleted += n; err != nil {
					return deleted, err
				}
			}
		}
	}
	return deleted, nil
}

// deleteOldNodeLogs deletes old files of the form that NodeLog gives.
func (c *Catalog) deleteOldNodeLogs(ctx context.Context, before time.Time) (deleted int, err error) {
	area := logsArea + nodesFolder + "/"
	pools, err := c.folders(ctx, area)
	if err != nil {
		return 0, err
	}
	for _, pool := range pools {
		var old []fleetscore.BlobName
		for info, err := range c.store.List(ctx, area+pool+"/", store.ListOptions{Delimiter: true}) {
			if err != nil {
				return deleted, err
			}
			if strings.HasSuffix(string(info.Name), ".txt") && info.Modified.Before(before) {
				old = append(old, info.Name)
			}
		}
		n, err := c.delete(ctx, old)
		if deleted += n; err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// LogsKept says which logs KeepLogs keeps.
type LogsKept struct {
	Before time.Time // those that were last written before it go; zero means none by age
	Bytes  int64     // at most so many in all; the oldest go first. 0 means without limit
	InUse  map[fleetscore.JobID]bool
	Dry    bool // only count
}

// KeepLogs deletes logs of jobs and nodes that are too old, or the oldest of too many: of
// a job all or none, and none of jobs in use. If the wall clock was moved, nothing is
// deleted and the error is of kind Unavailable.
func (c *Catalog) KeepLogs(ctx context.Context, k LogsKept) (done Maintained, err error) {
	done.Table = strings.TrimSuffix(logsArea, "/")
	if err := c.clockMoved("delete old logs"); err != nil {
		return done, err
	}
	groups, err := c.logGroups(ctx)
	if err != nil {
		return done, err
	}
	total := int64(0)
	for _, g := range groups {
		total += g.bytes
		done.Files += len(g.names)
	}
	slices.SortFunc(groups, func(a, b *logGroup) int { return a.written.Compare(b.written) })
	for _, g := range groups {
		if k.InUse[g.job] || !g.written.Before(k.Before) && (k.Bytes <= 0 || total <= k.Bytes) {
			continue
		}
		total -= g.bytes
		n := len(g.names)
		if !k.Dry {
			if n, err = c.delete(ctx, g.names); err != nil {
				done.Deleted += n
				return done, err
			}
		}
		done.Deleted, done.Bytes, done.Files = done.Deleted+n, done.Bytes+g.bytes, done.Files-n
	}
	return done, nil
}

// logGroup is what KeepLogs deletes as a whole: the logs of a job, or that of a node.
type logGroup struct {
	job     fleetscore.JobID // empty for a node's
	names   []fleetscore.BlobName
	bytes   int64
	written time.Time // when the newest was
}

// logGroups lists all logs.
func (c *Catalog) logGroups(ctx context.Context) ([]*logGroup, error) {
	var out []*logGroup
	groups := map[string]*logGroup{}
	for info, err := range c.store.List(ctx, logsArea, store.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		parts := strings.SplitN(strings.TrimPrefix(string(info.Name), logsArea), "/", 3)
		if len(parts) < 3 {
			continue // somebody's file
		}
		id, job := strings.Join(parts[:2], "/"), fleetscore.JobID(parts[1])
		if parts[0] == nodesFolder && strings.HasSuffix(parts[2], ".txt") && !strings.HasPrefix(parts[1], nodesFolder+"-") {
			id, job = string(info.Name), ""
		}
		g := groups[id]
		if g == nil {
			g = &logGroup{job: job}
			groups[id] = g
			out = append(out, g)
		}
		g.names, g.bytes = append(g.names, info.Name), g.bytes+info.SizeBytes
		if info.Modified.After(g.written) {
			g.written = info.Modified
		}
	}
	return out, nil
}
