package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	programs "github.com/fleetscore/fleetscore/internal/node/command"
	"github.com/fleetscore/fleetscore/internal/oneshot"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/python"
	"github.com/fleetscore/fleetscore/internal/table"
)

// scoring is the flags of the one-shot command.
type scoring struct {
	oneshot.Config
	reading
	python                     pythonFlags
	command                    commandFlags
	from, to, badRows, missing string
	failOn                     []string
	frame                      []int
}

func newScoreCommand() *cobra.Command {
	var s scoring
	cmd := &cobra.Command{
		Use:   "score --data PATH [PATH…]",
		Short: "Score files of rows at once, each sensor with its own model",
		Long: `Scores rows in one process, on all cores: every sensor's rows with its own model,
found by the template of the models' names or in a pack. Writes into the folder --out:

  predictions.csv   time, key columns, features, Prediction (1 anomaly, 0 normal), Score;
                    with --results-only the last two alone, a line for each row of the data
  coverage.csv      how every sensor ended, and why
                    (with --format parquet or arrow both are .parquet or .arrow, with
                    times as timestamps)
  rejected.csv      malformed rows, if --bad-rows tolerates any
  manifest.json     counts and settings; written last, so it marks a whole result

PATH is a file, a folder, a pattern such as 'data/*.csv.gz', a Delta table of any
writer, a store's URL such as s3://bucket/folder, or - for standard input; there may be
several. CSV, JSON lines, Parquet and Arrow are read, also compressed by gzip or zstd;
folders named date=2026-11-25 are columns.

Rows keep their order. Every sensor has an outcome: a sensor that has a model but no
rows ends as no_data, a sensor that has rows but no model as no_model.
--models and --out may be URLs of a store, too.

Exit codes: 0 the outcomes are within --fail-on, 3 they are not, 1 nothing was scored
(0 if --fail-on allows that, as no_data=100% does).`,
		Example: `  fleetscore score --data sensor_data.csv --models models --model 'model_{Device}_{Tag}' \
    --key Device,Tag --time TS --feature Val=Value --out scored
  zcat export.csv.gz | fleetscore score --data - --time-unit ms --models models \
    --model 'model_{Device}_{Tag}' --key Device,Tag --time TS --feature Value --out scored`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Data = append(s.Data, args...) // as the shell expands --data *.csv
			s.Stdin = cmd.InOrStdin()
			return s.run(cmd)
		},
	}
	s.addInputs(cmd)
	f := cmd.Flags()
	f.StringVar(&s.Models, "models", "", "folder with the models, or a pack of them (fleetscore model pack)")
	f.StringVar(&s.Label, "label", "", "column with the truth, to pass on to the predictions")
	f.StringVar(&s.Out, "out", "", "folder for the results; made if absent")
	f.StringVar(&s.Format, "format", "csv", "form of the predictions: csv, parquet or arrow")
	f.BoolVar(&s.ResultsOnly, "results-only", false, "predictions have a line for each row of the data, in their order, and only the columns Prediction and Score; both are empty for rows that weren't scored. Not with --from, --to or --bad-rows skip")
	f.StringSliceVar(&s.failOn, "fail-on", []string{"failed=0", "no_model=0"}, "outcomes that make the exit code 3 where more sensors have them, as counts or shares: failed=0, no_model=1%, no_data=5%")
	f.IntSliceVar(&s.frame, "frame", nil, "files that this process has inherited, by which the Python package hands over a DataFrame (docs/formats/frame.md)")
	must(f.MarkHidden("frame"))
	s.command.addTo(cmd)
	for _, name := range []string{"models", "out"} {
		must(cmd.MarkFlagRequired(name))
	}
	return cmd
}

