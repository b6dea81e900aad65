package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/client"
	rowfiles "github.com/fleetscore/fleetscore/internal/files"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/fleet/versions"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/verify"
	"github.com/fleetscore/fleetscore/sklearn"
)

func newModelCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "model", Short: "Look at models, check a fleet of them, push them to a server, compare with scikit-learn"}
	cmd.AddCommand(newModelInspectCommand(), newModelCheckCommand(), newModelVerifyCommand(), newModelPackCommand(), newModelDiffCommand(),
		newModelPushCommand(), newModelVersionsCommand(), newModelRollbackCommand())
	return cmd
}

// inspected is one model as "model inspect -o json" shows it.
type inspected struct {
	File      string            `json:"file"`
	SizeBytes int64             `json:"size_bytes"`
	Digest    fleetscore.Digest `json:"digest"`
	Model     *sklearn.Info     `json:"model,omitempty"`
	Error     string            `json:"error,omitempty"` // why it can't be scored
}

func newModelInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect FILE|DIR...",
		Short: "Show what is in models' files and whether they can be scored, without running them",
		Long: `Reads scikit-learn models as data and shows their estimators, the releases that
wrote them, and what is wrong with them. Nothing in a file is executed: a class
that isn't known to be harmless is refused by name. Of a folder, all files in it
are shown, but for names that start with "." or "_".

Exit codes: 0 all can be scored, 3 some can't, 1 none can.`,
		Example: "  fleetscore model inspect models/model_1_1\n  fleetscore model inspect models -o json",
		Args:    cobra.MinimumNArgs(1),
		RunE:    inspectModels,
	}
	addOutputFlag(cmd)
	return cmd
}

func inspectModels(cmd *cobra.Command, names []string) error {
	l := listing{columns: []string{"file", "estimators", "features", "feature names", "support vectors", "scikit-learn", "health"}, single: true}
	var files []string
	for _, name := range names {
		if err := filepath.WalkDir(name, func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil && p == name:
				files = append(files, p) // inspect says why
				return nil
			case err != nil:
				return fleetscore.Errorf(fleetscore.Unavailable, "list models", p, "%w", pathCause(err))
			case p != name && (d.Name()[0] == '.' || d.Name()[0] == '_'):
				if d.IsDir() {
					return fs.SkipDir
				}
			case !d.IsDir():
				files = append(files, p)
			}
			return cmd.Context().Err()
		}); err != nil {
			return err
		}
	}
	if len(files) == 0 {
		return fleetscore.Errorf(fleetscore.NotFound, "list models", strings.Join(names, " "), "there is no file")
	}
	bad := 0
	for _, file := range files {
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		m, err := inspect(file)
		if err != nil {
			bad++
			m.Error = err.Error()
			l.add(m, file, "", "", "", "", "", m.Error)
			continue
		}
		i := m.Model
		health := "good"
		if len(i.Health) > 0 {
			var all []string
			for _, f := range i.Health {
				all = append(all, f.Message)
			}
			health = strings.Join(all, "; ")
		}
		l.add(m, file, i.Chain(), i.Features, shortList(i.FeatureNames), i.SupportVectors, strings.Join(i.Versions, ", "), health)
	}
	if err := l.print(cmd); err != nil {
		return err
	}
	return partly(int64(len(files)-bad), int64(len(files)))
}

// partly returns the exit code when good of all models have no problem.
func partly(good, all int64) error {
	switch good {
	case all:
		return nil
	case 0:
		return exitError(exitFailed)
	}
	return exitError(exitPartly)
}

func inspect(file string) (inspected, error) {
	out := inspected{File: file}
	st, err := os.Stat(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return out, fleetscore.Errorf(fleetscore.NotFound, "read model", file, "there is no such file")
	case err == nil && st.Size() > fleet.MaxModelBytes:
		return out, fleetscore.Errorf(fleetscore.Invalid, "read model", file, "it has %d bytes, more than the %d allowed", st.Size(), int64(fleet.MaxModelBytes))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return out, fleetscore.Errorf(fleetscore.Unavailable, "read model", file, "%w", pathCause(err))
	}
	out.SizeBytes, out.Digest = int64(len(data)), fleetscore.DigestOf(data)
	m, err := sklearn.Load(data)
	if err != nil {
		return out, err
	}
	info := m.Info()
	out.Model = &info
	return out, nil
}

