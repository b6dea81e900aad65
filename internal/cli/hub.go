package cli

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/cli/laboratory"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/hub/tail"
	"github.com/fleetscore/fleetscore/internal/sensor"
	"github.com/fleetscore/fleetscore/internal/table"
)

// newHubCommand shows what comes in.
func newHubCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "hub", Short: "The log of readings"}
	cmd.AddCommand(remote(&cobra.Command{
		Use:   "show",
		Short: "Show what comes in by which way, and who reads it",
		Long: `Shows how many readings were taken and rejected since the server's start, of all and by each way, how many a second over the last ten
seconds, when the first and the last one came, and the newest time that a device gave to one. The lag of a topic of Kafka is the number of
records that are in the topic and not in the hub yet; if it can't be read, the problem says why and what to do, and the server tries again by
itself. The lag of a query, and of the archive, is the number of messages of the hub that it hasn't taken yet; its newest time is the one
until which its rows are complete. The log is what the hub holds, with the arrival of its oldest message, and what it may hold by
hub.retention; what is kept beyond that, because a query or the archive needs it, stands under problem. "fleetscore hub keys" shows what comes from each device and sensor.`,
		Example: "  fleetscore hub show", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var h api.Hub
			if err := c.Get(ctx, "/hub", nil, &h); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"what", "state", "accepted", "per second", "rejected", "lag", "first", "last", "newest", "problem"}}
			taken := func(item any, name string, t gateway.Taken, problem string) {
				l.add(item, name, "", t.Accepted, strconv.FormatFloat(t.PerSecond, 'f', 1, 64), t.Rejected, "", ifSet(t.FirstArrival), ifSet(t.LastArrival), ifSet(t.Newest), problem)
			}
			none := (*time.Time)(nil)
			taken(h.Stats, "all", h.Taken, h.Problem)
			for _, w := range h.Ways {
				taken(w, string(w.Way), w.Taken, "")
			}
			for _, k := range h.Kafka {
				l.add(k, "kafka "+k.Topic, string(k.State), k.Accepted, "", k.Rejected, k.Lag, none, none, none, k.Problem)
			}
			log := func(item any, name, limit string, messages, bytes uint64, oldest *time.Time, overdue int64) {
				problem := ""
				if overdue > 0 {
					problem = fmt.Sprintf("%.1f MB are kept beyond hub.retention", float64(overdue)/1e6)
				}
				l.add(item, name, fmt.Sprintf("%s, %.1f MB%s", plural(int(messages), "message"), float64(bytes)/1e6, limit), "", "", "", "", oldest, none, none, problem)
			}
			limit := fmt.Sprintf(", kept for %s", h.Log.Age)
			if h.Log.LimitBytes > 0 {
				limit = fmt.Sprintf(" of %s%s", fleetscore.Size(h.Log.LimitBytes), limit)
			}
			log(h.Log, "log", limit, h.Log.Messages, h.Log.SizeBytes, h.Log.Oldest, h.Log.OverdueBytes)
			for _, p := range h.Partitions {
				log(p, fmt.Sprintf("log %d", p.Partition), "", p.Messages, p.SizeBytes, p.Oldest, p.OverdueBytes)
			}
			for _, r := range h.Readers {
				l.add(r, r.Name, "", "", "", "", r.Lag, none, none, r.Until, r.Problem)
			}
			return l, nil
		}))
	cmd.AddCommand(newTailCommand(), newKeysCommand())
	return cmd
}