// addInputs adds the flags that say which rows are scored, and how.
func (s *scoring) addInputs(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.Data, "data", nil, "rows: a file, folder, pattern, Delta table, store's URL, or - for standard input; may be given several times")
	s.reading.addTo(cmd)
	f.StringVar(&s.Template, "model", "", "template of a model's name, e.g. 'model_{Device}_{Tag}'; a pack needs none")
	f.StringVar(&s.Sensors, "sensors", "", "list of sensors, a .csv or .ndjson file in the folder of models: the key columns, and model where the template doesn't name it")
	f.StringSliceVar(&s.Key, "key", nil, "key columns, e.g. Device,Tag")
	f.StringVar(&s.Time, "time", "", "time column, e.g. TS; without it rows have no times and are taken in their order")
	f.StringSliceVar(&s.Features, "feature", nil, "feature columns, for models without feature names in their order; Val=Value renames Value to Val on output")
	addFeaturesBy(cmd, &s.FeaturesBy)
	f.StringVar(&s.from, "from", "", "only rows after this time, e.g. 2026-11-23T09:00:00Z")
	f.StringVar(&s.to, "to", "", "only rows until this time, itself included")
	f.DurationVar(&s.ModelTimeout, "model-timeout", 10*time.Second, "time that loading and scoring of one sensor may take")
	f.IntVar(&s.Workers, "workers", 0, "goroutines that read, score and write; 0 for one per core")
	s.python.addTo(cmd)
	f.StringVar(&s.badRows, "bad-rows", "fail", "malformed rows: fail at the first, or skip:1% to leave out up to that share of them")
	f.StringVar(&s.missing, "missing", string(fleetscore.MissingFail), "rows that lack a feature: fail (the sensor fails), skip (the row is left out) or model (the model gets NaN)")
	for _, name := range []string{"data", "key", "feature"} {
		must(cmd.MarkFlagRequired(name))
	}
}

