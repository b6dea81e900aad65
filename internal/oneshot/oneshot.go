// Package oneshot scores a fleet over files in one call: it reads rows and models,
// scores them on all cores, and writes predictions, coverage and a manifest into a
// folder, the manifest last.
//
// It keeps no state after a call, doesn't depend on servers and jobs, and prints
// nothing: the caller shows messages to people. All goroutines of a call have ended
// when the call returns.
package oneshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/files"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/table/ipc"
)

// Config says what to score, how, and where the results go.
type Config struct {
	Data         []string                 // the arguments of files.Read: files, folders, patterns, Delta tables, URLs of stores, or "-"
	Stdin        io.Reader                // the rows for "-"; may be nil
	Separator    byte                     // between fields in CSV; 0: guessed
	Decimal      byte                     // the decimal separator in CSV; 0: a point
	TimeUnit     table.TimeUnit           // the unit of times that are numbers
	Models       string                   // the folder of models: a path, or the URL of a store
	Template     string                   // the template of models' names
	Sensors      string                   // a list of sensors and their models, a file in the models' folder; may be empty
	Key          []string                 // the key columns
	Time         string                   // the time column; empty: the rows have none, and stay in their order
	Features     []string                 // the features' columns; "Val=Value" renames one
	FeaturesBy   fleetscore.FeatureOrder  // whether models with feature names get columns by name; empty means yes
	Label        string                   // a column with the true labels, which is copied to the results; may be empty
	From, To     *fleetscore.Micros       // only rows in (From, To] are scored; nil means no bound
	Missing      fleetscore.MissingRule   // what happens to rows without a feature's value
	BadRows      fleetscore.Percent       // the share of malformed rows that are left out; 0 means none
	ModelTimeout time.Duration            // the time limit for one sensor; 0 means 10 s
	Runtime      fleetscore.RuntimeName   // how models are scored; empty means native
	Foreign      scorer.Foreign           // scores the models that Runtime gives to Python; may be nil for native
	Whole        bool                     // Foreign is given all of its sensors at once
	Workers      int                      // the number of goroutines; 0 means the number of cores
	Out          string                   // the folder for results: a path, or the URL of a store
	Format       string                   // the format of the predictions: one of Formats
	Frame        *Frame                   // takes the place of Data, Out and ResultsOnly, if it isn't nil
	ResultsOnly  bool                     // the predictions have a row for each row of the data, and only the columns Prediction and Score
	Version      string                   // the program's version, for the manifest
	Log          func(string, ...any)     // takes a line for each sensor that wasn't scored; may be nil
	Stage        func(Stage) (end func()) // called when a stage begins; may be nil
}

// Stage is a part of the work, which callers show as progress.
type Stage struct {
	Name  string // reading, scoring, writing
	Total int64  // 0 if unknown
	Unit  string // the unit of Total: MB (then Total is in bytes), sensors or rows
	Done  *atomic.Int64
}

// Manifest is the content of manifest.json: the inputs, the settings and the results of
// a call.
type Manifest struct {
	Version    string                  `json:"version"`
	Started    time.Time               `json:"started"`
	Ended      time.Time               `json:"ended"`
	Data       []string                `json:"data"`
	Models     string                  `json:"models"`
	Template   string                  `json:"model,omitempty"`
	Generation fleetscore.GenerationID `json:"generation,omitempty"` // the generation of a pack
	Key        []string                `json:"key"`
	Time       string                  `json:"time,omitempty"`
	Features   []string                `json:"features"`
	Runtime    fleetscore.RuntimeName  `json:"runtime,omitempty"`
	FeaturesBy fleetscore.FeatureOrder `json:"features_by,omitempty"`
	Label      string                  `json:"label,omitempty"`
	Missing    fleetscore.MissingRule  `json:"missing,omitempty"`
	From       *fleetscore.Micros      `json:"from,omitempty"`
	To         *fleetscore.Micros      `json:"to,omitempty"`
	Files      map[string]FileInfo     `json:"files"`
	RowsRead   int64                   `json:"rows_read"`     // the well-formed rows of the interval
	Rejected   int64                   `json:"rejected_rows"` // the malformed rows; rejected.csv lists them with reasons
	LeftOut    int64                   `json:"left_out_rows"` // the rows without a feature's value
	Rows       int64                   `json:"rows"`          // the number of predictions
	Anomalies  int64                   `json:"anomalies"`
	Sensors    int64                   `json:"sensors"`
	Outcomes   fleetscore.Counts       `json:"outcomes"`
	Causes     []scorer.Cause          `json:"causes"` // why sensors failed, timed out or have no model, most sensors first
	Degenerate []string                `json:"degenerate"`
	Ignored    []string                `json:"ignored_models"`
	Seconds    map[string]float64      `json:"seconds"`     // wall time of each stage
	CPUSeconds map[string]float64      `json:"cpu_seconds"` // processor time of each stage, all cores together
	First      fleetscore.Micros       `json:"-"`           // the first and the last stamp of the rows
	Last       fleetscore.Micros       `json:"-"`
}

