package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/config"
	rowfiles "github.com/fleetscore/fleetscore/internal/files"
	"github.com/fleetscore/fleetscore/internal/images"
	"github.com/fleetscore/fleetscore/internal/images/build"
	"github.com/fleetscore/fleetscore/internal/table"
)

func newDatasetCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "dataset", Short: "Tables of rows"}
	row := func(l *listing, d api.Dataset) {
		l.add(d, d.Name, d.Query, d.Rows, d.Files, d.First, d.Last, d.CompleteUntil, d.Problem)
	}
	columns := []string{"dataset", "query", "rows", "files", "first", "last", "complete until", "problem"}
	cmd.AddCommand(
		remote(&cobra.Command{Use: "show NAME", Short: "Show a dataset", Long: `Shows a dataset. Of one that a query writes it says too, since the server's start and on the server that
runs the query: how many commits computed rows again because late readings came, how many readings
were read again for that, how many rows wait for sensors that are further behind (TIMESTAMP BY … OVER), and
about how much memory the query uses.`, Example: "  fleetscore dataset show readings", Args: cobra.ExactArgs(1)},
			func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
				var d api.Dataset
				if err := c.Get(ctx, "/datasets/"+url.PathEscape(args[0]), nil, &d); err != nil {
					return nil, err
				}
				l := &listing{columns: slices.Insert(slices.Clone(columns), len(columns)-1, "revisions", "readings read again", "rows ahead", "memory"), single: true}
				cells := []any{"", "", "", ""}
				if x := d.Stream; x != nil {
					cells = []any{x.Revisions, x.Reread, x.RowsAhead, fmt.Sprintf("%.1f MB", float64(x.HeldBytes)/1e6)}
				}
				l.add(d, append(append([]any{d.Name, d.Query, d.Rows, d.Files, d.First, d.Last, d.CompleteUntil}, cells...), d.Problem)...)
				return l, nil
			}),
		remote(&cobra.Command{Use: "list", Short: "List the datasets", Example: "  fleetscore dataset list", Args: cobra.NoArgs},
			func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
				var got api.List[api.Dataset]
				if err := c.Get(ctx, "/datasets", nil, &got); err != nil {
					return nil, err
				}
				l := &listing{columns: columns}
				for _, d := range got.Items {
					row(l, d)
				}
				return l, nil
			}),
		newDatasetUploadCommand(), newDatasetMaintainCommand(), newDatasetWhyCommand())
	return cmd
}

func newDatasetWhyCommand() *cobra.Command {
	return remote(&cobra.Command{
		Use:   "why NAME",
		Short: "Say what an incomplete interval of a dataset waits for",
		Long: `Says for each partition of the hub up to when the dataset is complete, how far the readings
have come, and what the rows that come next wait for: which source of readings is behind, or
that the query has stopped. The dataset is complete until the earliest of these times.`,
		Example: "  fleetscore dataset why readings",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		var got api.List[aggregator.Status]
		if err := c.Get(ctx, "/queries", nil, &got); err != nil {
			return nil, err
		}
		l := &listing{columns: []string{"partition", "complete until", "watermark", "waits for"}}
		for _, q := range got.Items {
			for i, p := range q.Partitions {
				if q.Dataset == args[0] {
					l.add(waiting{i, p}, i, known(p.CompleteUntil), known(p.Watermark), p.Waits)
				}
			}
		}
		if len(l.rows) > 0 {
			return l, nil
		}
		var d api.Dataset
		if err := c.Get(ctx, "/datasets/"+url.PathEscape(args[0]), nil, &d); err != nil {
			return nil, err
		}
		why := "the rows of the next upload: no query writes this dataset"
		l.add(d, "", d.CompleteUntil, known(0), why)
		return l, nil
	})
}

// waiting is what a partition of a dataset waits for.
type waiting struct {
	Partition int `json:"partition"`
	aggregator.PartitionStatus
}