func (s *scoring) run(cmd *cobra.Command) (err error) {
	if err := s.parse(); err != nil {
		return err
	}
	s.Runtime = fleetscore.RuntimeName(s.python.runtime)
	end, err := s.openForeign(cmd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	limits, err := parseFailOn(s.failOn)
	if err != nil {
		return err
	}
	stderr := cmd.ErrOrStderr()
	s.Version = Version
	s.Stage = func(stage oneshot.Stage) func() {
		return startProgress(stderr, stage.Name, stage.Done, stage.Total, stage.Unit)
	}
	defer oneshot.FewCollections()()
	m, err := oneshot.Run(cmd.Context(), s.Config)
	if err != nil {
		return err
	}
	writeCauses(stderr, m.Causes)
	if s.Frame == nil {
		s.summary(cmd.OutOrStdout(), m)
	} else if err := handBack(cmd.OutOrStdout(), m); err != nil {
		return err
	}
	err = verdict(m.Outcomes, limits)
	if err != nil && m.Rows == 0 && m.Outcomes[fleetscore.NoData] == m.Outcomes.Total() {
		fmt.Fprint(stderr, "nothing was scored: the data holds no rows of these sensors")
		if s.Frame == nil {
			fmt.Fprint(stderr, " (if this is expected, add no_data=100% to --fail-on)")
		}
		fmt.Fprintln(stderr)
	}
	return err
}

// openFrame opens the files of --frame.
func (s *scoring) openFrame() error {
	if s.frame == nil {
		return nil
	}
	if len(s.frame) != 3 {
		return usagef("--frame: the numbers of three open files are needed, of the rows, the results and the coverage")
	}
	file := func(i int) *os.File {
		syscall.CloseOnExec(s.frame[i]) // the programs that this process starts don't get it
		return os.NewFile(uintptr(s.frame[i]), "frame")
	}
	if os.Getenv("GOGC") == "off" { // the package says so for the start of this process, in which collections take a tenth of the time
		if err := os.Unsetenv("GOGC"); err != nil {
			return err
		}
		debug.SetGCPercent(100)
	}
	s.Frame = &oneshot.Frame{Ready: s.Stdin, Rows: file(0), Results: file(1), Coverage: file(2)}
	return nil
}

// openForeign opens what scores models that aren't scored natively. The caller calls end.
func (s *scoring) openForeign(cmd *cobra.Command) (end func() error, err error) {
	workers := s.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	if s.Runtime == fleetscore.RuntimeCommand && s.Time == "" {
		return nil, usagef("--runtime command needs --time: predictions of commands are found by the time of their rows")
	}
	if s.Runtime == fleetscore.RuntimeCommand {
		r, err := s.command.open(cmd, s, workers)
		if err != nil {
			return nil, err
		}
		s.Foreign, s.Whole = r, s.command.cfg.Per == fleetscore.CommandPerTask
		return r.Close, nil
	}
	if err := s.command.unused(); err != nil {
		return nil, err
	}
	pool, err := s.python.open(cmd.Context(), workers, s.FeaturesBy)
	if err != nil || pool == nil {
		return func() error { return nil }, err
	}
	s.Foreign = pool
	return pool.Close, nil
}

// writeCauses prints why sensors weren't scored, grouped by cause: thousands of sensors
// with the same cause take one line.
func writeCauses(w io.Writer, causes []scorer.Cause) {
	const most = 10
	for i, c := range causes {
		if i == most {
			fmt.Fprintf(w, "and %s more; the coverage has them all\n", plural(len(causes)-most, "cause"))
			return
		}
		if c.Sensors == 1 {
			fmt.Fprintf(w, "%s: %s: %s\n", c.Examples[0], c.Outcome, c.Reason)
			continue
		}
		examples := strings.Join(c.Examples, ", ")
		if more := c.Sensors - int64(len(c.Examples)); more > 0 {
			examples += " and " + thousands(more) + " more"
		}
		fmt.Fprintf(w, "%s %s, such as: %s (%s)\n", plural(int(c.Sensors), "sensor"), c.Outcome, c.Reason, examples)
	}
}

// addFeaturesBy adds the flag that says how columns are matched to the features of
// models.
func addFeaturesBy(cmd *cobra.Command, by *fleetscore.FeatureOrder) {
	cmd.Flags().StringVar((*string)(by), "features-by", string(fleetscore.FeaturesByName), "how columns find their places in models that know feature names: name, or position as for all others")
}

// parse reads the flags that need more than their text.
func (s *scoring) parse() error {
	if !slices.Contains(oneshot.Formats, s.Format) {
		return usagef("--format %s: %s are possible", s.Format, strings.Join(oneshot.Formats, ", "))
	}
	if s.FeaturesBy.Validate() != nil {
		return usagef("--features-by %s: name or position are possible", s.FeaturesBy)
	}
	s.Missing = fleetscore.MissingRule(s.missing)
	if s.Missing.Validate() != nil {
		return usagef("--missing %s: fail, skip or model are possible", s.missing)
	}
	opt, err := s.options()
	if err != nil {
		return err
	}
	s.Separator, s.Decimal, s.TimeUnit = opt.Separator, opt.Decimal, opt.TimeUnit
	if err := s.openFrame(); err != nil {
		return err
	}
	if s.Frame == nil && inside(s.Out, s.Models) {
		return usagef("--out %s lies among the models, whose folder would then hold files that aren't models; name a folder elsewhere", s.Out)
	}
	if s.Workers < 0 {
		return usagef("--workers %d: 0 or more are possible", s.Workers)
	}
	if s.BadRows, err = parseBadRows(s.badRows); err != nil {
		return err
	}
	for _, p := range []struct {
		flag, text string
		to         **fleetscore.Micros
	}{{"--from", s.from, &s.From}, {"--to", s.to, &s.To}} {
		if p.text == "" {
			continue
		}
		t, err := table.ParseTime(p.text)
		if err != nil {
			return usagef("%s %s: not a time such as 2026-11-23T10:00:00Z", p.flag, p.text)
		}
		*p.to = &t
	}
	return nil
}

// parseBadRows reads --bad-rows.
func parseBadRows(text string) (share fleetscore.Percent, err error) {
	of, ok := strings.CutPrefix(text, "skip:")
	switch {
	case !ok && text != "fail":
		return 0, usagef("--bad-rows %s: fail, or skip:1%% are possible", text)
	case ok && share.UnmarshalText([]byte(of)) != nil:
		return 0, usagef("--bad-rows %s: %q isn't a share such as 1%%", text, of)
	}
	return share, nil
}

func (s *scoring) summary(w io.Writer, m *oneshot.Manifest) {
	b := bufio.NewWriter(w)
	defer b.Flush()
	workers := s.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	fmt.Fprintf(b, "%s of %s scored in %s on %s\n", plural(int(m.Rows), "row"), plural(int(m.Outcomes[fleetscore.Scored]), "sensor"),
		m.Ended.Sub(m.Started).Round(time.Millisecond), plural(workers, "core"))
	if m.First != 0 {
		fmt.Fprintf(b, "  from       %s to %s\n", m.First, m.Last)
	}
	share := ""
	if m.Rows > 0 {
		share = fmt.Sprintf(" (%.1f %% of the rows)", 100*float64(m.Anomalies)/float64(m.Rows))
	}
	fmt.Fprintf(b, "  anomalies  %s%s\n", thousands(m.Anomalies), share)
	fmt.Fprintf(b, "  sensors    %s\n", outcomeList(m.Outcomes))
	if m.LeftOut > 0 {
		fmt.Fprintf(b, "  warning    %s without a prediction, because a feature is missing; the coverage says of which sensors\n", plural(int(m.LeftOut), "row"))
	}
	if m.Rejected > 0 {
		fmt.Fprintf(b, "  warning    %s malformed; rejected.csv says where and why\n", plural(int(m.Rejected), "row"))
	}
	if n := len(m.Degenerate); n > 0 {
		fmt.Fprintf(b, "  warning    %s %s every row or none whatever the data: %s\n", plural(n, "model"), verb(n, "flag"), shortList(m.Degenerate))
	}
	if n := len(m.Ignored); n > 0 {
		fmt.Fprintf(b, "  warning    %s in %s %s no sensor's name: %s\n", plural(n, "file"), s.Models, verb(n, "fit"), shortList(m.Ignored))
	}
	fmt.Fprintf(b, "  results    %s\n", filepath.Join(s.Out, "{predictions."+s.Format+", coverage."+s.Format+", manifest.json}"))
}

// failLimit is how many sensors may end in some ways before the command fails.
type failLimit struct {
	outcomes []fleetscore.Outcome
	allowed  fleetscore.Allowance
}

// parseFailOn reads failed=0,no_model=5%. "failed" counts what the limit "failed" of a
// job counts: failed, timed_out and quarantined.
func parseFailOn(list []string) ([]failLimit, error) {
	var out []failLimit
	for _, text := range list {
		name, value, ok := strings.Cut(text, "=")
		l := failLimit{outcomes: []fleetscore.Outcome{fleetscore.Outcome(name)}}
		switch {
		case !ok || !slices.Contains(fleetscore.Outcomes, l.outcomes[0]) || l.outcomes[0] == fleetscore.Scored:
			return nil, usagef("--fail-on %s: write an outcome and how many may have it: failed=0 or no_data=5%%", text)
		case name == string(fleetscore.Failed):
			l.outcomes = append(l.outcomes, fleetscore.TimedOut, fleetscore.Quarantined)
		}
		if l.allowed.UnmarshalText([]byte(value)) != nil {
			return nil, usagef("--fail-on %s: %q is neither a number nor a share such as 5%%", text, value)
		}
		out = append(out, l)
	}
	return out, nil
}

// verdict turns outcomes into the exit code. As with jobs, a run that scored nothing is
// good only if each outcome that occurs has a limit, and the limit allows it.
func verdict(c fleetscore.Counts, limits []failLimit) error {
	limited := int64(0)
	for _, l := range limits {
		n := int64(0)
		for _, o := range l.outcomes {
			n += c[o]
		}
		limited += n
		if l.allowed.Allows(n, c.Total()) {
			continue
		}
		if c[fleetscore.Scored] == 0 {
			return exitError(exitFailed)
		}
		return exitError(exitPartly)
	}
	if c[fleetscore.Scored] == 0 && (limited < c.Total() || c.Total() == 0) {
		return exitError(exitFailed)
	}
	return nil
}

// pythonFlags say how models are scored that the native runtime doesn't score.
type pythonFlags struct {
	runtime, interpreter, script string
	perModel                     bool
	code                         []string
	memoryMB                     int64
	isolation                    string
}

// isolationFlagText describes the flag of servers, nodes and the command score.
const isolationFlagText = "how far Python is kept apart from this machine: best (as far as the machine can), required (else nothing runs) or off (default: best); fleetscore node doctor says what the machine can"

// sandboxOf is how this machine isolates, by the flag --isolation.
func sandboxOf(isolation string) (*sandbox.Lazy, error) {
	l := &sandbox.Lazy{Config: sandbox.Config{Exe: "/proc/self/exe"}}
	switch fleetscore.Isolation(isolation) {
	case "", fleetscore.IsolationBest:
	case fleetscore.IsolationRequired:
		l.Required = true
	case fleetscore.IsolationOff:
		l.Config.Exe = ""
	default:
		return nil, usagef("--isolation %s: best, required or off are possible", isolation)
	}
	return l, nil
}

// pythonFlagText describes the flag of servers and nodes.
const pythonFlagText = "interpreter that this machine's nodes may score models with, e.g. venv/bin/python; without it they run no Python"

// environmentsFlagText describes the flag of servers and nodes.
const environmentsFlagText = "folder whose virtual environments pipelines may use on this machine besides --python, and where those are made that they describe by requirements"

func (p *pythonFlags) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.runtime, "runtime", string(fleetscore.RuntimeNative), "how models are scored: native (read as data; no code of a file is run), auto (native where that is possible, else python), python, onnx, or command (by a program of your own)")
	f.StringVar(&p.interpreter, "python", "python3", "the interpreter for --runtime auto, python, onnx and command, e.g. venv/bin/python; it needs numpy and pyarrow, and what the models need")
	f.StringVar(&p.script, "script", "", "Python file with run(batch), and optionally init() and shutdown(); without it models are loaded and asked to predict")
	f.BoolVar(&p.perModel, "per-model", false, "call the script's run(model, rows) once for each sensor")
	f.StringSliceVar(&p.code, "code", nil, "folder that Python imports the modules of models and scripts from; the script's own folder is always one; with --runtime command the folder {code}")
	f.StringVar(&p.isolation, "isolation", "", isolationFlagText)
	f.Int64Var(&p.memoryMB, "model-memory", 2048, "MB that a Python process may allocate beyond its libraries")
}