// FileInfo describes a result file.
type FileInfo struct {
	SizeBytes int64  `json:"size_bytes"`
	SHA256    string `json:"sha256"`
}

const opScore = "score files"

// Formats are the formats of results.
var Formats = []string{"csv", "parquet", "arrow"}

// run holds the state of one call.
type run struct {
	cfg     Config
	m       *Manifest
	out     *Folder
	buffers scorer.Buffers
	noted   sync.Mutex // guards the maps of m: stages may run, and files be written, at the same time
}

// Run scores a fleet. It fails if nothing could be scored at all because rows, models
// or space are missing. The outcome of each sensor is in the manifest and in the
// coverage.
func Run(ctx context.Context, cfg Config) (*Manifest, error) {
	if !slices.Contains(Formats, cfg.Format) {
		return nil, fleetscore.Errorf(fleetscore.Invalid, opScore, cfg.Format, "predictions are written as %s", strings.Join(Formats, ", "))
	}
	if err := errors.Join(cfg.Missing.Validate(), cfg.FeaturesBy.Validate(), cfg.checkColumns()); err != nil {
		return nil, err
	}
	r := &run{cfg: cfg, m: &Manifest{Version: cfg.Version, Started: time.Now().UTC(), Data: cfg.Data, Models: cfg.Models, Template: cfg.Template,
		Key: cfg.Key, Time: cfg.Time, Features: cfg.Features, Runtime: cfg.Runtime, FeaturesBy: cfg.FeaturesBy, Label: cfg.Label, Missing: cfg.Missing, From: cfg.From, To: cfg.To,
		Files: map[string]FileInfo{}, Degenerate: []string{}, Ignored: []string{}, Seconds: map[string]float64{}, CPUSeconds: map[string]float64{}}}
	if cfg.Frame != nil {
		err := r.scoreFrame(ctx)
		r.m.Ended = time.Now().UTC()
		return r.m, err
	}
	models, err := r.models(ctx)
	if err != nil {
		return nil, err
	}
	defer models.Close()
	in, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	if r.out, err = OpenFolder(ctx, cfg.Out); err != nil {
		return nil, err
	}
	// Remove all results of an earlier run. The manifest goes first, because it lists
	// the others.
	old := []string{manifestName, rejectedName}
	for _, f := range Formats {
		old = append(old, "predictions."+f, "coverage."+f)
	}
	for _, name := range old {
		if err := r.out.remove(ctx, name); err != nil {
			return nil, err
		}
	}
	if err := r.out.removeOutput(ctx); err != nil {
		return nil, err
	}
	result, err := r.score(ctx, in, models)
	if err != nil {
		return nil, err
	}
	r.count(in, result)
	if cfg.ResultsOnly {
		result.Predictions.Rows = fleetscore.Rows{Keys: in.Rows.Keys, KeyIndex: in.Rows.KeyIndex, Times: in.Rows.Times}
	}
	return r.m, r.write(ctx, in, result)
}

// checkColumns refuses predictions with two columns of one name.
func (c *Config) checkColumns() error {
	if c.Time == "" && (c.From != nil || c.To != nil) {
		return fleetscore.Errorf(fleetscore.Invalid, opScore, "", "rows of an interval can't be found without a time column").WithHint("name it with --time")
	}
	if c.ResultsOnly && (c.From != nil || c.To != nil || c.BadRows > 0) {
		return fleetscore.Errorf(fleetscore.Invalid, opScore, "", "with --results-only no row may be left out, because each line of the results belongs to the row at its place").
			WithHint("leave out --results-only, or --from, --to and --bad-rows skip")
	}
	from := map[string]string{"Prediction": "", "Score": ""} // the results' columns and their sources
	if c.Time != "" {
		from[c.Time] = c.Time
	}
	for _, k := range c.Key {
		from[k] = k
	}
	for _, f := range c.Features {
		name, column := fleetscore.SplitFeature(f)
		if name == "" || column == "" {
			return fleetscore.Errorf(fleetscore.Invalid, opScore, f, "a feature must be a column, or Name=column")
		}
		if _, twice := from[name]; twice {
			e := fleetscore.Errorf(fleetscore.Invalid, opScore, f, "the predictions would have two columns %s", name)
			if c.Frame != nil {
				return e.WithHint("rename the column of the DataFrame, or leave the feature out")
			}
			return e.WithHint("rename the feature on output: Other=%s", column)
		}
		from[name] = column
	}
	if column, twice := from[c.Label]; twice && column != c.Label {
		return fleetscore.Errorf(fleetscore.Invalid, opScore, c.Label, "the predictions would have two columns with the label's name")
	}
	return nil
}