// known is a time; nil before the first.
func known(t fleetscore.Micros) *time.Time {
	if t == 0 {
		return nil
	}
	at := t.Time()
	return &at
}

func newDatasetMaintainCommand() *cobra.Command {
	dry := false
	cmd := remote(&cobra.Command{
		Use:   "maintain [NAME]",
		Short: "Join small files and delete files that are no longer needed",
		Long: `Takes rows out of a dataset that are older than its retention, joins small files,
and deletes files that a commit replaced a day ago or that no commit ever made
visible. Without a name all datasets, predictions and coverage are maintained, and
jobs that ended longer ago than their pipeline's history are forgotten with their
logs. Other rows don't change. A server does this by itself every ten minutes.

With --dry-run it only says what is older than its retention or beyond a bound of size
(docs/configuration.md): files of tables and logs, jobs of the history, and their size.`,
		Example: "  fleetscore dataset maintain readings\n  fleetscore dataset maintain --dry-run",
		Args:    cobra.MaximumNArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		query := url.Values{}
		if len(args) > 0 {
			query.Set("dataset", args[0])
		}
		if dry {
			query.Set("dry_run", "true")
		}
		var got api.List[catalog.Maintained]
		if err := c.Send(ctx, http.MethodPost, "/maintenance", query, "", nil, &got); err != nil {
			return nil, err
		}
		l := &listing{columns: []string{"table", "files", "joined", "into", "expired", "deleted", "bytes", "problem"}}
		for _, m := range got.Items {
			l.add(m, m.Table, m.Files, m.Replaced, m.By, m.Expired, m.Deleted, m.Bytes, m.Problem)
		}
		return l, nil
	})
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would be taken out")
	return cmd
}

// upload is one run of "dataset upload".
type upload struct {
	reading
	key, values              []string
	time, until, badRowsText string
	partRows                 int // sent at once, about; for tests
}

// uploadRows is how many rows are sent at once: a body far below what a server takes.
const uploadRows = 1 << 20

func newDatasetUploadCommand() *cobra.Command {
	u := upload{partRows: uploadRows}
	var cmd *cobra.Command
	cmd = remote(&cobra.Command{
		Use:   "upload NAME PATH…",
		Short: "Add rows of files to a dataset",
		Long: `Adds rows to a dataset. PATH is what fleetscore score takes as --data: CSV, JSON lines
and Parquet files, compressed or not, folders, patterns, Delta tables, stores' URLs, or -
for standard input. The time, key and value columns are those of the dataset; for a new
one those of the hub in fleet.yaml, or of --time, --key and --value.

A row with the time and key of one that is there takes its place, and of several such
rows in the files the last counts; sending the same files twice changes nothing. The
dataset is complete until its last row, or until --complete-until. Many rows are sent in
several parts, by time; after a failure the same command completes them.`,
		Example: "  fleetscore dataset upload history readings.csv\n  fleetscore dataset upload history 'lake/readings' --time ts --key device --value temperature",
		Args:    cobra.MinimumNArgs(2),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		return u.run(ctx, c, cmd, args[0], args[1:])
	})
	f := cmd.Flags()
	u.reading.addTo(cmd)
	f.StringSliceVar(&u.key, "key", nil, "key columns, e.g. Device,Tag; by default those of the dataset or of the hub")
	f.StringVar(&u.time, "time", "", "time column, e.g. TS; by default that of the dataset or of the hub")
	f.StringSliceVar(&u.values, "value", nil, "value columns; by default those of the dataset, or for a new one all others that hold numbers")
	f.StringVar(&u.until, "complete-until", "", "no row with this stamp or an earlier one is still expected")
	f.StringVar(&u.badRowsText, "bad-rows", "fail", "malformed rows: fail at the first, or skip:1% to leave out up to that share of them")
	return cmd
}

