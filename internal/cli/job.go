package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/table"
)

func newJobCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "job", Short: "Jobs: one pipeline over one interval"}
	cmd.AddCommand(newJobSubmitCommand(), newJobListCommand(), newJobShowCommand(), newJobWaitCommand(), newJobRerunCommand(), newJobCancelCommand(), newJobLogsCommand(), newJobCoverageCommand())
	return cmd
}

var jobColumns = []string{"job", "state", "from", "to", "sensors", "rows", "anomalies", "tasks", "took", "reason"}

func addJob(l *listing, j fleetscore.Job) {
	var took time.Duration
	if j.Started != nil && j.Ended != nil {
		took = j.Ended.Sub(*j.Started).Round(time.Millisecond)
	}
	why := j.Reason
	if why == "" && j.State == fleetscore.JobWaiting {
		why = "new: the server looks at its data next"
	}
	l.add(j, string(j.ID), string(j.State), j.Interval.From, j.Interval.To, j.Expected, j.Rows, j.Anomalies,
		fmt.Sprintf("%d/%d", j.TasksEnded, j.Tasks), took, why)
}

func oneJob(j fleetscore.Job) *listing {
	l := &listing{columns: jobColumns, single: true}
	addJob(l, j)
	return l
}

func jobPath(id string, more ...string) string {
	return "/jobs/" + strings.Join(append([]string{url.PathEscape(id)}, more...), "/")
}

func newJobSubmitCommand() *cobra.Command {
	var from, to, every string
	var wait, again bool
	var cmd *cobra.Command
	cmd = remote(&cobra.Command{
		Use:   "submit PIPELINE",
		Short: "Score a pipeline's interval",
		Long: `Makes a job. Without --from and --to it covers what no job of the pipeline has
covered yet, as far as the dataset is complete. Scoring an interval again
replaces its results, and leaves those of sensors whose rows, model and settings
haven't changed; with --again these are scored too.

With --every it makes a backfill: a job of low priority for each piece of a past
interval. Regular jobs go first, and their results aren't replaced by those of a
backfill that was submitted before them.

Exit codes: 0 done, 12 no such pipeline, 13 nothing new to score; with --wait as
for job wait.`,
		Example: "  fleetscore job submit anomalies --wait\n  fleetscore job submit anomalies --from 2026-11-01 --to 2026-11-08 --every 1h",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		in := map[string]any{"pipeline": args[0], "again": again}
		for name, text := range map[string]string{"from": from, "to": to} {
			if text == "" {
				continue
			}
			t, err := table.ParseTime(text)
			if err != nil {
				return nil, usagef("--%s %s: not a time such as 2026-11-23T10:00:00Z", name, text)
			}
			in[name] = t.Time()
		}
		if every != "" {
			return backfill(ctx, c, cmd.ErrOrStderr(), in, every, wait)
		}
		var j fleetscore.Job
		if err := c.Post(ctx, "/jobs", in, &j); err != nil {
			return nil, err
		}
		if !wait {
			return oneJob(j), nil
		}
		return waitJob(ctx, c, cmd.ErrOrStderr(), string(j.ID))
	})
	cmd.Flags().StringVar(&from, "from", "", "start of the interval, not in it")
	cmd.Flags().StringVar(&to, "to", "", "end of the interval, in it")
	cmd.Flags().StringVar(&every, "every", "", "score the past in pieces of this length, such as 1h, at low priority; needs --from and --to")
	cmd.Flags().BoolVar(&again, "again", false, "score every sensor, also those for which nothing has changed since they were scored")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the job ended; a backfill's last job")
	return cmd
}

// backfill submits a backfill and lists its jobs, and if wished their ends.
func backfill(ctx context.Context, c *client.Client, notes io.Writer, in map[string]any, every string, wait bool) (*listing, error) {
	if in["from"] == nil || in["to"] == nil {
		return nil, usagef("--every %s: a backfill needs --from and --to", every)
	}
	var length fleetscore.Duration
	if err := length.UnmarshalText([]byte(every)); err != nil {
		return nil, usagef("--every %s: not a duration such as 1h", every)
	}
	in["every"] = length
	var made api.List[fleetscore.Job]
	if err := c.Post(ctx, "/backfills", in, &made); err != nil {
		return nil, err
	}
	l := &listing{columns: jobColumns}
	var worst error
	for _, j := range made.Items {
		if wait {
			var exit error
			id := string(j.ID)
			if j, exit = ended(ctx, c, notes, id); j.ID == "" {
				return nil, exit
			} else if exit != nil && worst != exitError(exitFailed) {
				worst = exit
			}
		}
		addJob(l, j)
	}
	return l, worst
}

