package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
)

func pythonDefaults(p *fleetscore.PythonConfig) {
	def(&p.MemoryMB, 2048)
	def(&p.DiskMB, 512)
	def(&p.Isolation, fleetscore.IsolationBest)
	def(&p.Versions, fleetscore.VersionsWarn)
}

// judgePython checks how a pipeline's models are scored.
// provider is that of its pool.
func (r *reader) judgePython(path string, p *fleetscore.PipelineConfig, provider, base string, haveBase bool) {
	if err := p.Runtime.Validate(); err != nil {
		r.at(path+".runtime", "%q: write native, auto, python, onnx or command", string(p.Runtime))
		return
	}
	c := &p.Python
	if !p.Runtime.RunsPython() && !reflect.DeepEqual(*c, fleetscore.PythonConfig{}) {
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
	if p.Runtime.RunsPython() && c.Versions != fleetscore.VersionsWarn && c.Versions != fleetscore.VersionsRefuse {
		r.at(path+".python.versions", "%q: write warn or refuse", string(c.Versions))
	}
	r.judgeEnvironments(path+".python.environments", c, provider, base, haveBase)
}

var (
	releaseOf   = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*$`)
	interpreter = regexp.MustCompile(`^python[0-9.]*$`)
)

// judgeEnvironments checks the environments for models of other releases.
func (r *reader) judgeEnvironments(path string, c *fleetscore.PythonConfig, provider, base string, haveBase bool) {
	if len(c.Environments) > 0 && c.Script != "" && !c.PerModel {
		r.at(path, "a script whose run() gets the rows of many sensors has one environment; write per_model: true, or leave environments out")
	}
	seen := map[string]bool{}
	c.Environments = slices.Clone(c.Environments)
	for i := range c.Environments {
		e, at := &c.Environments[i], fmt.Sprintf("%s[%d]", path, i)
		switch {
		case !releaseOf.MatchString(e.SKLearn):
			r.at(at+".sklearn", "%q: write the release of scikit-learn that models were made with, such as \"0.24\"", e.SKLearn)
		case seen[e.SKLearn]:
			r.at(at+".sklearn", "there is another environment for %s", e.SKLearn)
		case given(e.Path, e.Requirements, e.Image) != 1:
			r.at(at, "write one of path, the folder of a virtual environment, requirements, a file that one is made of, and image")
		case e.Image != "" && provider != "docker":
			r.at(at+".image", "models can be scored in an image only where nodes are containers, and the provider of this pipeline's pool is %s; choose a pool of the provider docker (docs/docker.md)", cmp.Or(provider, "unknown"))
		case strings.ContainsAny(e.Image, " \t\n"):
			r.at(at+".image", "%q is not the name of an image; write for example team/old:v1", e.Image)
		case e.Image != "" && (e.Index != "" || e.Python != "" && !strings.HasPrefix(e.Python, "/")):
			r.at(at, "of an image, python is the absolute path of the interpreter in it, and index has no meaning")
		case e.Path != "" && !filepath.IsLocal(e.Path):
			r.at(at+".path", "%s: write a path relative to the folder that nodes were given by --environments", e.Path)
		case e.Path != "" && (e.Python != "" || e.Index != ""):
			r.at(at, "python and index say how an environment is made of requirements")
		case e.Requirements != "" && e.Python != "" && !interpreter.MatchString(e.Python):
			r.at(at+".python", "%s: write the name of a program that nodes find in their PATH, such as python3.9", e.Python)
		}
		seen[e.SKLearn] = true
		r.absolute(at+".requirements", &e.Requirements, base, haveBase)
	}
}

// given counts the texts that aren't empty.
func given(texts ...string) (n int) {
	for _, t := range texts {
		if t != "" {
			n++
		}
	}
	return n
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