func (u *upload) run(ctx context.Context, c *client.Client, cmd *cobra.Command, name string, paths []string) (*listing, error) {
	opt, err := u.options()
	if err != nil {
		return nil, err
	}
	if opt.BadRows, err = parseBadRows(u.badRowsText); err != nil {
		return nil, err
	}
	var until *fleetscore.Micros
	if u.until != "" {
		t, err := table.ParseTime(u.until)
		if err != nil {
			return nil, usagef("--complete-until %s: not a time such as 2026-11-23T10:00:00Z", u.until)
		}
		until = &t
	}
	schema, err := u.schema(ctx, c, name)
	if err != nil {
		return nil, err
	}
	var end func()
	opt.Progress = new(atomic.Int64)
	end = startProgress(cmd.ErrOrStderr(), "reading", opt.Progress, rowfiles.Size(paths), "MB")
	in, err := rowfiles.Read(ctx, paths, cmd.InOrStdin(), schema, opt)
	end()
	if err != nil {
		if in != nil && in.Rejected > 0 {
			return nil, withHint(err, "correct the rows, or tolerate a share of malformed ones with --bad-rows skip:1%")
		}
		return nil, err
	}
	writeRejects(cmd.ErrOrStderr(), in)
	switch {
	case in.Rows.Len() == 0:
		return nil, fleetscore.Errorf(fleetscore.Invalid, "upload rows to dataset", name, "the files hold no rows")
	case len(in.Rows.ValueNames) == 0:
		return nil, fleetscore.Errorf(fleetscore.Invalid, "upload rows to dataset", name, "no column but time and key holds a number in the first row").
			WithHint("say which columns are values with --value")
	}
	done, err := u.send(ctx, c, name, in.Rows, until)
	if err != nil {
		return nil, err
	}
	if done.Nearest != "" {
		warn(cmd.ErrOrStderr(), []string{fmt.Sprintf("dataset %s is new, and no pipeline scores it; is %s meant?", name, done.Nearest)})
	}
	l := &listing{columns: []string{"dataset", "rows", "added", "replaced", "same", "repeated", "complete until"}, single: true}
	l.add(done, done.Dataset, done.Rows, done.Added, done.Replaced, done.Same, done.Repeated, done.CompleteUntil)
	return l, nil
}

// schema returns the columns to read: those of the flags, else those of the dataset,
// else those of the hub.
func (u *upload) schema(ctx context.Context, c *client.Client, name string) (table.Schema, error) {
	s := table.Schema{Time: u.time, Key: u.key, Values: u.values}
	var d api.Dataset
	err := c.Get(ctx, "/datasets/"+url.PathEscape(name), nil, &d)
	switch {
	case err == nil && d.Query != "":
		return s, fleetscore.Errorf(fleetscore.Conflict, "upload rows to dataset", name, "query %s writes it", d.Query).
			WithHint("upload under another name, and let a pipeline score that")
	case err == nil:
		s.Time = cmp.Or(s.Time, d.Time)
		if len(s.Key) == 0 {
			s.Key = d.Key
		}
		if len(s.Values) == 0 {
			s.Values = d.Values
		}
	case !fleetscore.NotFound.Is(err):
		return s, err
	}
	if s.Time != "" && len(s.Key) > 0 {
		return s, nil
	}
	if r, err := c.Open(ctx, "/config", nil); err == nil {
		defer r.Close()
		text, err := io.ReadAll(io.LimitReader(r, config.MaxBytes))
		if err != nil {
			return s, fleetscore.Wrap("read configuration", c.Server(), err)
		}
		cfg, err := config.Parse("/fleet.yaml", text) // the folder doesn't matter, because no path of the file is used
		if err != nil {
			return s, fleetscore.Errorf(fleetscore.Invalid, "read configuration", c.Server(), "the one in force can't be read by this release: %w", err).
				WithHint("say which columns are time and key with --time and --key")
		}
		s.Time = cmp.Or(s.Time, cfg.Hub.Time)
		if len(s.Key) == 0 {
			s.Key = cfg.Hub.Key
		}
	} else if !fleetscore.NotFound.Is(err) {
		return s, err
	}
	if s.Time == "" || len(s.Key) == 0 {
		return s, usagef("it isn't known which columns are time and key: there is no dataset %s and no configuration in force; say it with --time and --key", name)
	}
	return s, nil
}

