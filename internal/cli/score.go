package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// scoring is one run of the one-shot command.
type scoring struct {
	data, models, template, time, out, format string
	key, features                             []string
	label, from, to                           string
	modelTimeout                              time.Duration
}

func newScoreCommand() *cobra.Command {
	var s scoring
	cmd := &cobra.Command{
		Use:   "score",
		Short: "Score a file or folder of rows at once, each sensor with its own model",
		Long: `Scores rows in one process, on all cores: every sensor's rows with its own model,
found by the template of the models' names. Writes into the folder --out:

  predictions.csv   time, key columns, features, Prediction (1 anomaly, 0 normal), Score
  coverage.csv      how every sensor ended, and why
  manifest.json     counts and settings; written last, so it marks a whole result

Rows keep their order. Without rows a sensor with a model ends as no_data,
without a model a sensor with rows as no_model: no sensor is passed over.

Exit codes: 0 every sensor with rows was scored, 3 some were not, 1 none was.`,
		Example: `  fleetscore score --data sensor_data.csv --models models --model 'model_{Device}_{Tag}' \
    --key Device,Tag --time TS --feature Val=Value --out scored`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.data, "data", "", "rows: a .csv, .ndjson, .jsonl or .parquet file, a folder of them, or a Delta table")
	f.StringVar(&s.models, "models", "", "folder with the models")
	f.StringVar(&s.template, "model", "", "template of a model's name, e.g. 'model_{Device}_{Tag}'")
	f.StringSliceVar(&s.key, "key", nil, "key columns, e.g. Device,Tag")
	f.StringVar(&s.time, "time", "", "time column, e.g. TS")
	f.StringSliceVar(&s.features, "feature", nil, "feature columns in the models' order; Val=Value renames Value to Val on output")
	f.StringVar(&s.label, "label", "", "column with the truth, to pass on to the predictions")
	f.StringVar(&s.from, "from", "", "only rows after this time, e.g. 2026-11-23T09:00:00Z")
	f.StringVar(&s.to, "to", "", "only rows until this time, itself included")
	f.StringVar(&s.out, "out", "", "folder for the results; made if absent")
	f.StringVar(&s.format, "format", "csv", "form of the predictions: csv or parquet")
	f.DurationVar(&s.modelTimeout, "model-timeout", 10*time.Second, "time that loading and scoring of one sensor may take")
	for _, name := range []string{"data", "models", "model", "key", "time", "feature", "out"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	return cmd
}

// manifest is manifest.json: what was done with what.
type manifest struct {
	Version    string              `json:"version"`
	Started    time.Time           `json:"started"`
	Ended      time.Time           `json:"ended"`
	Data       string              `json:"data"`
	Models     string              `json:"models"`
	Template   string              `json:"model"`
	Key        []string            `json:"key"`
	Time       string              `json:"time"`
	Features   []string            `json:"features"`
	From       *fleetscore.Micros  `json:"from,omitempty"`
	To         *fleetscore.Micros  `json:"to,omitempty"`
	Files      map[string]fileInfo `json:"files"`
	RowsRead   int64               `json:"rows_read"`
	Rows       int64               `json:"rows"`
	Anomalies  int64               `json:"anomalies"`
	Sensors    int64               `json:"sensors"`
	Outcomes   fleetscore.Counts   `json:"outcomes"`
	Degenerate []string            `json:"degenerate"`
	Ignored    []string            `json:"ignored_models"`
}

type fileInfo struct {
	SizeBytes int64  `json:"size_bytes"`
	SHA256    string `json:"sha256"`
}

func (s *scoring) run(ctx context.Context, stdout, stderr io.Writer) error {
	m := manifest{Version: Version, Started: time.Now().UTC(), Data: s.data, Models: s.models, Template: s.template,
		Key: s.key, Time: s.time, Features: s.features, Files: map[string]fileInfo{}, Degenerate: []string{}, Ignored: []string{}}
	iv, err := s.interval(&m)
	if err != nil {
		return err
	}
	folder, err := s.scan(ctx)
	if err != nil {
		return err
	}
	rows, layout, err := table.ReadPath(ctx, s.data, s.schema(), table.ReadOptions{Interval: iv})
	if err != nil {
		return err
	}
	m.RowsRead = int64(rows.Len())
	out, err := openResult(s.out)
	if err != nil {
		return err
	}
	notes := 0
	result, err := scorer.Score(ctx, scorer.Spec{Features: s.features, Label: s.label, ModelTimeout: s.modelTimeout,
		Log: func(format string, args ...any) {
			const most = 20 // coverage.csv has them all
			if notes++; notes <= most {
				fmt.Fprintf(stderr, format+"\n", args...)
			}
			if notes == most {
				fmt.Fprintln(stderr, "…; coverage.csv has the rest")
			}
		}}, rows, folder.Keys(), folder)
	if err != nil {
		return err
	}
	m.count(result, folder)
	if err := s.write(out, &m, result, layout); err != nil {
		return err
	}
	s.summary(stdout, &m, result)
	return verdict(m.Outcomes)
}

// interval reads --from and --to; nil if neither is given.
func (s *scoring) interval(m *manifest) (*fleetscore.Interval, error) {
	if s.format != "csv" && s.format != "parquet" {
		return nil, usagef("--format %s: csv or parquet are possible", s.format)
	}
	if s.from == "" && s.to == "" {
		return nil, nil
	}
	iv := fleetscore.Interval{From: time.Unix(-1<<40, 0), To: time.Unix(1<<40, 0)}
	for _, p := range []struct {
		flag, text string
		to         *time.Time
		keep       **fleetscore.Micros
	}{{"--from", s.from, &iv.From, &m.From}, {"--to", s.to, &iv.To, &m.To}} {
		if p.text == "" {
			continue
		}
		t, err := table.ParseTime(p.text)
		if err != nil {
			return nil, usagef("%s %s: not a time such as 2026-11-23T10:00:00Z", p.flag, p.text)
		}
		*p.to, *p.keep = t.Time(), &t
	}
	return &iv, iv.Validate()
}

func (s *scoring) schema() table.Schema {
	schema := table.Schema{Time: s.time, Key: s.key}
	for _, f := range s.features {
		if _, column := fleetscore.SplitFeature(f); !slices.Contains(schema.Values, column) {
			schema.Values = append(schema.Values, column)
		}
	}
	if s.label != "" && !slices.Contains(schema.Values, s.label) {
		schema.Values = append(schema.Values, s.label)
	}
	return schema
}

func (s *scoring) scan(ctx context.Context) (*fleet.Folder, error) {
	t, err := fleet.ParseTemplate(s.template, s.key)
	if err != nil {
		return nil, err
	}
	b, err := store.OpenFolder(s.models)
	if err != nil {
		if e, ok := errors.AsType[*fleetscore.Error](err); ok {
			return nil, e.WithHint("give --models the folder that holds the models")
		}
		return nil, err
	}
	return fleet.Scan(ctx, b, t)
}

func (m *manifest) count(r *scorer.Result, folder *fleet.Folder) {
	m.Outcomes, m.Sensors, m.Rows = r.Counts(), int64(len(r.Items)), int64(r.Predictions.Len())
	for _, it := range r.Items {
		m.Anomalies += it.Anomalies
	}
	for _, k := range r.Degenerate {
		m.Degenerate = append(m.Degenerate, k.String())
	}
	m.Ignored = append(m.Ignored, folder.Ignored...)
}

// resultFolder is --out.
type resultFolder struct{ path string }

// openResult makes the folder and takes back the manifest of an earlier result,
// which would vouch for files that are about to change.
func openResult(path string) (resultFolder, error) {
	r := resultFolder{path}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return r, r.problem(err)
	}
	if err := os.Remove(filepath.Join(path, "manifest.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return r, r.problem(err)
	}
	return r, nil
}

func (r resultFolder) problem(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fleetscore.Errorf(fleetscore.Exhausted, "write results", r.path, "the disk is full").WithHint("make room, or give --out a folder on another disk")
	}
	return fleetscore.Errorf(fleetscore.Unavailable, "write results", r.path, "%w", err).WithHint("check the folder's permissions, or give --out another one")
}