// members holds the flags that say which sensors there are and how their models are
// named.
type members struct {
	template, sensors string
	key, defaults     []string
}

func (m *members) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&m.template, "model", "", "template of a model's name, e.g. 'model_{Device}_{Tag}'")
	f.StringSliceVar(&m.key, "key", nil, "key columns, e.g. Device,Tag")
	f.StringVar(&m.sensors, "sensors", "", "list of the expected sensors: a .csv or .ndjson file in the models' folder with the key columns, and model for the files of models")
	f.StringArrayVar(&m.defaults, "default", nil, "file for listed sensors without a model, for those that fit: 'Tag=pressure*:default_pressure', or for all: 'default'")
}

// spec reads the flags. Without flags, every file is a model.
func (m *members) spec(name string) (fleet.Spec, error) {
	cfg := fleetscore.FleetConfig{Model: m.template, Sensors: m.sensors}
	if len(m.key) == 0 {
		if m.template+m.sensors != "" {
			return fleet.Spec{}, usagef("--model and --sensors need --key, the key columns")
		}
		return fleet.Spec{Fleet: name, KeyNames: []string{"File"}}, nil
	}
	for _, d := range m.defaults {
		if m.sensors == "" {
			return fleet.Spec{}, usagef("--default needs --sensors: files say nothing of sensors that have none")
		}
		one := fleetscore.DefaultModel{Model: d}
		if at := strings.LastIndexByte(d, ':'); at >= 0 {
			one.Model, one.When = d[at+1:], map[string]string{}
			for _, c := range strings.Split(d[:at], ",") {
				column, pattern, ok := strings.Cut(c, "=")
				if !ok {
					return fleet.Spec{}, usagef("--default %s: write for example 'Tag=pressure*:default_pressure'", d)
				}
				one.When[column] = pattern
			}
		}
		cfg.Defaults = append(cfg.Defaults, one)
	}
	return fleet.SpecOf(name, cfg, m.key)
}

// openModels opens a folder of models to read.
func openModels(flag, dir string) (store.Bucket, error) {
	b, err := store.OpenFolder(dir)
	if e, ok := errors.AsType[*fleetscore.Error](err); ok {
		return nil, e.WithHint("give %s the folder that holds the models", flag)
	}
	return b, err
}

// verifying is one run of "model verify".
type verifying struct {
	members
	cfg verify.Config
	reading
	data     []string
	time     string
	features []string
	by       fleetscore.FeatureOrder
}

func newModelVerifyCommand() *cobra.Command {
	var v verifying
	cmd := &cobra.Command{
		Use:   "verify DIR --python PYTHON",
		Short: "Compare our scores with those of your own Python and scikit-learn",
		Long: `Has the interpreter --python load models of a folder with its scikit-learn, gives
both it and us the same rows, and compares every method: labels must be equal,
values within --tolerance. Rows are generated, inside and around what each model
was trained on, far outside, and on both sides of where its prediction changes; or
they are the sensors' own rows, with --data.

This RUNS code from the models: unpickling executes what a file says. Name only
models that you trust. All other commands only read them.

Models that this Python can't load are named with the reason; we can score them
all the same. Of each kind of estimators and releases --sample models are compared.

Exit codes: 0 all are equal, 3 some differ or can't be compared, 11 Python or its
scikit-learn can't be started.`,
		Example: `  fleetscore model verify models --python venv/bin/python
  fleetscore model verify models --python venv/bin/python --data readings.csv \
    --model 'model_{Device}_{Tag}' --key Device,Tag --time TS --feature Value`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return v.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&v.cfg.Python, "python", "", "the interpreter, e.g. venv/bin/python")
	f.IntVar(&v.cfg.Rows, "rows", 200, "rows per model")
	f.IntVar(&v.cfg.Sample, "sample", 100, "models per kind of estimators and releases; -1 means all")
	f.Float64Var(&v.cfg.Tolerance, "tolerance", 1e-12, "difference of values that counts as equal, relative to the largest of a method's column, or to 1")
	f.DurationVar(&v.cfg.Patience, "awayAfter", time.Minute, "time that Python may take to start, and for one model")
	v.flags(cmd)
	f.StringArrayVar(&v.data, "data", nil, "rows to compare with, as for fleetscore score; with --model, --key, --time and --feature")
	v.reading.addTo(cmd)
	f.StringVar(&v.time, "time", "", "time column of --data")
	f.StringSliceVar(&v.features, "feature", nil, "feature columns of --data, for models without feature names in their order")
	addFeaturesBy(cmd, &v.by)
	if err := cmd.MarkFlagRequired("python"); err != nil {
		panic(err)
	}
	addOutputFlag(cmd)
	return cmd
}