// send sends the rows in parts, in the order of time. So when the dataset is complete
// until a time, all rows until then have been sent.
func (u *upload) send(ctx context.Context, c *client.Client, name string, rows *fleetscore.Rows, until *fleetscore.Micros) (api.Uploaded, error) {
	sum := api.Uploaded{Dataset: name}
	query := url.Values{"time": {rows.TimeName}, "key": {strings.Join(rows.KeyNames, ",")}, "values": {strings.Join(rows.ValueNames, ",")}}
	for part := range rows.PartsByTime(u.partRows) {
		var body bytes.Buffer
		if err := table.WriteRowsParquet(&body, part); err != nil {
			return sum, err
		}
		sum.Rows += int64(part.Len())
		if until != nil {
			at := *until
			if sum.Rows < int64(rows.Len()) {
				at = min(at, part.Times[part.Len()-1])
			}
			query.Set("complete_until", at.Time().Format(time.RFC3339Nano))
		}
		var done api.Uploaded
		if err := c.Send(ctx, http.MethodPost, "/datasets/"+url.PathEscape(name)+"/rows", query, api.ParquetType, bytes.NewReader(body.Bytes()), &done); err != nil {
			return sum, err
		}
		sum.Added, sum.Replaced, sum.Same, sum.Repeated = sum.Added+done.Added, sum.Replaced+done.Replaced, sum.Same+done.Same, sum.Repeated+done.Repeated
		sum.CompleteUntil, sum.Version, sum.Nearest = done.CompleteUntil, done.Version, cmp.Or(sum.Nearest, done.Nearest)
	}
	return sum, nil
}

// writeRejects says which malformed rows were left out, grouped by cause.
func writeRejects(w io.Writer, in *table.Input) {
	if in.Rejected == 0 {
		return
	}
	type cause struct {
		column, reason string
	}
	count, first := map[cause]int{}, map[cause]table.Reject{}
	var order []cause
	for _, r := range in.Rejects {
		k := cause{r.Column, r.Reason}
		if count[k]++; count[k] == 1 {
			first[k] = r
			order = append(order, k)
		}
	}
	slices.SortStableFunc(order, func(a, b cause) int { return count[b] - count[a] })
	fmt.Fprintf(w, "warning: %s malformed and left out, of %s\n", plural(int(in.Rejected), "row"), thousands(in.Records))
	const most = 10
	for i, k := range order {
		if i == most {
			fmt.Fprintf(w, "  and %s more\n", plural(len(order)-most, "cause"))
			return
		}
		r, where := first[k], ""
		if k.column != "" {
			where = "column " + k.column + ": "
		}
		fmt.Fprintf(w, "  %s: %s%s (such as %s, line %d: %q)\n", plural(count[k], "row"), where, k.reason, r.File, r.Line, r.Value)
	}
}

// withHint replaces the hint of an error.
func withHint(err error, hint string) error {
	if e, ok := errors.AsType[*fleetscore.Error](err); ok {
		return e.WithHint("%s", hint)
	}
	return err
}

// reading holds the flags that say how files of rows are read.
type reading struct {
	separator, decimal, unit string
}

// words are the names of the flags for messages.
var words = table.Words{Separator: "--separator", Decimal: "--decimal", TimeUnit: "--time-unit"}

func (r *reading) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.separator, "separator", "", "what separates the fields of CSV: a character, comma, semicolon, tab or space; guessed from the header if not given")
	f.StringVar(&r.decimal, "decimal", ".", "what stands before the decimals of numbers in CSV: . or ,")
	f.StringVar(&r.unit, "time-unit", "", "what times that are numbers count since 1970: s, ms, us or ns")
}