// ifSet is a time, or nothing if it is zero.
func ifSet(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// newKeysCommand shows what comes from each sensor.
func newKeysCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "Show the readings of each key: how many, how often, first and last ones, how late they come", Long: `Shows what the log says of each key, in the order of the keys: how many readings there are, how many a second, the earliest and the
latest time that the device gave to one, when the first and the last one arrived, and the lag of the last one, which is its arrival less its
time. The last 1,000 messages of each partition are read, or what arrived from a time on (--from), which may take long; nothing of that
costs anything while readings come in. "fleetscore sensor list" shows the rows that queries make of them.`,
		Example: "  fleetscore hub keys\n  fleetscore hub keys --key 1,4 --from 2026-11-23T10:00:00Z -o json", Args: cobra.NoArgs}
	f := cmd.Flags()
	key, from, limit := f.StringSlice("key", nil, "only this sensor: values of the key columns, in their order"), f.String("from", "", "arrivals from this time on"), f.Int("limit", 100, "how many keys; 0 means all")
	return remote(cmd, func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
		if *limit < 0 {
			return nil, usagef("--limit %d: a number below 0", *limit)
		}
		q := url.Values{"key": *key, "limit": {strconv.Itoa(*limit)}}
		if *limit > 0 {
			q.Set("limit", strconv.Itoa(*limit+1)) // tells whether there are more
		}
		if *from != "" {
			q.Set("from", *from)
		}
		in, err := c.Open(ctx, "/hub/keys", q)
		if err != nil {
			return nil, err
		}
		defer in.Close()
		l := &listing{columns: []string{"key", "readings", "per second", "first", "last", "first arrived", "last arrived", "lag", "sources"}}
		for dec := json.NewDecoder(in); ; {
			var k tail.Key
			if err := dec.Decode(&k); err == io.EOF {
				return l, nil
			} else if err != nil {
				return nil, err
			}
			if *limit > 0 && len(l.items) == *limit {
				fmt.Fprintln(cmd.ErrOrStderr(), "there are more keys; --limit 0 shows all")
				return l, nil
			}
			sources := make([]string, len(k.Sources))
			for i, s := range k.Sources {
				sources[i] = string(s)
			}
			l.add(k, strings.Join(k.Key, ","), k.Readings, strconv.FormatFloat(k.PerSecond, 'g', 4, 64), &k.First, &k.Last, &k.FirstArrived, &k.LastArrived,
				time.Duration(k.Lag*float64(time.Second)).Round(time.Millisecond), strings.Join(sources, " "))
		}
	})
}

// newQueryCommand is the laboratory, and what a server does with its queries.
func newQueryCommand() *cobra.Command {
	cmd := laboratory.NewCommand()
	cmd.AddCommand(newReplayCommand())
	return cmd
}

// newReplayCommand makes rows of a query again.
func newReplayCommand() *cobra.Command {
	var in api.Replay
	var from, to string
	cmd := remote(&cobra.Command{
		Use:   "replay QUERY",
		Short: "Make rows of a query again, of readings that were kept, into a dataset",
		Long: `Makes the rows of a query of the server whose times are later than --from and not later than --to
(default: now), of the readings that the hub still has, or with --archive of those in the archive too. Readings go by their times
alone, in whatever order they came: none is late. Where none was late before, the rows are those that the query made.
The dataset is made if it is absent; rows with the same key and time are replaced, by one commit. It must not be one that a
query writes.`,
		Example: "  fleetscore query replay readings --from 2026-11-23T10:00:00Z --to 2026-11-23T12:00:00Z --into readings_again",
		Args:    cobra.ExactArgs(1)},
		func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
			for name, text := range map[string]string{"from": from, "to": to} {
				if text == "" && name == "to" {
					continue
				}
				t, err := table.ParseTime(text)
				if err != nil {
					return nil, usagef("--%s %q: write a time such as 2026-11-23T10:00:00Z", name, text)
				}
				if name == "from" {
					in.From = t.Time()
				} else {
					in.To = t.Time()
				}
			}
			var got api.Replayed
			if err := c.Post(ctx, "/queries/"+url.PathEscape(args[0])+"/replay", in, &got); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"dataset", "from", "to", "readings", "repeats", "rows", "added", "replaced", "same", "kept since"}}
			l.add(got, got.Dataset, &got.From, &got.To, got.Readings, got.Repeats, got.Rows, got.Added, got.Replaced, got.Same, got.Since)
			return l, nil
		})
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "rows later than this time")
	f.StringVar(&to, "to", "", "rows up to this time (default: now)")
	f.StringVar(&in.Into, "into", "", "the dataset (default: that of the query with _replay behind its name)")
	f.BoolVar(&in.Archive, "archive", false, "of the archive, and what of the hub isn't archived yet, instead of the hub alone")
	f.StringVar(&in.Of, "of", "", "which of the query's datasets, if it writes several")
	return cmd
}