func (v *verifying) run(cmd *cobra.Command, dir string) error {
	if v.by.Validate() != nil {
		return usagef("--features-by %s: name or position are possible", v.by)
	}
	spec, err := v.spec("verify")
	if err != nil {
		return err
	}
	src, err := openModels("DIR", dir)
	if err != nil {
		return err
	}
	folder, err := fleet.ScanSpec(cmd.Context(), src, spec)
	if err != nil {
		return err
	}
	var files []verify.File
	keys := map[string]fleetscore.Key{}
	for k, name := range folder.Files() {
		if _, twice := keys[name]; !twice {
			files = append(files, verify.File{Name: name, Path: filepath.Join(dir, filepath.FromSlash(name))})
		}
		keys[name] = k
	}
	if len(files) == 0 {
		return noModels(dir, folder.Ignored)
	}
	if len(v.data) > 0 {
		if v.cfg.RowsOf, err = v.rowsOf(cmd.Context(), keys); err != nil {
			return err
		}
	}
	var end func()
	v.cfg.Progress, end = showProgress(cmd.ErrOrStderr(), "compare", "models")
	r, err := verify.Run(cmd.Context(), v.cfg, files)
	end()
	if err != nil {
		return err
	}
	if how, _ := cmd.Flags().GetString("output"); how == "table" {
		err = r.Write(cmd.OutOrStdout(), writeTable)
	} else {
		l := listing{columns: []string{"python", "scikit-learn", "files", "compared", "rows", "equal"}, single: true}
		l.add(r, r.Python.Executable, r.Python.Sklearn, r.Files, r.Compared, r.Rows, r.Equal)
		err = l.print(cmd)
	}
	if err == nil && !r.Equal {
		return exitError(exitPartly)
	}
	return err
}

// rowsOf reads --data and gives each model its sensor's rows.
func (v *verifying) rowsOf(ctx context.Context, keys map[string]fleetscore.Key) (func(string, *sklearn.Info) ([]float64, error), error) {
	if len(v.key) == 0 || v.time == "" || len(v.features) == 0 {
		return nil, usagef("--data needs --key, --time, --feature, and --model or --sensors")
	}
	schema := table.Schema{Time: v.time, Key: v.key}
	for _, f := range v.features {
		if _, column := fleetscore.SplitFeature(f); !slices.Contains(schema.Values, column) {
			schema.Values = append(schema.Values, column)
		}
	}
	opt, err := v.options()
	if err != nil {
		return nil, err
	}
	in, err := rowfiles.Read(ctx, v.data, nil, schema, opt)
	if err != nil {
		return nil, err
	}
	rows := in.Rows
	of := map[fleetscore.Key][]int{}
	for i, k := range rows.KeyIndex {
		of[rows.Keys[k]] = append(of[rows.Keys[k]], i)
	}
	return func(name string, info *sklearn.Info) ([]float64, error) {
		order, err := v.order(info)
		if err != nil {
			return nil, err
		}
		var x []float64
		for _, i := range of[keys[name]] {
			for _, at := range order {
				_, column := fleetscore.SplitFeature(v.features[at])
				x = append(x, rows.Column(column)[i])
			}
		}
		return x, nil
	}, nil
}