// waitJob waits until a job ended; its state is the exit code.
func waitJob(ctx context.Context, c *client.Client, notes io.Writer, id string) (*listing, error) {
	j, err := ended(ctx, c, notes, id)
	if j.ID == "" {
		return nil, err
	}
	return oneJob(j), err
}

// ended waits until a job ended; its state is the exit code. Meanwhile it says what the
// job waits for. The job is empty if it couldn't be read.
func ended(ctx context.Context, c *client.Client, notes io.Writer, id string) (fleetscore.Job, error) {
	said := ""
	for query := (url.Values{}); ; query = (url.Values{"wait": {"10s"}}) {
		var j fleetscore.Job
		if err := c.Get(ctx, jobPath(id), query, &j); err != nil {
			if ctx.Err() != nil {
				fmt.Fprintf(notes, "job %s goes on; 'fleetscore job wait %s' waits again, 'fleetscore job cancel %s' ends it\n", id, id, id)
				err = ctx.Err() // whatever else the end of the wait has broken
			}
			return fleetscore.Job{}, err
		}
		if j.Reason != said && !j.State.Ended() {
			said = j.Reason
			fmt.Fprintf(notes, "%s: %s: %s\n", j.ID, j.State, j.Reason)
		}
		switch j.State {
		case fleetscore.JobSucceeded:
			return j, nil
		case fleetscore.JobPartlyFailed:
			sayCauses(ctx, c, notes, id)
			return j, exitError(exitPartly)
		case fleetscore.JobFailed, fleetscore.JobCanceled:
			sayCauses(ctx, c, notes, id)
			return j, exitError(exitFailed)
		}
	}
}

func newJobWaitCommand() *cobra.Command {
	var cmd *cobra.Command
	cmd = remote(&cobra.Command{
		Use:   "wait JOB",
		Short: "Wait until a job ended",
		Long: `Waits until a job ended.

Exit codes: 0 succeeded, 1 failed or canceled, 3 partly failed.`,
		Example: "  fleetscore job wait anomalies-20261123T1000Z-k3f9ab",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		return waitJob(ctx, c, cmd.ErrOrStderr(), args[0])
	})
	return cmd
}

func newJobListCommand() *cobra.Command {
	var pipeline string
	var states []string
	var limit int
	cmd := remote(&cobra.Command{Use: "list", Short: "List jobs, newest first", Example: "  fleetscore job list --state failed,partly_failed", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			query := url.Values{"limit": {strconv.Itoa(limit)}}
			if pipeline != "" {
				query.Set("pipeline", pipeline)
			}
			for _, s := range states {
				if !slices.Contains(fleetscore.JobStates, fleetscore.JobState(s)) {
					return nil, usagef("--state %s: %s are possible", s, joined(fleetscore.JobStates))
				}
			}
			if len(states) > 0 {
				query.Set("state", strings.Join(states, ","))
			}
			var got api.JobList
			if err := c.Get(ctx, "/jobs", query, &got); err != nil {
				return nil, err
			}
			l := &listing{columns: jobColumns}
			for _, j := range got.Items {
				addJob(l, j)
			}
			return l, nil
		})
	cmd.Flags().StringVar(&pipeline, "pipeline", "", "only this pipeline's")
	cmd.Flags().StringSliceVar(&states, "state", nil, "only jobs in these states")
	cmd.Flags().IntVar(&limit, "limit", 20, "how many")
	return cmd
}

// joined is a list of words for a message.
func joined[T ~string](words []T) string {
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = string(w)
	}
	return strings.Join(texts, ", ")
}

