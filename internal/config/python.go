package config

import (
	"cmp"
	"path/filepath"
	"strings"

	"github.com/fleetscore/fleetscore"
)

func pythonDefaults(p *fleetscore.PythonConfig) {
	def(&p.MemoryMB, 2048)
	def(&p.DiskMB, 512)
	def(&p.Isolation, fleetscore.IsolationBest)
}

// judgePython checks how a pipeline's models are scored.
func (r *reader) judgePython(path string, p *fleetscore.PipelineConfig, base string, haveBase bool) {
	if err := p.Runtime.Validate(); err != nil {
		r.at(path+".runtime", "%q: write native, auto, python, onnx or command", string(p.Runtime))
		return
	}
	c := &p.Python
	if !p.Runtime.RunsPython() && *c != (fleetscore.PythonConfig{}) {
		r.at(path+".python", "the runtime is %s, which uses no Python; write runtime: python, or runtime: auto", cmp.Or(p.Runtime, fleetscore.RuntimeNative))
		return
	}
	switch {
	case c.Script != "" && p.Runtime != fleetscore.RuntimePython:
		r.at(path+".python.script", "a script scores all sensors, so it needs runtime: python")
	case c.Script != "" && c.Code == "":
		r.at(path+".python.script", "the script is a file of the folder code; write code too, such as ./code")
	case filepath.IsAbs(c.Script) || strings.Contains(c.Script, ".."):
		r.at(path+".python.script", "%s: name a file within the folder code", c.Script)
	case c.PerModel && c.Script == "":
		r.at(path+".python.per_model", "it says how a script is called; write script too")
	}
	if c.MemoryMB < 64 && p.Runtime.RunsPython() {
		r.at(path+".python.memory_mb", "%d: at least 64 are needed", c.MemoryMB)
	}
	if c.DiskMB < 16 && p.Runtime.RunsPython() {
		r.at(path+".python.disk_mb", "%d: at least 16 are needed", c.DiskMB)
	}
	if p.Runtime.RunsPython() && c.Isolation != fleetscore.IsolationBest && c.Isolation != fleetscore.IsolationRequired {
		r.at(path+".python.isolation", "%q: write best or required; only the operator of a machine can switch isolation off, by --isolation off", string(c.Isolation))
	}
	r.absolute(path+".python.code", &c.Code, base, haveBase)
}

// absolute makes the path of a folder absolute, which may be relative to fleet.yaml.
func (r *reader) absolute(at string, path *string, base string, haveBase bool) {
	switch {
	case *path == "" || filepath.IsAbs(*path):
	case !haveBase:
		r.at(at, "%s is relative to fleet.yaml, but the folder of fleet.yaml is unknown here; write an absolute path", *path)
	default:
		*path = filepath.Join(base, *path)
	}
}
