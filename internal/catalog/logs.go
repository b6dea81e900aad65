package catalog

import (
	"context"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
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