// order returns the positions of a model's features among the columns of --data.
func (v *verifying) order(info *sklearn.Info) ([]int, error) {
	if len(info.FeatureNames) > 0 && v.by != fleetscore.FeaturesByPosition {
		order, err := fleetscore.MatchFeatures(v.features, info.FeatureNames)
		if err != nil {
			err = fmt.Errorf("%w; name the columns that it was trained with, or take them by position (--features-by position)", err)
		}
		return order, err
	}
	if info.Features != 0 && info.Features != len(v.features) {
		return nil, fmt.Errorf("the model takes %d features, --feature names %d", info.Features, len(v.features))
	}
	order := make([]int, len(v.features))
	for i := range order {
		order[i] = i
	}
	return order, nil
}

// packing is one run of "model pack".
type packing struct {
	members
	models, out string
	workers     int
}

func newModelPackCommand() *cobra.Command {
	var p packing
	cmd := &cobra.Command{
		Use:   "pack DIR",
		Short: "Compile a folder of models into a pack, which opens faster",
		Long: `Reads every model of a folder as data, on all cores, and writes it in native form
into the folder --out, in a few large files with an index: a million models open
in a fraction of a second. The pack serves as --models of the score command.

Run again after models changed, it reads only those that did, and writes only the
files they lie in. A pack that is being read stays as it is.

A model that can't be scored natively costs its own sensor alone: the pack keeps
it as it is, and why.

Exit codes: 0 all models can be scored, 3 some can't, 1 none can.`,
		Example: "  fleetscore model pack models --model 'model_{Device}_{Tag}' --key Device,Tag --out pack",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.models = args[0]
			return p.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.out, "out", "", "folder for the pack; made if absent")
	f.IntVar(&p.workers, "workers", 0, "files of the pack that are made at once; 0 means one per core")
	p.flags(cmd)
	for _, name := range []string{"key", "out"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	addOutputFlag(cmd)
	return cmd
}

// packed is the result of "model pack" as -o json shows it.
type packed struct {
	Pack       string                  `json:"pack"`
	Generation fleetscore.GenerationID `json:"generation"`
	Sensors    int64                   `json:"sensors"`
	Native     int64                   `json:"native"` // of them, those whose model is scored natively
	Added      int64                   `json:"added"`
	Changed    int64                   `json:"changed"`
	Removed    int64                   `json:"removed"`
	Read       int64                   `json:"files_read"`
	Segments   int                     `json:"segments_written"`
	SizeBytes  int64                   `json:"size_bytes"`
	Causes     []fleet.Cause           `json:"causes"`  // what is wrong with the models
	Ignored    []string                `json:"ignored"` // files that fit no sensor's name; the first 100
	Seconds    float64                 `json:"seconds"`
}

func (p *packing) run(cmd *cobra.Command) error {
	began := time.Now()
	report, end := showProgress(cmd.ErrOrStderr(), "pack", "models")
	c, err := p.pack(cmd.Context(), report)
	end()
	if err != nil {
		return err
	}
	g := c.Generation
	if g.Members == 0 {
		return noModels(p.models, g.Ignored)
	}
	r := packed{Pack: p.out, Generation: g.ID, Sensors: g.Members, Native: g.Health.Native, Added: c.Added, Changed: c.Changed, Removed: c.Removed,
		Read: c.Read, Segments: c.Segments, Causes: g.Health.Causes, Ignored: g.Ignored, SizeBytes: g.SizeBytes(), Seconds: time.Since(began).Seconds()}
	l := listing{columns: []string{"pack", "generation", "sensors", "native", "added", "changed", "removed", "files read", "bytes", "took"}, single: true}
	l.add(r, r.Pack, string(r.Generation), r.Sensors, r.Native, r.Added, r.Changed, r.Removed,
		r.Read, r.SizeBytes, time.Since(began).Round(time.Millisecond))
	if err := l.print(cmd); err != nil {
		return err
	}
	for i := range r.Causes {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s: %s: %s\n", r.Causes[i].Code, plural(int(r.Causes[i].Sensors), "sensor"), r.Causes[i].Message, exampleList(r.Causes[i].Members, r.Causes[i].Sensors))
	}
	if n := len(r.Ignored); n > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s in %s %s no sensor's name: %s\n", plural(n, "file"), p.models, verb(n, "fit"), shortList(r.Ignored))
	}
	return partly(r.Native, r.Sensors)
}