// stage begins a stage. The function end records its time.
func (r *run) stage(name string, total int64, unit string) (done *atomic.Int64, end func()) {
	began, spent, shown := time.Now(), cpuTime(), func() {}
	done = new(atomic.Int64)
	if r.cfg.Stage != nil {
		shown = r.cfg.Stage(Stage{name, total, unit, done})
	}
	return done, func() {
		shown()
		r.noted.Lock()
		defer r.noted.Unlock()
		r.m.Seconds[name] = time.Since(began).Round(time.Millisecond).Seconds()
		r.m.CPUSeconds[name] = (cpuTime() - spent).Round(time.Millisecond).Seconds()
	}
}

// cpuTime returns the processor time of this process so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// models opens the folder of models or the pack.
func (r *run) models(ctx context.Context) (fleet.Source, error) {
	spec := fleet.Spec{KeyNames: r.cfg.Key} // a pack needs nothing else
	named := r.cfg.Template != "" || r.cfg.Sensors != ""
	if named {
		var err error
		if spec, err = fleet.SpecOf("", fleetscore.FleetConfig{Model: r.cfg.Template, Sensors: r.cfg.Sensors}, r.cfg.Key); err != nil {
			return nil, err
		}
	}
	_, end := r.stage("models", 0, "models")
	defer end()
	var b store.Bucket
	var err error
	if strings.Contains(r.cfg.Models, "://") {
		b, err = store.Open(ctx, r.cfg.Models)
	} else {
		b, err = store.OpenFolder(r.cfg.Models)
	}
	if err != nil {
		if e, ok := errors.AsType[*fleetscore.Error](err); ok {
			return nil, e.WithHint("set --models to the folder that holds the models, or to a pack of them")
		}
		return nil, err
	}
	models, err := fleet.Open(ctx, b, spec)
	if err != nil {
		return nil, err
	}
	switch m := models.(type) {
	case *fleet.Pack:
		r.m.Ignored, r.m.Generation = append(r.m.Ignored, m.Generation().Ignored...), m.Generation().ID
	case *fleet.Folder:
		if !named {
			return nil, fleetscore.Errorf(fleetscore.Invalid, opScore, r.cfg.Models, "the folder isn't a pack, so the names of the models must be given").
				WithHint("name them with --model, for example 'model_{%s}', or list sensors and models in a file and name that with --sensors", strings.Join(r.cfg.Key, "}_{"))
		}
		r.m.Ignored = append(r.m.Ignored, m.Ignored...)
	}
	return models, nil
}

// columns says which columns of the rows are read, and how.
func (r *run) columns() (schema table.Schema, opt table.ReadOptions, err error) {
	schema = table.Schema{Time: r.cfg.Time, Key: r.cfg.Key, Untimed: r.cfg.Time == ""}
	for _, f := range r.cfg.Features {
		if _, column := fleetscore.SplitFeature(f); !slices.Contains(schema.Values, column) {
			schema.Values = append(schema.Values, column)
		}
	}
	if l := r.cfg.Label; l != "" && !slices.Contains(schema.Values, l) {
		schema.Values = append(schema.Values, l)
	}
	opt = table.ReadOptions{BadRows: r.cfg.BadRows, Workers: r.cfg.Workers, Separator: r.cfg.Separator, Decimal: r.cfg.Decimal, TimeUnit: r.cfg.TimeUnit,
		Say: table.Words{Separator: "--separator", Decimal: "--decimal", TimeUnit: "--time-unit"}}
	if r.cfg.From != nil || r.cfg.To != nil {
		iv := fleetscore.Interval{From: time.Unix(-1<<40, 0), To: time.Unix(1<<40, 0)}
		if r.cfg.From != nil {
			iv.From = r.cfg.From.Time()
		}
		if r.cfg.To != nil {
			iv.To = r.cfg.To.Time()
		}
		if err := iv.Validate(); err != nil {
			return schema, opt, err
		}
		opt.Interval = &iv
	}
	return schema, opt, nil
}