// open checks the flags and gives the pool of Python processes; nil if none is needed.
func (p *pythonFlags) open(ctx context.Context, processes int, by fleetscore.FeatureOrder) (*python.Pool, error) {
	name := fleetscore.RuntimeName(p.runtime)
	switch {
	case name == "" || name.Validate() != nil:
		return nil, usagef("--runtime %s: native, auto, python, onnx or command are possible", p.runtime)
	case name == fleetscore.RuntimeNative && (p.script != "" || p.perModel || len(p.code) > 0):
		return nil, usagef("--script, --per-model and --code are for Python; add --runtime python, or --runtime auto")
	case p.perModel && p.script == "":
		return nil, usagef("--per-model needs --script, a file whose run(model, rows) is called")
	case p.script != "" && name != fleetscore.RuntimePython:
		return nil, usagef("--script needs --runtime python: a script scores all sensors")
	case name == fleetscore.RuntimeNative:
		return nil, nil
	case p.memoryMB < 64:
		return nil, usagef("--model-memory %d: at least 64 MB are needed", p.memoryMB)
	}
	cfg := python.Config{Python: p.interpreter, PerModel: p.perModel, By: by, MemoryBytes: p.memoryMB << 20, Processes: processes}
	for _, folder := range p.code {
		path, err := present("--code", folder)
		if err != nil {
			return nil, err
		}
		if filepath.Ext(path) == ".py" {
			return nil, usagef("--code %s: name the folder that the module lies in", folder)
		}
		cfg.Path = append(cfg.Path, path)
	}
	if p.script != "" {
		path, err := present("--script", p.script)
		if err != nil {
			return nil, err
		}
		cfg.Script, cfg.Path = path, append(cfg.Path, filepath.Dir(path))
	}
	isolate, err := sandboxOf(p.isolation)
	if err != nil {
		return nil, err
	}
	if cfg.Sandbox, err = isolate.Get(ctx, false); err != nil {
		return nil, err
	}
	return python.New(cfg)
}