func (p *packing) pack(ctx context.Context, report func(done, total int64)) (*fleet.Change, error) {
	spec, err := p.spec("pack")
	if err != nil {
		return nil, err
	}
	src, err := openModels("--models", p.models)
	if err != nil {
		return nil, err
	}
	if inside(p.out, p.models) {
		return nil, usagef("--out %s lies among the models, whose folder would then hold files that aren't models; name a folder elsewhere, or %s", p.out, filepath.Join(p.models, fleet.PackName))
	}
	dst, err := store.OpenDir(p.out)
	if err != nil {
		return nil, err
	}
	c, err := fleet.Sync(ctx, src, dst, spec, fleet.Options{Workers: min(p.workers, 4*runtime.GOMAXPROCS(0)), Progress: report})
	if err != nil {
		return nil, err
	}
	_, err = fleet.Prune(ctx, dst, time.Now(), func(fleetscore.GenerationID) bool { return false })
	return c, err
}

// noModels returns the error for a folder without models.
func noModels(dir string, ignored []string) error {
	if len(ignored) == 0 {
		return fleetscore.Errorf(fleetscore.NotFound, "find models", dir, "there is no file in the folder")
	}
	return fleetscore.Errorf(fleetscore.NotFound, "find models", dir, "no file's name fits: there is %s", shortList(ignored)).
		WithHint("write --model as the files are named, with the key columns in braces")
}

// inside reports whether a folder equals or lies in another folder, where its files
// would be read as models.
func inside(dir, models string) bool {
	a, err1 := filepath.Abs(dir)
	b, err2 := filepath.Abs(models)
	if err1 != nil || err2 != nil {
		return false
	}
	rel, err := filepath.Rel(b, a)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return false
	}
	for _, part := range strings.Split(rel, "/") {
		if part != "." && (part[0] == '_' || part[0] == '.') {
			return false // its error is found elsewhere
		}
	}
	return true
}

func newModelVersionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "versions FLEET [VERSION]",
		Short:   "List what was pushed into a fleet, the newest first; or the files of one version",
		Example: "  fleetscore model versions sensors",
		Args:    cobra.RangeArgs(1, 2),
	}
	n := cmd.Flags().IntP("count", "n", 20, "how many at most, up to 100")
	return remote(cmd, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		path := "/fleets/" + url.PathEscape(args[0]) + "/versions"
		if len(args) > 1 {
			var v versions.Version
			if err := c.Get(ctx, path+"/"+url.PathEscape(args[1]), nil, &v); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"file", "before", "after"}}
			for _, f := range v.Changes {
				l.add(f, f.Name, shortDigest(f.Before), shortDigest(f.After))
			}
			return l, nil
		}
		var got api.List[versions.Version]
		if err := c.Get(ctx, path, url.Values{"limit": {strconv.Itoa(*n)}}, &got); err != nil {
			return nil, err
		}
		l := &listing{columns: []string{"version", "created", "author", "files", "rolled back to", "message"}}
		for _, v := range got.Items {
			back := ""
			if v.RollbackTo != nil {
				back = strconv.Itoa(*v.RollbackTo)
			}
			l.add(v, v.Number, v.Created, v.Author, v.Files, back, v.Message)
		}
		return l, nil
	})
}

func shortDigest(s string) string { return s[:min(len(s), 12)] }

func newModelRollbackCommand() *cobra.Command {
	var to int
	var message string
	cmd := remote(&cobra.Command{
		Use:   "rollback FLEET --to VERSION",
		Short: "Bring back the models of a version, as a new version",
		Long: `Brings back each file that later versions have changed as it was at that version, and
makes a generation of the fleet that the next jobs use. Files that no later version has
changed stay as they are. Version 0 is the time before the first push.`,
		Example: "  fleetscore model rollback sensors --to 3",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		var got api.Pushed
		if err := c.Post(ctx, "/fleets/"+url.PathEscape(args[0])+"/rollback", map[string]any{"to": to, "message": message}, &got); err != nil {
			return nil, err
		}
		return pushedList(&got)
	})
	cmd.Flags().IntVar(&to, "to", 0, "the version")
	cmd.Flags().StringVarP(&message, "message", "m", "", "why, for people")
	must(cmd.MarkFlagRequired("to"))
	return cmd
}