func newJobShowCommand() *cobra.Command {
	return remote(&cobra.Command{Use: "show JOB", Short: "Show a job", Example: "  fleetscore job show anomalies-20261123T1000Z-k3f9ab -o json", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
			var j api.JobDetail
			if err := c.Get(ctx, jobPath(args[0]), nil, &j); err != nil {
				return nil, err
			}
			l := oneJob(j.Job)
			l.items[0] = j
			if j.Image != "" {
				l.columns, l.rows[0] = append(l.columns, "image"), append(l.rows[0], j.Image)
			}
			for _, e := range j.Environments {
				l.columns, l.rows[0] = append(l.columns, "image of scikit-learn "+e.SKLearn), append(l.rows[0], e.Image)
			}
			for _, image := range j.FormerImages {
				l.columns, l.rows[0] = append(l.columns, "image before it was moved"), append(l.rows[0], image)
			}
			if j.Used != nil {
				l.columns = append(l.columns, "node hours")
				l.rows[0] = append(l.rows[0], fmt.Sprintf("%.4f", j.Used.NodeHours))
				if j.Used.Cost != nil {
					l.columns = append(l.columns, "cost")
					l.rows[0] = append(l.rows[0], fmt.Sprintf("%.4f", *j.Used.Cost))
				}
			}
			return l, nil
		})
}

func newJobRerunCommand() *cobra.Command {
	var all, failed, wait bool
	var cause string
	var keys []string
	var cmd *cobra.Command
	cmd = remote(&cobra.Command{
		Use:   "rerun JOB",
		Short: "Score some sensors of an ended job again",
		Long: `Makes a job over the interval of an ended job that scores only some of its sensors
again, with today's models and rows. The outcomes of the other sensors are carried
over: the new job has an outcome for each sensor. With --all it scores every sensor,
whether or not something has changed.

Exit codes: 0 done, 10 no sensor is named, 12 no such job, 13 the job hasn't ended, or
none of its sensors fits; with --wait as for job wait.`,
		Example: "  fleetscore job rerun anomalies-20261123T1000Z-k3f9ab --failed --wait\n" +
			"  fleetscore job rerun anomalies-20261123T1000Z-k3f9ab --cause \"is missing in the row\" --key 3/pressure",
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		if !all && !failed && cause == "" && len(keys) == 0 {
			return nil, usagef("say which sensors: --all, --failed, --cause TEXT or --key KEY")
		}
		if all && (failed || cause != "" || len(keys) > 0) {
			return nil, usagef("--all means every sensor, so that --failed, --cause and --key have no meaning beside it")
		}
		in := map[string]any{"all": all, "failed": failed, "cause": cause}
		if len(keys) > 0 {
			in["keys"] = keys
		}
		var j fleetscore.Job
		if err := c.Post(ctx, jobPath(args[0], "rerun"), in, &j); err != nil {
			return nil, err
		}
		if !wait {
			return oneJob(j), nil
		}
		return waitJob(ctx, c, cmd.ErrOrStderr(), string(j.ID))
	})
	cmd.Flags().BoolVar(&all, "all", false, "every sensor")
	cmd.Flags().BoolVar(&failed, "failed", false, "sensors that failed, timed out or were quarantined")
	cmd.Flags().StringVar(&cause, "cause", "", "sensors that weren't scored for a reason that holds this text")
	cmd.Flags().StringArrayVar(&keys, "key", nil, "this sensor, such as 3/pressure; may be repeated")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the job ended")
	return cmd
}

func newJobCancelCommand() *cobra.Command {
	return remote(&cobra.Command{Use: "cancel JOB", Short: "Cancel a job that isn't committing yet", Example: "  fleetscore job cancel anomalies-20261123T1000Z-k3f9ab", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
			var j fleetscore.Job
			if err := c.Post(ctx, jobPath(args[0], "cancel"), nil, &j); err != nil {
				return nil, err
			}
			return oneJob(j), nil
		})
}