// newTailCommand shows readings of the log.
func newTailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tail", Short: "Show the last readings, or those from a time or an offset on", Long: `Shows readings of the log: the last 20, those that arrived from a time on (--from), or those from a
message of a partition on (--offset); with --follow, the server goes on with what comes, until Ctrl-C. --key names one
sensor by the values of its key columns. The log keeps readings as long as hub.retention says. With -o jsonl each reading is a
JSON object with all of its values.`,
		Example: "  fleetscore hub tail --key 1,4 --follow\n  fleetscore hub tail --from 2026-11-23T10:00:00Z --limit 1000 -o jsonl", Args: cobra.NoArgs}
	f := cmd.Flags()
	key, from, offset, partition := f.StringSlice("key", nil, "values of the key columns, in their order"), f.String("from", "", "arrivals from this time on"), f.Uint64("offset", 0, "the first message of the partition"), f.Int("partition", -1, "the only partition to read")
	follow, limit := f.BoolP("follow", "f", false, "go on with what comes"), f.Int("limit", 0, "the most readings (default: 20 of the last, else no limit)")
	how := f.StringP("output", "o", "table", "table or jsonl")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *how != "table" && *how != "jsonl" {
			return usagef("-o %s: write table or jsonl", *how)
		}
		if *from != "" && *offset > 0 {
			return usagef("give --from or --offset, not both")
		}
		q := url.Values{"key": *key, "follow": {strconv.FormatBool(*follow)}}
		for name, v := range map[string]string{"from": *from, "offset": positive(int64(*offset), 1), "partition": positive(int64(*partition), 0), "limit": positive(int64(*limit), 1)} {
			if v != "" {
				q.Set(name, v)
			}
		}
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		in, err := c.Open(cmd.Context(), "/hub/readings", q)
		if err != nil {
			return err
		}
		defer in.Close()
		return printReadings(cmd.OutOrStdout(), in, *how == "table")
	}
	return cmd
}

// positive is a number as text; empty if it is below least.
func positive(n, least int64) string {
	if n < least {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// printReadings prints each reading when it comes.
func printReadings(w io.Writer, in io.Reader, table bool) error {
	dec := json.NewDecoder(in)
	for first := true; ; first = false {
		var line json.RawMessage
		if err := dec.Decode(&line); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if !table {
			if _, err := fmt.Fprintf(w, "%s\n", line); err != nil {
				return err
			}
			continue
		}
		var x tail.Reading
		if err := json.Unmarshal(line, &x); err != nil {
			return err
		}
		if first {
			fmt.Fprintf(w, "%-24s  %-24s  %-9s  %-20s  %s\n", "TIME", "ARRIVED", "OFFSET", "KEY", "VALUES")
		}
		const form = "2006-01-02T15:04:05.000Z"
		var values []string
		for _, name := range slices.Sorted(maps.Keys(x.Values)) {
			values = append(values, fmt.Sprintf("%s=%v", name, x.Values[name]))
		}
		if _, err := fmt.Fprintf(w, "%-24s  %-24s  %-9s  %-20s  %s\n", x.Time.UTC().Format(form), x.Arrived.UTC().Format(form), fmt.Sprintf("%d/%d", x.Partition, x.Offset),
			fleetscore.Printable(strings.Join(x.Key, ",")), fleetscore.Printable(strings.Join(values, " "))); err != nil {
			return err
		}
	}
}

// newSensorCommand shows what is known of sensors.
func newSensorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "sensor", Short: "The last state of sensors: silent, flat-lined, with wrong clocks"}
	cmd.AddCommand(newSensorList(), newSensorShow())
	return cmd
}

func newSensorList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List sensors, all of them or those with a fault", Long: `Lists sensors by dataset and key, with the stamps of their first and last row, how often they have rows, their
last values, for how long the first value has been the same, by how much their clock is off, and the share of anomalies in the last
job. A sensor is silent for as long as its last row is older than the time until which the dataset is complete. A clock is
off by the arrival less the time of the newest reading, if that is more than five seconds: the number is negative if the clock is ahead.
With several conditions, sensors must fulfil all of them.`,
		Example: "  fleetscore sensor list --silent 10m\n  fleetscore sensor list --flat --limit 20\n  fleetscore sensor list --skewed=5m -o jsonl", Args: cobra.NoArgs}
	f := cmd.Flags()
	dataset, silent, flat, skewed := f.String("dataset", "", "only sensors of this dataset"), f.String("silent", "", "only those without rows for at least this long, such as 10m"),
		f.String("flat", "", "only those with the same value for at least this long (--flat alone: 1h)"), f.String("skewed", "", "only those whose clock is off by at least this (--skewed alone: 30s)")
	f.Lookup("flat").NoOptDefVal, f.Lookup("skewed").NoOptDefVal = sensor.FlatAfter.String(), sensor.SkewedBy.String()
	limit := f.Int("limit", 100, "how many; 0 means all")
	return remote(cmd, func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
		if *limit < 0 {
			return nil, usagef("--limit %d: a number below 0", *limit)
		}
		q := url.Values{}
		for name, v := range map[string]string{"dataset": *dataset, "silent": *silent, "flat": *flat, "skewed": *skewed} {
			if v != "" {
				q.Set(name, v)
			}
		}
		l := sensorListing()
		for {
			n := 10_000
			if *limit > 0 {
				n = min(n, *limit-len(l.items))
			}
			q.Set("limit", strconv.Itoa(n))
			var list api.SensorList
			if err := c.Get(ctx, "/sensors", q, &list); err != nil {
				return nil, err
			}
			for _, s := range list.Items {
				addSensor(l, s)
			}
			if q.Set("after", list.Next); list.Next == "" || len(l.items) == *limit {
				if more := list.Total - int64(len(l.items)); more > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s; --limit 0 lists all\n", plural(int(more), "more sensor"))
				}
				return l, nil
			}
		}
	})
}

func newSensorShow() *cobra.Command {
	return remote(&cobra.Command{Use: "show KEY", Short: "Show what is known of one sensor", Long: `Shows what is known of one sensor, whose KEY is the values of its key columns with commas between them, in each dataset that has rows