func (r *run) read(ctx context.Context) (*table.Input, error) {
	schema, opt, err := r.columns()
	if err != nil {
		return nil, err
	}
	done, end := r.stage("reading", files.Size(r.cfg.Data), "MB")
	defer end()
	opt.Progress = done
	in, err := files.Read(ctx, r.cfg.Data, r.cfg.Stdin, schema, opt)
	if e, ok := errors.AsType[*fleetscore.Error](err); ok && in != nil && in.Rejected > 0 {
		return nil, e.WithHint("correct the rows, or allow a share of malformed rows with --bad-rows skip:1%%")
	}
	return in, err
}

func (r *run) score(ctx context.Context, in *table.Input, models fleet.Source) (*scorer.Result, error) {
	done, end := r.stage("scoring", int64(len(in.Rows.Keys)), "sensors")
	defer end()
	position := "--features-by position"
	if r.cfg.Frame != nil {
		position = `features_by="position"`
	}
	return scorer.Score(ctx, scorer.Spec{Features: r.cfg.Features, FeaturesBy: r.cfg.FeaturesBy, PositionOption: position, Label: r.cfg.Label, Missing: r.cfg.Missing, AllRows: r.cfg.ResultsOnly || r.cfg.Frame != nil,
		Buffers: r.buffers, ModelTimeout: r.cfg.ModelTimeout, Workers: r.cfg.Workers, Log: r.cfg.Log, Progress: done,
		Use: r.cfg.Runtime, Foreign: r.cfg.Foreign, Whole: r.cfg.Whole}, in.Rows, models.Keys(), models)
}

func (r *run) count(in *table.Input, result *scorer.Result) {
	m := r.m
	m.RowsRead, m.Rejected, m.LeftOut = int64(in.Rows.Len()), in.Rejected, result.LeftOut
	m.Causes = result.Causes
	m.Outcomes, m.Sensors = result.Counts(), int64(len(result.Items))
	for i := range result.Items {
		it := &result.Items[i]
		m.Anomalies += it.Anomalies
		m.Rows += it.Rows
		if r.cfg.Time == "" {
			it.First, it.Last = 0, 0
		}
		if it.First == 0 && it.Last == 0 {
			continue // the sensor has no rows
		}
		if m.First == 0 && m.Last == 0 {
			m.First, m.Last = it.First, it.Last
		}
		m.First, m.Last = min(m.First, it.First), max(m.Last, it.Last)
	}
	for _, k := range result.Degenerate {
		m.Degenerate = append(m.Degenerate, k.String())
	}
}

func (r *run) write(ctx context.Context, in *table.Input, result *scorer.Result) error {
	done, end := r.stage("writing", r.m.Rows, "rows")
	coverage := make(chan error, 1) // it is written at the same time
	go func() {
		coverage <- r.file(ctx, "coverage."+r.cfg.Format, func(w io.Writer) error { return r.writeCoverage(w, in, result) })
	}()
	err := r.file(ctx, "predictions."+r.cfg.Format, func(w io.Writer) error {
		switch r.cfg.Format {
		case "parquet":
			return table.WriteParquet(w, result.Predictions)
		case "arrow":
			return ipc.WritePredictions(w, result.Predictions)
		}
		return table.WriteCSV(w, result.Predictions, table.WriteOptions{Layout: in.Layout, Workers: r.cfg.Workers, Progress: done})
	})
	if e := <-coverage; err == nil {
		err = e
	}
	if err == nil && in.Rejected > 0 {
		err = r.file(ctx, rejectedName, func(w io.Writer) error { return table.WriteRejectsCSV(w, in.Rejects) })
	}
	end()
	if err != nil {
		return err
	}
	r.m.Ended = time.Now().UTC()
	_, err = r.out.Write(ctx, manifestName, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r.m)
	})
	return err
}

func (r *run) writeCoverage(w io.Writer, in *table.Input, result *scorer.Result) error {
	switch r.cfg.Format {
	case "parquet":
		return table.WriteItemsParquet(w, r.cfg.Key, result.Items)
	case "arrow":
		return ipc.WriteItems(w, r.cfg.Key, result.Items)
	}
	return table.WriteItemsCSV(w, r.cfg.Key, result.Items, in.Layout)
}

// file writes a result file and records it in the manifest.
func (r *run) file(ctx context.Context, name string, fill func(io.Writer) error) error {
	info, err := r.out.Write(ctx, name, func(w io.Writer) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return fill(&stoppable{ctx, w})
	})
	if err == nil {
		r.noted.Lock()
		defer r.noted.Unlock()
		r.m.Files[name] = info
	}
	return err
}

// stoppable is a writer that stops when the context ends.
type stoppable struct {
	ctx context.Context
	w   io.Writer
}

func (s *stoppable) Write(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, fmt.Errorf("stopped: %w", err)
	}
	return s.w.Write(p)
}