func newJobLogsCommand() *cobra.Command {
	f := logFollower{printed: map[string]int64{}, about: map[string]bool{}}
	cmd := &cobra.Command{
		Use:   "logs JOB",
		Short: "Write the logs of a job's tasks to stdout",
		Long: `Writes the logs of a job's tasks to stdout, by task and attempt. With --follow it goes
on until the job ends. With --key it writes the lines about one sensor, which are those
about sensors that weren't scored; write the key's values with slashes between them.`,
		Example: "  fleetscore job logs anomalies-20261123T1000Z-k3f9ab --follow\n  fleetscore job logs anomalies-20261123T1000Z-k3f9ab --key 3/4",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			f.client, f.job, f.w = c, args[0], cmd.OutOrStdout()
			return f.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "write what is added, until the job ends")
	cmd.Flags().IntVar(&f.task, "task", -1, "only this task, by its number")
	cmd.Flags().StringVar(&f.key, "key", "", "only lines about this sensor, such as 3/4")
	return cmd
}

// logFollower writes the logs of a job.
type logFollower struct {
	client *client.Client
	job    string
	w      io.Writer
	follow bool
	task   int
	key    string

	printed map[string]int64 // bytes that were written, by log
	last    string           // the log that was written last
	about   map[string]bool  // whether the last line that was read of a log is about the sensor
}

// followEvery is the pause between two looks at logs that grow.
const followEvery = 500 * time.Millisecond

func (f *logFollower) run(ctx context.Context) error {
	for {
		var j fleetscore.Job // read before its logs: what an ended job wrote is all there
		if err := f.client.Get(ctx, jobPath(f.job), nil, &j); err != nil {
			return err
		}
		if err := f.look(ctx); err != nil {
			return err
		}
		if !f.follow || j.State.Ended() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followEvery):
		}
	}
}

// look writes what was added to the logs.
func (f *logFollower) look(ctx context.Context) error {
	var refs api.List[api.Log]
	if err := f.client.Get(ctx, jobPath(f.job, "logs"), nil, &refs); err != nil {
		return err
	}
	wanted := func(task int) bool { return f.task < 0 || task == f.task }
	if f.key != "" {
		tasks, err := f.tasksOf(ctx)
		if err != nil {
			return err
		}
		wanted = func(task int) bool { return len(tasks) == 0 || slices.Contains(tasks, task) }
	}
	for _, r := range refs.Items {
		name := fmt.Sprintf("task %03d, attempt %d, %s", r.Index, r.Attempt, r.Stream)
		if !wanted(r.Index) || r.SizeBytes <= f.printed[name] {
			continue
		}
		if f.last != name {
			fmt.Fprintf(f.w, "== task %03d, attempt %d (%s), %s\n", r.Index, r.Attempt, r.State, r.Stream)
			f.last = name
		}
		n, err := f.write(ctx, jobPath(f.job, "logs", strconv.Itoa(r.Index), strconv.Itoa(r.Attempt), r.Stream), f.printed[name])
		f.printed[name] += n
		if err != nil {
			return err
		}
	}
	return nil
}

// tasksOf finds the tasks that may have the sensor, which are several if its job has several
// images; none if the job has no tasks yet.
func (f *logFollower) tasksOf(ctx context.Context) (out []int, err error) {
	var tasks api.List[api.TaskDetail]
	if err := f.client.Get(ctx, jobPath(f.job, "tasks"), nil, &tasks); err != nil {
		return nil, err
	}
	shard := fleetscore.Key(strings.ReplaceAll(f.key, "/", fleetscore.KeySeparator)).Shard()
	for i, t := range tasks.Items {
		if t.Shards.Contains(shard) {
			out = append(out, i)
		}
	}
	return out, nil
}

// write writes a log from a place on, and returns how many bytes of it were read. Of
// one sensor it writes whole lines.
func (f *logFollower) write(ctx context.Context, path string, from int64) (int64, error) {
	if f.key == "" {
		return copyFrom(ctx, f.client, path, from, f.w)
	}
	r, err := f.client.Open(ctx, path, url.Values{"from": {strconv.FormatInt(from, 10)}})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	n := int64(0)
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return n, nil // a line that isn't whole yet is read again
		} else if err != nil {
			return n, fleetscore.Errorf(fleetscore.Unavailable, "read", path, "%w", err)
		}
		n += int64(len(line))
		if f.about[path] = lineAbout(line, f.key, f.about[path]); f.about[path] {
			fmt.Fprint(f.w, line)
		}
	}
}

