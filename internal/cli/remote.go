package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/config"
	"github.com/fleetscore/fleetscore/internal/schedule"
)

// dial builds the client of a command from its flags.
func dial(cmd *cobra.Command) (*client.Client, error) {
	cfg, err := clientConfig(cmd)
	if err != nil {
		return nil, err
	}
	if u, err := user.Current(); err == nil { // else the audit doesn't say which user
		cfg.User = u.Username
	}
	return client.New(cfg)
}

// clientConfig reads the flags that say which server to use.
func clientConfig(cmd *cobra.Command) (cfg client.Config, err error) {
	for name, v := range map[string]*string{"server": &cfg.Server, "token-file": &cfg.TokenFile, "ca-file": &cfg.CAFile, "tls-server-name": &cfg.ServerName,
		"client-cert": &cfg.CertFile, "client-key": &cfg.KeyFile} {
		if *v, err = cmd.Flags().GetString(name); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

// remote makes a command that talks to the server and prints a listing.
func remote(cmd *cobra.Command, run func(ctx context.Context, c *client.Client, args []string) (*listing, error)) *cobra.Command {
	addOutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		l, err := run(cmd.Context(), c, args)
		if l != nil {
			if e := l.print(cmd); e != nil {
				return e
			}
		}
		return err
	}
	return cmd
}

// stamp is a time as people read it, in UTC.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

func stampOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return stamp(*t)
}

func newApplyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Change the configuration of a running server",
		Long: `Compares FILE with the configuration in force, shows each key that is added (+),
removed (-) or changed (~), and puts FILE in force. What the server can't carry out
is refused and changes nothing; settings that are most likely mistakes are named on
stderr. With --watch, FILE is applied again after each change, until Ctrl-C.`,
		Example: "  fleetscore apply fleet.yaml --dry-run\n  fleetscore apply fleet.yaml",
		Args:    cobra.ExactArgs(1),
	}
	dry := cmd.Flags().Bool("dry-run", false, "show what would change, and change nothing")
	watch := cmd.Flags().Bool("watch", false, "apply FILE again whenever it changes")
	addOutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		if !*watch {
			return applyFile(cmd, c, args[0], *dry)
		}
		return watchFile(cmd.Context(), args[0], func() {
			if err := applyFile(cmd, c, args[0], *dry); err != nil && cmd.Context().Err() == nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "fleetscore apply: %v\n", err)
			}
		})
	}
	return cmd
}

// applyFile applies a file and prints what has changed.
func applyFile(cmd *cobra.Command, c *client.Client, file string, dry bool) error {
	name, _, text, err := readConfig(file)
	if err != nil {
		return err
	}
	var done api.Applied
	if err := c.Send(cmd.Context(), http.MethodPut, "/config", url.Values{"name": {name}, "dry_run": {strconv.FormatBool(dry)}}, "application/yaml", bytes.NewReader(text), &done); err != nil {
		return err
	}
	warn(cmd.ErrOrStderr(), done.Warnings)
	if how, _ := cmd.Flags().GetString("output"); how == "table" {
		for _, change := range done.Changes {
			fmt.Fprintln(cmd.OutOrStdout(), change)
		}
		if dry {
			fmt.Fprintln(cmd.ErrOrStderr(), "this was a dry run: nothing was changed")
		}
	}
	l := &listing{columns: []string{"version", "pipelines", "changes"}, single: true}
	l.add(done, done.Version, len(done.Pipelines), len(done.Changes))
	return l.print(cmd)
}

// watchEvery is how often a watched file is read.
const watchEvery = 500 * time.Millisecond

// watchFile calls changed now and after each change of a file's content, until ctx
// ends. A file that can't be read, as while an editor replaces it, is read again.
func watchFile(ctx context.Context, file string, changed func()) error {
	var last [sha256.Size]byte
	for first := true; ; first = false {
		text, err := os.ReadFile(file)
		if first && err != nil {
			return fleetscore.Errorf(fleetscore.Invalid, "read configuration", file, "%w", pathCause(err))
		}
		if sum := sha256.Sum256(text); err == nil && (first || sum != last) {
			last = sum
			changed()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchEvery):
		}
	}
}

// warn prints warnings, a line each.
func warn(w io.Writer, warnings []string) {
	for _, text := range warnings {
		fmt.Fprintln(w, "warning: "+text)
	}
}

func newScheduleCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "schedule", Short: "When pipelines are due"}
	cmd.AddCommand(remote(&cobra.Command{Use: "list", Short: "List the schedules", Example: "  fleetscore schedule list", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var got api.List[api.Schedule]
			if err := c.Get(ctx, "/schedules", nil, &got); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"pipeline", "when", "zone", "next due", "last due", "waiting", "next interval from", "paused since", "shadow of", "problem"}}
			for _, s := range got.Items {
				l.add(s, s.Pipeline, s.When, zoneOf(s.Config), s.NextDue, s.LastDue, len(s.Waiting), s.NextFrom, s.Paused, s.Shadow, s.Problem)
			}
			return l, nil
		}))
	cmd.AddCommand(newScheduleNextCommand(), newScheduleHistoryCommand(),
		pauseCommand("pause", "Skip due times until the schedule is resumed", `Skips due times until the schedule is resumed. Their rows aren't lost: the next
interval begins where the last one ended. Jobs that were made go on.`),
		pauseCommand("resume", "Let a paused schedule go on", ""),
		remote(&cobra.Command{Use: "trigger PIPELINE", Short: "Make a schedule due now",
			Long: `Makes a schedule due now, also while it is paused. The job covers what no job of the
pipeline has covered yet, and waits for its data as the schedule says.`,
			Example: "  fleetscore schedule trigger anomalies", Args: cobra.ExactArgs(1)},
			func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
				var j fleetscore.Job
				if err := c.Post(ctx, "/schedules/"+url.PathEscape(args[0])+"/trigger", nil, &j); err != nil {
					return nil, err
				}
				return oneJob(j), nil
			}))
	return cmd
}

func pauseCommand(verb, short, long string) *cobra.Command {
	return remote(&cobra.Command{Use: verb + " PIPELINE", Short: short, Long: long, Example: "  fleetscore schedule " + verb + " anomalies", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
			var p api.Paused
			if err := c.Post(ctx, "/schedules/"+url.PathEscape(args[0])+"/"+verb, nil, &p); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"pipeline", "paused since"}, single: true}
			l.add(p, p.Pipeline, p.Paused)
			return l, nil
		})
}

func newScheduleHistoryCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "history PIPELINE", Short: "List due times and what became of them, newest first", Example: "  fleetscore schedule history anomalies -n 20", Args: cobra.ExactArgs(1)}
	n := cmd.Flags().IntP("count", "n", 100, "how many at most, up to 1000")
	return remote(cmd, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		var got api.List[fleetscore.Occurrence]
		if err := c.Get(ctx, "/schedules/"+url.PathEscape(args[0])+"/occurrences", url.Values{"limit": {strconv.Itoa(*n)}}, &got); err != nil {
			return nil, err
		}
		l := &listing{columns: []string{"due", "outcome", "job", "reason"}}
		for _, o := range got.Items {
			l.add(o, o.Due, string(o.State), string(o.Job), o.Reason)
		}
		return l, nil
	})
}

func zoneOf(c fleetscore.ScheduleConfig) string {
	if spec, err := schedule.Parse(c); err == nil && c.IsSet() {
		return spec.Zone().String()
	}
	return ""
}

// maxPreview bounds how many due times are listed at once.
const maxPreview = 10_000

func newScheduleNextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "next [PIPELINE]",
		Short: "List the next due times",
		Long: `Lists the next due times of a pipeline's schedule, as the server has it; or, without
a server, those of a cron line (--cron) or of a recurrence as Logic Apps writes it
(--recurrence). Times are in UTC, and in the schedule's zone beside it. With -o json
they are a list of times in UTC.`,
		Example: `  fleetscore schedule next anomalies -n 20
  fleetscore schedule next --cron '30 2 * * MON-FRI' --zone Europe/Berlin --after 2026-03-27
  fleetscore schedule next --recurrence '{"frequency": "Month", "schedule": {"monthDays": [-1]}}'`,
		Args: cobra.MaximumNArgs(1),
	}
	f := cmd.Flags()
	cron := f.String("cron", "", "a cron line of five fields, or a name such as @hourly")
	recurrence := f.String("recurrence", "", "a recurrence in Logic Apps' JSON")
	zone := f.String("zone", "", "time zone of --cron or --recurrence, such as Europe/Berlin (default: UTC)")
	after := f.String("after", "", "list due times after this time: with Z or an offset, or local time in the zone (default: now)")
	n := f.IntP("count", "n", 10, "how many")
	addOutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		given := 0
		for _, is := range []bool{len(args) > 0, f.Changed("cron"), f.Changed("recurrence")} {
			if is {
				given++
			}
		}
		switch {
		case given != 1:
			return usagef("name a pipeline, or give --cron or --recurrence: exactly one of them")
		case *n < 1 || *n > maxPreview:
			return usagef("-n %d: from 1 to %s are possible", *n, thousands(maxPreview))
		case len(args) > 0 && f.Changed("zone"):
			return usagef("--zone is for --cron and --recurrence; a pipeline has its own")
		}
		c := fleetscore.ScheduleConfig{Cron: *cron, Zone: *zone}
		if f.Changed("cron") && c.Cron == "" {
			c.Cron = " " // a line without fields, rather than no line
		}
		if len(args) > 0 {
			var err error
			if c, err = pipelineSchedule(cmd, args[0]); err != nil {
				return err
			}
		} else if f.Changed("recurrence") {
			r, err := config.ParseRecurrence([]byte(*recurrence))
			if err != nil {
				return err
			}
			c.Recurrence = &r
			if strings.HasSuffix(r.StartTime, "Z") && cmp.Or(r.TimeZone, c.Zone) != "" {
				warn(cmd.ErrOrStderr(), []string{"startTime ends in Z, so that the time zone is ignored"})
			}
		}
		if c.RunAfter != "" {
			return fleetscore.Errorf(fleetscore.Conflict, "list due times", args[0], "the pipeline has no due times of its own: its jobs follow those of %s", c.RunAfter).
				WithHint("fleetscore schedule next %s", c.RunAfter)
		}
		if !c.IsSet() {
			return fleetscore.Errorf(fleetscore.Conflict, "list due times", args[0], "the pipeline has no schedule: its jobs are submitted by hand")
		}
		return printDueTimes(cmd, c, *after, *n)
	}
	return cmd
}

// pipelineSchedule asks the server for the schedule of a pipeline.
func pipelineSchedule(cmd *cobra.Command, pipeline string) (fleetscore.ScheduleConfig, error) {
	c, err := dial(cmd)
	if err != nil {
		return fleetscore.ScheduleConfig{}, err
	}
	defer c.Close()
	var got api.List[api.Schedule]
	if err := c.Get(cmd.Context(), "/schedules", nil, &got); err != nil {
		return fleetscore.ScheduleConfig{}, err
	}
	var names []string
	for _, s := range got.Items {
		if s.Pipeline == pipeline {
			return s.Config, nil
		}
		names = append(names, s.Pipeline)
	}
	return fleetscore.ScheduleConfig{}, fleetscore.Errorf(fleetscore.NotFound, "list due times", pipeline, "there is no such pipeline%s", meant(pipeline, names)).
		WithHint("fleetscore schedule list shows all pipelines with their schedules")
}

func printDueTimes(cmd *cobra.Command, c fleetscore.ScheduleConfig, after string, n int) error {
	spec, err := schedule.Parse(c)
	if err != nil {
		return err
	}
	from := time.Now()
	if after != "" {
		if from, err = schedule.TimeIn(spec.Zone(), "--after", after); err != nil {
			return err
		}
	}
	l := &listing{columns: []string{"due", "local time"}}
	for at := from; len(l.items) < n; {
		due, ok := spec.Next(at)
		if !ok {
			fmt.Fprintf(cmd.ErrOrStderr(), "nothing more is due after %s: the schedule has ended\n", stamp(at))
			break
		}
		l.add(due, due, due.In(spec.Zone()).Format("2006-01-02 15:04:05 -07:00 MST"))
		at = due
	}
	return l.print(cmd)
}

// newClockCommand shows and accepts the time of a server.
func newClockCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "clock", Short: "The time that a server acts by"}
	list := func(s clock.State) *listing {
		l := &listing{columns: []string{"now", "machine", "trusted", "reason"}, single: true}
		l.add(s, s.Now, s.Wall, s.Trusted, s.Reason)
		return l
	}
	cmd.AddCommand(remote(&cobra.Command{Use: "show", Short: "Show the time and whether the machine's clock is trusted", Example: "  fleetscore clock show", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var s clock.State
			if err := c.Get(ctx, "/clock", nil, &s); err != nil {
				return nil, err
			}
			return list(s), nil
		}))
	cmd.AddCommand(remote(&cobra.Command{Use: "accept", Short: "Trust the machine's clock as it is now",
		Long: `Trust the server's machine's clock as it is now, after it jumped or the server
started at a time far from the last one it saw. Look at the clock first: after a
wrong time was accepted, later readings are late and due times are skipped.`,
		Example: "  fleetscore clock accept", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var s clock.State
			if err := c.Post(ctx, "/clock/accept", nil, &s); err != nil {
				return nil, err
			}
			return list(s), nil
		}))
	return cmd
}