// present is the absolute path of a file or folder that a flag names and that must be there.
func present(flag, name string) (string, error) {
	path, err := filepath.Abs(name)
	if err == nil {
		_, err = os.Stat(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", usagef("%s %s: there is no such file or folder", flag, name)
	}
	return path, err
}

// commandFlags are what a command is told that scores.
type commandFlags struct {
	cfg            fleetscore.CommandConfig
	per            string
	env, read, set []string
}

func (c *commandFlags) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.cfg.Run, "command", "", "what --runtime command runs, e.g. 'python predict.py {Device} {Tag} {data} {model} {output}' (docs/commands.md)")
	f.StringVar(&c.per, "per", string(fleetscore.CommandPerKey), "the command runs for each key, or once for the task")
	f.StringVar(&c.cfg.Predictions, "predictions", "", "the CSV file in {output} with the command's predictions; without it the exit code alone says that a sensor is scored")
	f.StringVar(&c.cfg.Input, "input", fleetscore.CommandCSV, "form of the file {data}: csv or parquet")
	f.StringVar(&c.cfg.WorkDir, "work-dir", "", "where the command starts; without it in {code}, or else in {output}")
	f.StringArrayVar(&c.env, "env", nil, "environment variable of the command: NAME=value, or NAME alone for a secret that is taken from this command's own variable and hidden in logs")
	f.StringArrayVar(&c.set, "param", nil, "what a placeholder of your own stands for: config=/etc/fleet.json")
	f.StringSliceVar(&c.read, "read", nil, "further files and folders that the command sees, read-only")
}