of it. "fleetscore sensor list --help" explains the figures.`, Example: "  fleetscore sensor show 1,4", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
			values, err := csv.NewReader(strings.NewReader(args[0])).Read()
			if err == nil {
				_, err = fleetscore.NewKey(values...)
			}
			if err != nil {
				return nil, usagef("%q: write the values of the key columns with commas between them, such as 1,4", args[0])
			}
			var list api.SensorList
			if err := c.Get(ctx, "/sensors", url.Values{"key": values}, &list); err != nil {
				return nil, err
			}
			if len(list.Items) == 0 {
				return nil, fleetscore.Errorf(fleetscore.NotFound, "show sensor", args[0], "no rows of this sensor are known").WithHint("fleetscore hub tail --key %s shows whether readings of it come in", args[0])
			}
			l := sensorListing()
			for _, s := range list.Items {
				addSensor(l, s)
			}
			return l, nil
		})
}

func sensorListing() *listing {
	return &listing{columns: []string{"dataset", "key", "first", "last", "silent", "rows", "per minute", "values", "flat", "skew", "anomalies"}}
}

// addSensor adds a sensor to a listing.
func addSensor(l *listing, s sensor.Sensor) {
	seconds := func(x *float64) any {
		if x == nil {
			return ""
		}
		return time.Duration(*x * float64(time.Second)).Round(time.Second / 10)
	}
	short := func(x *float64) string {
		if x == nil {
			return ""
		}
		return strconv.FormatFloat(*x, 'g', 6, 64)
	}
	var values, anomalies []string
	for _, name := range slices.Sorted(maps.Keys(s.Values)) {
		values = append(values, name+"="+short(s.Values[name]))
	}
	for _, p := range s.Pipelines {
		anomalies = append(anomalies, fmt.Sprintf("%s %.1f %%", p.Pipeline, 100*p.Share))
	}
	l.add(s, s.Dataset, strings.Join(s.Key, ","), s.First, s.Last, seconds(s.Silent), s.Rows, short(s.PerMinute), strings.Join(values, " "), seconds(&s.Flat), seconds(s.Skew), strings.Join(anomalies, ", "))
}

// newRejectedCommand works with messages that were rejected.
func newRejectedCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "rejected", Short: "Messages with readings that were rejected", Long: `Messages by MQTT, and records of Kafka's topics, with readings that were rejected: the newest 10,000,
of 64 MB and 30 days at most. A message that is sent again is listed once, with how often it came. Senders over HTTP get the
reason as their answer, so nothing of theirs is kept.`}
	cmd.AddCommand(newRejectedList(), remote(&cobra.Command{
		Use: "show ID", Short: "Show a message and why it was rejected", Example: "  fleetscore rejected show 5f0c2a9e7b31d846", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
			var r api.Rejected
			if err := c.Get(ctx, "/rejected/"+url.PathEscape(args[0]), nil, &r); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"field", "value"}, single: true}
			for _, f := range [][2]string{{"id", r.ID}, {"way", r.Source}, {"topic", r.Topic}, {"from", r.From}, {"reason", r.Reason}, {"first", stamp(r.First)}, {"last", stamp(r.Arrived)},
				{"times", strconv.FormatInt(r.Times, 10)}, {"text", r.Text}} {
				l.add(r, f[0], f[1])
			}
			return l, nil
		}), newRedrive(), newDropRejected())
	return cmd
}

func newRejectedList() *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List rejected messages, the newest first", Example: "  fleetscore rejected ls --limit 20", Args: cobra.NoArgs}
	limit := cmd.Flags().Int("limit", 100, "how many, at most 1000")
	return remote(cmd, func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
		var list api.List[api.Rejected]
		if err := c.Get(ctx, "/rejected", url.Values{"limit": {strconv.Itoa(*limit)}}, &list); err != nil {
			return nil, err
		}
		l := &listing{columns: []string{"id", "last", "way", "topic", "from", "times", "bytes", "reason"}}
		for _, r := range list.Items {
			l.add(r, r.ID, stamp(r.Arrived), r.Source, r.Topic, r.From, r.Times, r.Bytes, r.Reason)
		}
		return l, nil
	})
}

// chosen are the rejected messages, or the files of late readings, that a command names.
type chosen struct {
	IDs   []string `json:"ids,omitempty"`
	Files []string `json:"files,omitempty"`
	All   bool     `json:"all,omitempty"`
}

// check refuses a choice of nothing, and one of both some and all.
func (c chosen) check() error {
	if c.All == (len(c.IDs)+len(c.Files) > 0) {
		return usagef("name some of those that the command ls lists, or all of them with --all")
	}
	return nil
}

func newRedrive() *cobra.Command {
	cmd := &cobra.Command{Use: "redrive [ID…]", Short: "Hand rejected messages over again", Long: `Hands messages over again, as if they had just come, by the configuration in force: after a change of