func newNodeLogsCommand() *cobra.Command {
	follow := false
	cmd := &cobra.Command{
		Use:   "logs NODE",
		Short: "Write what a node wrote into its own log to stdout",
		Long: `Writes what a node, the agent itself, wrote into its log: when it registered, which tasks it
worked on, and what went wrong. Nodes send new lines every few seconds; what arrived is kept
if a node dies. With --follow it goes on until the node ends. fleetscore job logs writes
the logs of tasks.`,
		Example: "  fleetscore node logs cpu-k3f9ab --follow",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			path := "/nodes/" + url.PathEscape(args[0])
			for printed := int64(0); ; {
				ended := true
				if follow { // read before the log: what an ended node sent is all there
					if ended, err = nodeEnded(cmd.Context(), c, args[0]); err != nil {
						return err
					}
				}
				n, err := copyFrom(cmd.Context(), c, path+"/log", printed, cmd.OutOrStdout())
				printed += n
				if err != nil && (ended || !fleetscore.NotFound.Is(err)) { // it may have sent nothing yet
					return err
				}
				if ended {
					return nil
				}
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-time.After(followEvery):
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "write what is added, until the node ends")
	return cmd
}

// nodeEnded tells whether a node has ended.
func nodeEnded(ctx context.Context, c *client.Client, id string) (bool, error) {
	var got api.List[fleetscore.Node]
	if err := c.Get(ctx, "/nodes", nil, &got); err != nil {
		return false, err
	}
	for _, n := range got.Items {
		if string(n.ID) == id {
			return n.State.Ended(), nil
		}
	}
	return true, nil // it isn't known any more, or never was, as reading its log says
}

// copyFrom writes a text of the server from a place on, and returns how many bytes it
// were.
func copyFrom(ctx context.Context, c *client.Client, path string, from int64, w io.Writer) (int64, error) {
	r, err := c.Open(ctx, path, url.Values{"from": {strconv.FormatInt(from, 10)}})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	n, err := io.Copy(w, r)
	if err != nil {
		err = fleetscore.Errorf(fleetscore.Unavailable, "read", path, "%w", err)
	}
	return n, err
}

func newServerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "server", Short: "Servers that share the work"}
	cmd.AddCommand(remote(&cobra.Command{Use: "list", Short: "List the servers, and which of them leads", Example: "  fleetscore server list", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var got api.List[fleetscore.Server]
			if err := c.Get(ctx, "/servers", nil, &got); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"server", "state", "leads since", "seen", "url", "version", "started"}}
			for _, s := range got.Items {
				var since time.Time
				if s.LeadsSince != nil {
					since = *s.LeadsSince
				}
				l.add(s, s.Name, string(s.State), since, s.Seen, s.URL, s.Version, s.Started)
			}
			return l, nil
		}))
	return cmd
}

func newStoreCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "store", Short: "Blob storage"}
	var recursive bool
	ls := remote(&cobra.Command{Use: "ls [PREFIX]", Short: "List what the store holds", Example: "  fleetscore store ls predictions/", Args: cobra.MaximumNArgs(1)},
		func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
			query := url.Values{"delimiter": {strconv.FormatBool(!recursive)}, "limit": {"10000"}}
			if len(args) > 0 {
				query.Set("prefix", args[0])
			}
			l := &listing{columns: []string{"name", "bytes", "modified"}}
			for {
				var page api.List[api.Blob]
				if err := c.Get(ctx, "/store", query, &page); err != nil {
					return nil, err
				}
				for _, b := range page.Items {
					if b.Modified.IsZero() {
						l.add(b, string(b.Name), "", "")
					} else {
						l.add(b, string(b.Name), b.SizeBytes, b.Modified)
					}
				}
				if page.Next == "" {
					return l, nil
				}
				query.Set("after", page.Next)
			}
		})
	ls.Flags().BoolVarP(&recursive, "recursive", "r", false, "everything below, not only direct children")
	cat := &cobra.Command{Use: "cat NAME", Short: "Write a blob to stdout", Example: "  fleetscore store cat predictions/anomalies/_delta_log/00000000000000000000.json", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			return copyTo(cmd.Context(), c, cmd.OutOrStdout(), "/store/"+(&url.URL{Path: args[0]}).EscapedPath())
		}}
	cmd.AddCommand(ls, cat)
	return cmd
}

// copyTo writes the body of an answer.
func copyTo(ctx context.Context, c *client.Client, w io.Writer, path string) error {
	r, err := c.Open(ctx, path, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return fleetscore.Errorf(fleetscore.Unavailable, "read", path, "%w", err)
	}
	return nil
}