// options checks the flags.
func (r *reading) options() (table.ReadOptions, error) {
	opt := table.ReadOptions{TimeUnit: table.TimeUnit(r.unit), Say: words}
	if opt.TimeUnit.Validate() != nil {
		return opt, usagef("--time-unit %s: s, ms, us or ns are possible", r.unit)
	}
	if r.decimal != "." && r.decimal != "," {
		return opt, usagef("--decimal %s: . or , are possible", r.decimal)
	}
	opt.Decimal = r.decimal[0]
	text := r.separator
	for name, c := range map[string]string{"comma": ",", "semicolon": ";", "tab": "\t", `\t`: "\t", "space": " "} {
		if text == name {
			text = c
		}
	}
	switch {
	case text == "":
	case len(text) > 1 || text[0] >= 0x80 || text == "\"" || text == "\n" || text == "\r":
		return opt, usagef("--separator %s: one character, or comma, semicolon, tab or space are possible", r.separator)
	default:
		opt.Separator = text[0]
	}
	if opt.Separator == ',' && opt.Decimal == ',' {
		return opt, usagef("--separator and --decimal can't both be a comma")
	}
	return opt, nil
}

// newImageCommand returns the commands about the registry of container images.
func newImageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Container images in the server's registry"}
	say := func(format string) func(cmd *cobra.Command, image string) {
		return func(cmd *cobra.Command, image string) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", image) }
	}
	cmd.AddCommand(newImageListCommand(), newImageBuildCommand(), newImageCollectCommand(),
		imageChange("lock IMAGE", "Keep a tag from being moved or deleted", "team/scorer:v1", "/images/lock", map[string]any{"locked": true}, say("%s is locked")),
		imageChange("unlock IMAGE", "Let a locked tag be moved or deleted again", "team/scorer:v1", "/images/lock", map[string]any{"locked": false}, say("%s isn't locked any more")),
		imageChange("rm IMAGE", "Delete a tag, or an image by its digest with all its tags", "team/scorer:v1", "/images/remove", map[string]any{}, say("%s is removed; 'fleetscore image gc' frees its space")))
	return cmd
}

func newImageListCommand() *cobra.Command {
	return remote(&cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List the images", Example: "  fleetscore image ls", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var all api.List[images.Image]
			if err := c.Get(ctx, "/images", nil, &all); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"repository", "tags", "locked", "digest", "bytes", "pushed"}}
			for _, i := range all.Items {
				l.add(i, i.Repository, strings.Join(i.Tags, " "), strings.Join(i.Locked, " "), i.Digest, i.SizeBytes, i.Pushed)
			}
			return l, nil
		})
}