// lineAbout reports whether a line of a log is about a sensor: it is said of the sensor, its
// model printed it, or it goes on a line that is about the sensor.
func lineAbout(line, key string, before bool) bool {
	if strings.HasPrefix(line, "    ") {
		return before
	}
	return strings.Contains(line, " "+key+":") || strings.Contains(line, " "+key+" printed:")
}

func newJobCoverageCommand() *cobra.Command {
	var outcomes []string
	var causes bool
	cmd := remote(&cobra.Command{Use: "coverage JOB", Short: "How each sensor of a job ended",
		Long: `Lists how each sensor of a job ended, or with --causes why sensors weren't scored:
those that failed, timed out, were quarantined or have no model, grouped by reason.`,
		Example: "  fleetscore job coverage anomalies-20261123T1000Z-k3f9ab --outcome failed\n  fleetscore job coverage anomalies-20261123T1000Z-k3f9ab --causes", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
			for _, o := range outcomes {
				if !slices.Contains(fleetscore.Outcomes, fleetscore.Outcome(o)) {
					return nil, usagef("--outcome %s: %s are possible", o, joined(fleetscore.Outcomes))
				}
			}
			if causes {
				return causesOf(ctx, c, args[0], outcomes)
			}
			l := &listing{columns: []string{"sensor", "outcome", "rows", "anomalies", "first", "last", "model", "image", "kept", "reason"}}
			err := eachItem(ctx, c, args[0], outcomes, func(i fleetscore.Item) {
				var first, last time.Time
				model := ""
				if i.First != 0 {
					first, last = i.First.Time(), i.Last.Time()
				}
				if !i.Model.IsZero() {
					model = i.Model.Short()
				}
				l.add(i, i.Key.String(), string(i.Outcome), i.Rows, i.Anomalies, first, last, model, fleetscore.ShortImage(i.Image), string(i.Kept), i.Reason)
			})
			if err != nil {
				return nil, err
			}
			return l, nil
		})
	cmd.Flags().StringSliceVar(&outcomes, "outcome", nil, "only sensors that ended so")
	cmd.Flags().BoolVar(&causes, "causes", false, "why sensors weren't scored, a line per reason")
	return cmd
}

// eachItem reads the outcomes of a job's sensors.
func eachItem(ctx context.Context, c *client.Client, job string, outcomes []string, take func(fleetscore.Item)) error {
	query := url.Values{"limit": {"10000"}}
	if len(outcomes) > 0 {
		query.Set("outcome", strings.Join(outcomes, ","))
	}
	for {
		var page api.List[fleetscore.Item]
		if err := c.Get(ctx, jobPath(job, "coverage"), query, &page); err != nil {
			return err
		}
		for _, i := range page.Items {
			take(i)
		}
		if page.Next == "" {
			return nil
		}
		query.Set("after", page.Next)
	}
}

// unscored are the outcomes that have a cause.
var unscored = []string{string(fleetscore.Failed), string(fleetscore.TimedOut), string(fleetscore.Quarantined), string(fleetscore.NoModel)}

func jobCauses(ctx context.Context, c *client.Client, job string, outcomes []string) ([]scorer.Cause, error) {
	if len(outcomes) == 0 {
		outcomes = unscored
	}
	var items []fleetscore.Item
	err := eachItem(ctx, c, job, outcomes, func(i fleetscore.Item) { items = append(items, i) })
	return scorer.CausesOf(slices.Values(items)), err
}

func causesOf(ctx context.Context, c *client.Client, job string, outcomes []string) (*listing, error) {
	found, err := jobCauses(ctx, c, job, outcomes)
	l := &listing{columns: []string{"sensors", "outcome", "reason", "examples"}}
	for _, x := range found {
		l.add(x, x.Sensors, string(x.Outcome), x.Reason, shortList(x.Examples))
	}
	return l, err
}

// sayCauses prints why sensors of an ended job weren't scored. It prints nothing if the
// coverage can't be read, because the command's result is the job's state.
func sayCauses(ctx context.Context, c *client.Client, w io.Writer, job string) {
	found, err := jobCauses(ctx, c, job, nil)
	if err != nil || len(found) == 0 {
		return
	}
	writeCauses(w, found)
	fmt.Fprintf(w, "fleetscore job coverage %s lists every sensor\n", job)
}
