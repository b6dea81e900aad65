package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/scorer/python"
)

// pythonFlags say how models are scored that the native runtime doesn't score.
type pythonFlags struct {
	runtime, interpreter, script string
	perModel                     bool
	code                         []string
	memoryMB                     int64
}

// pythonFlagText describes the flag of servers and nodes.
const pythonFlagText = "interpreter that this machine's nodes may score models with, e.g. venv/bin/python; without it they run no Python"

func (p *pythonFlags) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.runtime, "runtime", string(fleetscore.RuntimeNative), "how models are scored: native (read as data; no code of a file is run), auto (native where that is possible, else python), python, or onnx")
	f.StringVar(&p.interpreter, "python", "python3", "the interpreter for --runtime auto, python and onnx, e.g. venv/bin/python; it needs numpy and pyarrow, and what the models need")
	f.StringVar(&p.script, "script", "", "Python file with run(batch), and optionally init() and shutdown(); without it models are loaded and asked to predict")
	f.BoolVar(&p.perModel, "per-model", false, "call the script's run(model, rows) once for each sensor")
	f.StringSliceVar(&p.code, "code", nil, "folder that Python imports the modules of models and scripts from; the script's own folder is always one")
	f.Int64Var(&p.memoryMB, "model-memory", 2048, "MB that a Python process may allocate beyond its libraries")
}

// open checks the flags and gives the pool of Python processes; nil if none is needed.
func (p *pythonFlags) open(processes int, by fleetscore.FeatureOrder) (*python.Pool, error) {
	name := fleetscore.RuntimeName(p.runtime)
	switch {
	case name == "" || name.Validate() != nil:
		return nil, usagef("--runtime %s: native, auto, python or onnx are possible", p.runtime)
	case name == fleetscore.RuntimeNative && (p.script != "" || p.perModel || len(p.code) > 0):
		return nil, usagef("--script, --per-model and --code are for Python; add --runtime python, or --runtime auto")
	case p.perModel && p.script == "":
		return nil, usagef("--per-model needs a --script whose run(model, rows) is called")
	case p.script != "" && name != fleetscore.RuntimePython:
		return nil, usagef("--script needs --runtime python: a script scores all sensors")
	case name == fleetscore.RuntimeNative:
		return nil, nil
	case p.memoryMB < 64:
		return nil, usagef("--model-memory %d: at least 64 MB are needed", p.memoryMB)
	}
	cfg := python.Config{Python: p.interpreter, PerModel: p.perModel, By: by, MemoryBytes: p.memoryMB << 20, Processes: processes}
	for _, folder := range p.code {
		path, err := filepath.Abs(folder)
		if err != nil {
			return nil, err
		}
		cfg.Path = append(cfg.Path, path)
	}
	if p.script != "" {
		path, err := filepath.Abs(p.script)
		if err != nil {
			return nil, err
		}
		cfg.Script, cfg.Path = path, append(cfg.Path, filepath.Dir(path))
	}
	return python.New(cfg)
}