// write writes one file whole: under a temporary name, synced, renamed.
func (r resultFolder) write(name string, fill func(io.Writer) error) (info fileInfo, err error) {
	path := name
	if !filepath.IsAbs(name) {
		path = filepath.Join(r.path, name)
	}
	f, err := os.Create(path + ".part")
	if err != nil {
		return info, r.problem(err)
	}
	defer os.Remove(f.Name())
	h := newHashing(f)
	err = fill(h)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return info, r.problem(err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return info, r.problem(err)
	}
	return h.info(), nil
}

func (s *scoring) write(out resultFolder, m *manifest, r *scorer.Result, layout table.Layout) error {
	name := "predictions." + s.format
	var err error
	m.Files[name], err = out.write(name, func(w io.Writer) error {
		if s.format == "parquet" {
			return table.WriteParquet(w, r.Predictions)
		}
		return table.WriteCSV(w, r.Predictions, layout)
	})
	if err != nil {
		return err
	}
	m.Files["coverage.csv"], err = out.write("coverage.csv", func(w io.Writer) error { return table.WriteItemsCSV(w, s.key, r.Items) })
	if err != nil {
		return err
	}
	m.Ended = time.Now().UTC()
	_, err = out.write("manifest.json", func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(m)
	})
	return err
}

func (s *scoring) summary(w io.Writer, m *manifest, r *scorer.Result) {
	b := bufio.NewWriter(w)
	defer b.Flush()
	fmt.Fprintf(b, "%s rows of %s sensors scored in %s on %d cores\n", thousands(m.Rows), thousands(m.Outcomes[fleetscore.Scored]),
		m.Ended.Sub(m.Started).Round(time.Millisecond), runtime.GOMAXPROCS(0))
	if first, last := span(r.Items); first != 0 {
		fmt.Fprintf(b, "  from       %s to %s\n", first, last)
	}
	share := ""
	if m.Rows > 0 {
		share = fmt.Sprintf(" (%.1f %% of the rows)", 100*float64(m.Anomalies)/float64(m.Rows))
	}
	fmt.Fprintf(b, "  anomalies  %s%s\n", thousands(m.Anomalies), share)
	fmt.Fprintf(b, "  sensors    %s\n", outcomeList(m.Outcomes))
	if n := len(m.Degenerate); n > 0 {
		fmt.Fprintf(b, "  warning    %s flag every row or none whatever the data: %s\n", plural(n, "model"), shortList(m.Degenerate))
	}
	if n := len(m.Ignored); n > 0 {
		fmt.Fprintf(b, "  warning    %s in %s fit no sensor's name: %s\n", plural(n, "file"), s.models, shortList(m.Ignored))
	}
	fmt.Fprintf(b, "  results    %s\n", filepath.Join(s.out, "{predictions."+s.format+", coverage.csv, manifest.json}"))
}

// span is the first and last stamp of the items' rows.
func span(items []fleetscore.Item) (first, last fleetscore.Micros) {
	for _, it := range items {
		if it.First != 0 && (first == 0 || it.First < first) {
			first = it.First
		}
		last = max(last, it.Last)
	}
	return first, last
}

func outcomeList(c fleetscore.Counts) string {
	var parts []string
	for _, o := range fleetscore.Outcomes {
		if n := c[o]; n > 0 || o == fleetscore.Scored {
			parts = append(parts, thousands(n)+" "+string(o))
		}
	}
	return strings.Join(parts, ", ")
}

func shortList(names []string) string {
	const most = 8
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// verdict turns outcomes into the exit code: a sensor with rows that wasn't
// scored makes the result partly failed.
func verdict(c fleetscore.Counts) error {
	bad := c.Total() - c[fleetscore.Scored] - c[fleetscore.NoData] - c[fleetscore.Excluded]
	switch {
	case bad == 0:
		return nil
	case c[fleetscore.Scored] == 0:
		return exitError(exitFailed)
	}
	return exitError(exitPartly)
}

// pathCause drops the operation and path that a message names already.
func pathCause(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}
