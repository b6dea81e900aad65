// Package command scores by programs of the user's: a pipeline's command is run for each
// sensor, or once for all sensors of a task. It finds rows and models as files, and leaves
// predictions and whatever else in a folder that is kept.
//
// A command that fails, hangs, takes too much memory or starts too many processes costs its own
// sensors alone. Commands are isolated by a sandbox.Sandbox. Which programs may run, where the
// files of the output are kept, and what becomes of predictions is decided elsewhere. A Runner is
// safe for concurrent use.
package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/program"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/python"
)

// Config says what is run.
type Config struct {
	fleetscore.CommandConfig
	Mounts  []fleetscore.Mount
	Secrets map[string]string // values, by environment variables
	Python  string            // the interpreter that the programs python and python3 are; empty if there is none
	Folders []string          // whose programs may be run besides
	Sandbox *sandbox.Sandbox  // isolates commands; nil means that they aren't isolated
	AtOnce  int               // commands that run at the same time; 0 means 1
	Work    Work              // what the command is told of the work
	Base    string            // where folders of runs are made; empty means the system's folder for temporary files
	Now     func() time.Time  // the time that runs are measured by; nil means time.Now
	// Save keeps a file of the output under a relative name with slashes. An error of kind
	// Unavailable ends the attempt as a whole.
	Save func(ctx context.Context, name string, file io.Reader) error
}

// Work is what a command can know of its task.
type Work struct {
	Pipeline string
	Job      fleetscore.JobID
	Task     int
	Interval fleetscore.Interval
}

// Runner runs the command of a task.
type Runner struct {
	cfg   Config
	words []string
	path  string   // of the program
	read  []string // files and folders that the program needs
	write []string // folders that it may write to besides its own
	temp  string   // where its folders are made
	turns chan struct{}
	hide  *strings.Replacer // secrets in what the command prints
}

// New prepares the command: its program must exist, and be allowed.
func New(ctx context.Context, cfg Config) (*Runner, error) {
	const op = "prepare command"
	words, err := fleetscore.SplitCommand(cfg.Run)
	if err != nil || len(words) == 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, cfg.Run, "it isn't a command: %w", cmp.Or(err, errors.New("it is empty")))
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Runner{cfg: cfg, words: words, turns: make(chan struct{}, max(1, cfg.AtOnce)), hide: hiding(cfg.Secrets)}
	if r.temp, err = os.MkdirTemp(cfg.Base, "fleetscore-command-"); err != nil {
		return nil, fleetscore.Wrap(op, cfg.Run, err)
	}
	if err := r.find(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.read = append(r.read, python.Libraries(r.temp)...)
	r.read = append(r.read, cfg.Read...)
	if cfg.Code != "" {
		r.read = append(r.read, python.Followed([]string{cfg.Code}, r.temp)...)
	}
	for _, m := range cfg.Mounts {
		if m.Writable() {
			r.write = append(r.write, m.Path)
		} else {
			r.read = append(r.read, m.Path)
		}
	}
	for i, path := range r.read {
		r.read[i] = filepath.Clean(path)
	}
	return r, nil
}

// find finds the program: the node's Python, or a program of an allowed folder.
func (r *Runner) find(ctx context.Context) error {
	const op = "prepare command"
	if name := r.words[0]; name == "python" || name == "python3" {
		if r.cfg.Python == "" {
			return fleetscore.Errorf(fleetscore.Invalid, op, name, "this node runs no Python; start it with --python INTERPRETER (serve and up have the flag for local nodes) if the makers of the command may be trusted")
		}
		home, err := python.FindHome(ctx, r.cfg.Python, r.temp)
		if err != nil {
			return err
		}
		r.path, r.read = home.Executable, home.Folders
		return nil
	}
	command := program.Find(r.words, r.cfg.Folders)
	if err := program.Check(command, r.cfg.Folders); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(command[0])
	if err != nil {
		return fleetscore.Wrap(op, command[0], err)
	}
	r.path, err = filepath.Abs(real)
	r.read = []string{r.path}
	return err
}

// Close removes what is left. No Score may run.
func (r *Runner) Close() error { return os.RemoveAll(r.temp) }

// Score implements scorer.Foreign.
func (r *Runner) Score(ctx context.Context, b *scorer.Batch, ended func(int, scorer.Ended)) error {
	s := &session{Runner: r, batch: b, starts: make([]int, len(b.Sensors)+1), ended: ended}
	var all []int
	for i := range b.Sensors {
		s.starts[i+1] = s.starts[i] + b.Sensors[i].Rows
		all = append(all, i)
	}
	if r.cfg.Per == fleetscore.CommandPerTask {
		s.together(ctx, all)
		return s.err(ctx)
	}
	var running sync.WaitGroup
	for _, i := range all {
		if !s.turn(ctx) {
			break
		}
		running.Go(func() {
			defer func() { <-r.turns }()
			s.tell([]int{i}, s.run(ctx, []int{i}))
		})
	}
	running.Wait()
	return s.err(ctx)
}