func newImageBuildCommand() *cobra.Command {
	var opt build.Options
	var entrypoint, command, to string
	var cmd *cobra.Command
	cmd = remote(&cobra.Command{Use: "build IMAGE", Short: "Make an image of a base, files and Python wheels, without a container engine",
		Long: `Puts Python wheels and files as layers on top of a base image, and pushes the result into
the server's registry as IMAGE, or writes it with --to. No container engine is needed. The same
input gives the same image with the same digest.

The base is scratch, a folder in OCI's image layout, an archive that docker save or docker
export wrote, or the name of an image as docker pull takes it. An image of the server's own
registry begins with the server's address. Passwords of other registries are those that docker
login keeps.

Wheels are unpacked as pip installs them, for the python3 of the base. Dependencies have to be
given as wheels too: pip download --only-binary :all: -d wheels PACKAGE gets all of them
(docs/docker.md).`,
		Example: "  fleetscore image build team/scorer:v1 --base python:3.12-slim --wheel wheels/*.whl --copy predict.py:/app/predict.py",
		Args:    cobra.MinimumNArgs(1)},
		func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
			for _, file := range args[1:] { // what the shell made of --wheel wheels/*.whl
				if !strings.HasSuffix(file, ".whl") {
					return nil, usagef("%s: one image is expected, and besides it only wheels", file)
				}
			}
			opt.Wheels = append(opt.Wheels, args[1:]...)
			var err error
			if opt.Entrypoint, err = programOf(entrypoint); err == nil {
				opt.Command, err = programOf(command)
			}
			if err != nil {
				return nil, err
			}
			opt.Server.Host, opt.Server.Transport = c.Registry()
			image, err := build.Build(ctx, opt)
			if err != nil {
				return nil, err
			}
			where := opt.Server.Host + "/" + args[0]
			if to != "" {
				where, err = to, image.Write(to, args[0])
			} else {
				err = image.Push(ctx, opt.Server, args[0])
			}
			if err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"image", "digest", "layers", "bytes"}, single: true}
			l.add(image, where, image.Digest, image.Layers, image.SizeBytes)
			warn(cmd.ErrOrStderr(), image.Warnings)
			return l, nil
		})
	f := cmd.Flags()
	f.StringVar(&opt.Base, "base", "", "what the image is based on: scratch, a folder, an archive or the name of an image")
	_ = cmd.MarkFlagRequired("base") // it exists
	f.StringVar(&opt.Platform, "platform", "", "platform of the base, such as linux/arm64; this machine's processor if not given")
	f.StringArrayVar(&opt.Copies, "copy", nil, "FROM:TO, a file or folder and its absolute path in the image; may be repeated")
	f.StringArrayVar(&opt.Wheels, "wheel", nil, "a Python wheel; may be repeated")
	f.StringVar(&opt.Python, "python", "", "the interpreter in the image that gets the wheels; the python3 of its PATH if not given")
	f.StringVar(&entrypoint, "entrypoint", "", "program and arguments that a container starts, with spaces between them or as a JSON list")
	f.StringVar(&command, "cmd", "", "arguments, or the program if there is no entry point, in the same form")
	f.StringArrayVar(&opt.Env, "env", nil, "NAME=VALUE, a variable of the environment; may be repeated")
	f.StringVar(&opt.User, "user", "", "user, or user:group, that a container has")
	f.StringVar(&opt.WorkDir, "workdir", "", "folder in which a container starts")
	f.StringToStringVar(&opt.Labels, "label", nil, "NAME=VALUE; may be repeated")
	f.StringVar(&to, "to", "", "don't push; write a .tar file for docker load, or a folder in OCI's image layout")
	return cmd
}

// programOf reads a program with its arguments: words, or a JSON list of texts.
func programOf(text string) (out []string, err error) {
	if !strings.HasPrefix(strings.TrimSpace(text), "[") {
		return strings.Fields(text), nil
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return nil, usagef("%s isn't a JSON list of texts", text)
	}
	return out, nil
}

// imageChange is a command that changes one image.
func imageChange(use, short, example, path string, in map[string]any, done func(cmd *cobra.Command, image string)) *cobra.Command {
	verb, _, _ := strings.Cut(use, " ")
	return &cobra.Command{Use: use, Short: short, Example: "  fleetscore image " + verb + " " + example, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			in["image"] = args[0]
			if err := c.Post(cmd.Context(), path, in, nil); err != nil {
				return err
			}
			done(cmd, args[0])
			return nil
		}}
}

func newImageCollectCommand() *cobra.Command {
	var dryRun bool
	cmd := remote(&cobra.Command{Use: "gc", Short: "Remove images that have no tag and that nobody needs, and what only they needed",
		Long: `Removes images without a tag, and layers that no image needs. An image stays without a tag if
a pool of the configuration in force names it by its digest, if a job runs in it, or if results
are kept that were made with it. What was pushed within the last hour stays too, because its
push may not have ended.`,
		Example: "  fleetscore image gc --dry-run", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var out images.Collected
			if err := c.Post(ctx, "/images/gc", map[string]any{"dry_run": dryRun}, &out); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"images", "blobs", "bytes", "kept without a tag"}, single: true}
			l.add(out, len(out.Images), out.Blobs, out.SizeBytes, out.Kept)
			return l, nil
		})
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "remove nothing, only say what would be removed")
	return cmd
}