// unused refuses settings of a command where none runs.
func (c *commandFlags) unused() error {
	if c.cfg.Run != "" || c.cfg.Predictions != "" || len(c.env)+len(c.set)+len(c.read) > 0 || c.cfg.WorkDir != "" {
		return usagef("--command, --predictions, --env, --param, --read and --work-dir need --runtime command")
	}
	return nil
}

// open checks the flags and prepares the command.
func (c *commandFlags) open(cmd *cobra.Command, s *scoring, workers int) (*programs.Runner, error) {
	p := &s.python
	words, err := fleetscore.SplitCommand(c.cfg.Run)
	switch c.cfg.Per = fleetscore.CommandPer(c.per); {
	case err != nil:
		return nil, usagef("--command: %v", err)
	case len(words) == 0:
		return nil, usagef("--runtime command needs --command, such as 'python predict.py {Device} {Tag} {data} {model} {output}'")
	case p.script != "" || p.perModel:
		return nil, usagef("--script and --per-model are for --runtime python")
	case len(p.code) > 1:
		return nil, usagef("--code: a command has one folder of code")
	case c.cfg.Per != fleetscore.CommandPerKey && c.cfg.Per != fleetscore.CommandPerTask:
		return nil, usagef("--per %s: key or task are possible", c.per)
	case c.cfg.Input != fleetscore.CommandCSV && c.cfg.Input != fleetscore.CommandParquet:
		return nil, usagef("--input %s: csv or parquet are possible", c.cfg.Input)
	case c.cfg.Predictions != "" && !filepath.IsLocal(c.cfg.Predictions):
		return nil, usagef("--predictions %s: name a file within the folder of the output", c.cfg.Predictions)
	case p.memoryMB < 64:
		return nil, usagef("--model-memory %d: at least 64 MB are needed", p.memoryMB)
	}
	cfg := programs.Config{Python: p.interpreter, AtOnce: workers, Work: programs.Work{Pipeline: "score", Job: "score", Interval: s.interval()}}
	if cfg.Secrets, err = c.variables(); err != nil {
		return nil, err
	}
	for _, path := range slices.Concat(p.code, c.read) {
		full, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if c.cfg.Read = append(c.cfg.Read, full); len(p.code) > 0 && path == p.code[0] {
			c.cfg.Code = full
		}
	}
	// The user is this machine's operator, and names the program: no other has to allow it.
	if program, err := exec.LookPath(words[0]); err == nil {
		if program, err = filepath.Abs(program); err != nil {
			return nil, err
		}
		cfg.Folders = []string{filepath.Dir(program)}
		if real, err := filepath.EvalSymlinks(program); err == nil {
			cfg.Folders = append(cfg.Folders, filepath.Dir(real))
		}
	}
	isolate, err := sandboxOf(p.isolation)
	if err != nil {
		return nil, err
	}
	if cfg.Sandbox, err = isolate.Get(cmd.Context(), false); err != nil {
		return nil, err
	}
	out, err := oneshot.OpenFolder(cmd.Context(), s.Out)
	if err != nil {
		return nil, err
	}
	cfg.Save, cfg.CommandConfig = out.Save, c.cfg
	cfg.MemoryMB, cfg.DiskMB, cfg.Processes = p.memoryMB, 512, 128
	return programs.New(cmd.Context(), cfg)
}

// variables splits --env and --param.
func (c *commandFlags) variables() (secrets map[string]string, err error) {
	secrets, c.cfg.Env, c.cfg.Params = map[string]string{}, map[string]string{}, map[string]string{}
	for _, e := range c.env {
		name, value, plain := strings.Cut(e, "=")
		if plain {
			c.cfg.Env[name] = value
			continue
		}
		if value = os.Getenv(name); value == "" {
			return nil, usagef("--env %s: this command has no such variable; set it, or write %s=value", name, name)
		}
		secrets[name] = value
	}
	for _, e := range c.set {
		name, value, ok := strings.Cut(e, "=")
		if !ok {
			return nil, usagef("--param %s: write NAME=value", e)
		}
		c.cfg.Params[name] = value
	}
	return secrets, nil
}

// interval is what the command is told of --from and --to.
func (s *scoring) interval() (iv fleetscore.Interval) {
	if s.From != nil {
		iv.From = s.From.Time()
	}
	if s.To != nil {
		iv.To = s.To.Time()
	}
	return iv
}