// session is one call of Score.
type session struct {
	*Runner
	batch  *scorer.Batch
	starts []int // of the sensors' rows; one more at the end

	mu    sync.Mutex // guards what follows
	ended func(int, scorer.Ended)
	fatal error // why the attempt can't go on
	runs  int   // of searches for culprits
}

// turn waits until a command may run. It tells whether it may.
func (s *session) turn(ctx context.Context) bool {
	select {
	case s.turns <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal != nil {
		<-s.turns
	}
	return s.fatal == nil
}

func (s *session) err(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal != nil {
		return s.fatal
	}
	return ctx.Err()
}

// tell ends sensors as the run says.
func (s *session) tell(sensors []int, res result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if res.fatal != nil {
		if s.fatal == nil {
			s.fatal = res.fatal
		}
		return
	}
	for _, i := range sensors {
		e, ok := res.ended[i]
		if !ok {
			e = scorer.Ended{Err: res.err, TimedOut: res.timedOut}
		}
		e.Scoring = max(1, res.took/time.Duration(len(sensors)))
		s.ended(i, e)
	}
}

// searches is how many runs are spent, at most, to find the sensors of a task that a command
// fails at.
const searches = 64

// together runs the command for several sensors at once. If it fails for all of them, they are
// halved until those are found that it fails at.
func (s *session) together(ctx context.Context, sensors []int) {
	if len(sensors) == 0 || !s.turn(ctx) {
		return
	}
	res := s.run(ctx, sensors)
	<-s.turns
	s.mu.Lock()
	s.runs++
	search := s.runs < searches
	s.mu.Unlock()
	if res.err == nil || res.fatal != nil || len(sensors) == 1 || ctx.Err() != nil || !search {
		s.tell(sensors, res)
		return
	}
	s.batch.Log("the command failed for %d sensors at once: %v; it is run for each half of them", len(sensors), res.err)
	half := (len(sensors) + 1) / 2
	s.together(ctx, slices.Clone(sensors[:half]))
	s.together(ctx, slices.Clone(sensors[half:]))
}

// values are what placeholders stand for.
func (s *session) values(sensors []int, p places) map[string]string {
	w := s.cfg.Work
	v := map[string]string{"input": p.input, "models": p.models, "output": p.output, "data": p.data, "code": s.cfg.Code, "pipeline": w.Pipeline, "job": string(w.Job),
		"task": fmt.Sprintf("%03d", w.Task), "from": w.Interval.From.UTC().Format(time.RFC3339), "to": w.Interval.To.UTC().Format(time.RFC3339)}
	if len(sensors) == 1 && s.cfg.Per != fleetscore.CommandPerTask {
		sensor := s.batch.Sensors[sensors[0]]
		v["model"] = filepath.Join(p.models, fileName(sensor.Name))
		for i, value := range sensor.Key.Values() {
			v[s.batch.KeyNames[i]] = value
		}
	}
	for _, m := range s.cfg.Mounts {
		v["mounts."+m.Name] = m.Path
	}
	for name, value := range s.cfg.Params {
		v[name] = value
	}
	return v
}

// arguments are the command's words and its environment.
func (s *session) arguments(sensors []int, p places) (args, env []string, workDir string, err error) {
	values := s.values(sensors, p)
	var problems []error
	fill := func(text string) string {
		out, err := fleetscore.FillPlaceholders(text, func(name string) (string, bool) {
			v, ok := values[name]
			return v, ok
		})
		problems = append(problems, err)
		return out
	}
	args = []string{s.path}
	for _, w := range s.words[1:] {
		args = append(args, fill(w))
	}
	env = append(python.Environment(p.own),
		"AZ_BATCHAI_JOB_NAME="+string(s.cfg.Work.Job), "AZ_BATCHAI_EXPERIMENT_NAME="+s.cfg.Work.Pipeline, fmt.Sprintf("AZ_BATCHAI_TASK_INDEX=%d", s.cfg.Work.Task), "AZ_BATCHAI_NUM_GPUS=0",
		"AZ_BATCHAI_INPUT_DATA="+p.input, "AZ_BATCHAI_INPUT_MODELS="+p.models, "AZ_BATCHAI_OUTPUT_PREDICTIONS="+p.output, "AZ_BATCHAI_STDOUTERR_DIR="+p.output,
		"AZ_BATCHAI_JOB_TEMP="+p.own, "AZ_BATCHAI_SHARED_JOB_TEMP="+p.own, "AZUREML_MODEL_DIR="+p.models)
	for _, m := range s.cfg.Mounts {
		env = append(env, m.Variable()+"="+m.Path)
	}
	for name, value := range s.cfg.Env {
		env = append(env, name+"="+fill(value))
	}
	for name, value := range s.cfg.Secrets {
		env = append(env, name+"="+value)
	}
	workDir = fill(cmp.Or(s.cfg.WorkDir, s.cfg.Code, p.output))
	if err := errors.Join(problems...); err != nil {
		return nil, nil, "", fmt.Errorf("the command can't be run: %w", err)
	}
	return args, env, filepath.Clean(workDir), nil
}