fleet.yaml they may be taken. What is taken isn't kept any more; what is rejected again stays, and the reason is shown. Readings without a
time get the time of the message's arrival. Readings that are in the hub already count once, so it does no harm to repeat this command.

Exit codes: 0 all were taken, 3 some were rejected again.`,
		Example: "  fleetscore rejected redrive 5f0c2a9e7b31d846\n  fleetscore rejected redrive --all"}
	all := cmd.Flags().Bool("all", false, "all rejected messages")
	return remote(cmd, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		which := chosen{IDs: args, All: *all}
		if err := which.check(); err != nil {
			return nil, err
		}
		var out api.Redriven
		if err := c.Post(ctx, "/rejected/redrive", which, &out); err != nil {
			return nil, err
		}
		l := &listing{columns: []string{"id", "reason"}}
		for _, r := range out.Items {
			l.add(r, r.ID, r.Reason)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%d taken, %d rejected again\n", out.Taken, out.Rejected)
		if out.Rejected > 0 {
			return l, exitError(exitPartly)
		}
		return l, nil
	})
}

// newLateCommand works with readings that came too late.
func newLateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "late", Short: "Readings that came too late for a dataset, or too early", Long: `Readings that a query set aside, because their window was over or their time was too far after their arrival, are kept in files in the
store for 30 days.`}
	cmd.AddCommand(remote(&cobra.Command{Use: "ls DATASET", Aliases: []string{"list"}, Short: "List the files with late readings of a dataset", Example: "  fleetscore late ls readings", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
			var list api.List[api.LateFile]
			if err := c.Get(ctx, latePath(args[0], ""), nil, &list); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"file", "bytes", "written", "blob"}}
			for _, f := range list.Items {
				l.add(f, f.File, f.Bytes, f.Modified, f.Blob)
			}
			return l, nil
		}), newRedriveLate(), newDropLate())
	return cmd
}

func latePath(dataset, verb string) string {
	return "/datasets/" + url.PathEscape(dataset) + "/late" + verb
}

func newRedriveLate() *cobra.Command {
	cmd := &cobra.Command{Use: "redrive DATASET [FILE…]", Short: "Hand late readings over again", Long: `Hands the readings of files over again, as if they had just come with their old times, by the configuration in force. They count
if the query takes late readings now, by "late: revise", "late: adjust" or a longer hub.disorder; else they are set aside again. Files whose readings
are all in the hub again aren't kept any more. Readings that a query has counted already count once, so it does no harm to repeat this command.

Exit codes: 0 all were taken, 3 some were rejected.`,
		Example: "  fleetscore late redrive readings --all\n  fleetscore late redrive readings p000-17-17.ndjson", Args: cobra.MinimumNArgs(1)}
	all := cmd.Flags().Bool("all", false, "all files of the dataset")
	return remote(cmd, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		which := chosen{Files: args[1:], All: *all}
		if err := which.check(); err != nil {
			return nil, err
		}
		var out api.RedrivenLate
		if err := c.Post(ctx, latePath(args[0], "/redrive"), which, &out); err != nil {
			return nil, err
		}
		l := &listing{columns: []string{"file", "reason"}}
		for _, r := range out.Rejected {
			l.add(r, r.File, r.Reason)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s of %s handed over again\n", plural(int(out.Readings), "reading"), plural(int(out.Files), "file"))
		if len(out.Rejected) > 0 {
			return l, exitError(exitPartly)
		}
		return l, nil
	})
}

func newDropLate() *cobra.Command {
	cmd := &cobra.Command{Use: "drop DATASET [FILE…]", Short: "Remove late readings for good", Example: "  fleetscore late drop readings --all --yes", Args: cobra.MinimumNArgs(1)}
	all, yes := cmd.Flags().Bool("all", false, "all files of the dataset"), cmd.Flags().Bool("yes", false, "with --all: really remove them")
	return remote(cmd, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		which := chosen{Files: args[1:], All: *all}
		if err := which.check(); err != nil {
			return nil, err
		}
		if *all && !*yes {
			return nil, usagef("this removes all late readings of the dataset for good; add --yes")
		}
		var out api.DroppedLate
		if err := c.Post(ctx, latePath(args[0], "/drop"), which, &out); err != nil {
			return nil, err
		}
		l := &listing{columns: []string{"dropped"}, single: true}
		l.add(out, out.Dropped)
		return l, nil
	})
}

func newDropRejected() *cobra.Command {
	cmd := &cobra.Command{Use: "drop [ID…]", Short: "Remove rejected messages for good", Example: "  fleetscore rejected drop 5f0c2a9e7b31d846\n  fleetscore rejected drop --all --yes"}
	all, yes := cmd.Flags().Bool("all", false, "all rejected messages"), cmd.Flags().Bool("yes", false, "with --all: really remove them")
	return remote(cmd, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		which := chosen{IDs: args, All: *all}
		if err := which.check(); err != nil {
			return nil, err
		}
		if *all && !*yes {
			return nil, usagef("this removes all rejected messages for good; add --yes")
		}
		var out api.Dropped
		if err := c.Post(ctx, "/rejected/drop", which, &out); err != nil {
			return nil, err
		}
		l := &listing{columns: []string{"dropped"}, single: true}
		l.add(out, out.Dropped)
		return l, nil
	})
}
