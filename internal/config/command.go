package config

import (
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/fleetscore/fleetscore"
)

func commandDefaults(c *fleetscore.CommandConfig) {
	if c == nil {
		return
	}
	def(&c.Per, fleetscore.CommandPerKey)
	def(&c.Input, fleetscore.CommandCSV)
	def(&c.MemoryMB, 2048)
	def(&c.DiskMB, 512)
	def(&c.Processes, 128)
	def(&c.Isolation, fleetscore.IsolationBest)
}

var (
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	secretName   = pattern{regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`), 63}
)

// judgeCommand checks what a pipeline runs for its sensors.
func (r *reader) judgeCommand(at string, p *fleetscore.PipelineConfig, base string, haveBase bool) {
	c := p.Command
	switch {
	case c == nil && p.Runtime == fleetscore.RuntimeCommand:
		r.at(at, `command is missing: what is run, such as {run: "python predict.py {Device} {Tag}", code: ./code}`)
		return
	case c == nil:
		return
	case p.Runtime != fleetscore.RuntimeCommand:
		r.at(at+".command", "it needs runtime: command")
		return
	}
	at += ".command"
	words, err := fleetscore.SplitCommand(c.Run)
	switch {
	case err != nil:
		r.at(at+".run", "%v", err)
	case len(words) == 0:
		r.at(at, `run is missing: the command, such as "python predict.py {Device} {Tag}"`)
	case strings.Contains(words[0], "{"):
		r.at(at+".run", "%s: the program can't be a placeholder, because nodes have to allow it", words[0])
	}
	if c.Per != fleetscore.CommandPerKey && c.Per != fleetscore.CommandPerTask {
		r.at(at+".per", "%q: write key or task", string(c.Per))
	}
	if c.Input != fleetscore.CommandCSV && c.Input != fleetscore.CommandParquet {
		r.at(at+".input", "%q: write csv or parquet", c.Input)
	}
	if f := c.Predictions; f != "" && (!filepath.IsLocal(f) || path.Clean(f) != f) {
		r.at(at+".predictions", "%s: name a file within the folder of the output", f)
	}
	for _, file := range c.Read {
		if !filepath.IsAbs(file) {
			r.at(at+".read", "%s: write an absolute path on the nodes' machines", file)
		}
	}
	if w := c.WorkDir; w != "" && !filepath.IsAbs(w) && !strings.HasPrefix(w, "{") {
		r.at(at+".work_dir", "%s: write an absolute path on the nodes' machines, or one that begins with {code} or {output}", w)
	}
	for _, name := range append(keys(c.Env), keys(c.Secrets)...) {
		if !variableName.MatchString(name) {
			r.at(at, "%q isn't the name of an environment variable", name)
		}
	}
	for _, variable := range keys(c.Secrets) {
		if name := c.Secrets[variable]; !secretName.MatchString(name) {
			r.at(at+".secrets."+variable, "this isn't the name of a secret; write a name of letters, digits, - and _, and put the secret itself where the server finds it (docs/commands.md)") // it isn't shown: it may be the secret itself
		}
	}
	r.judgeBounds(at, c)
	r.absolute(at+".code", &c.Code, base, haveBase)
}

// judgeBounds checks the limits of a command.
func (r *reader) judgeBounds(at string, c *fleetscore.CommandConfig) {
	if c.MemoryMB < 64 {
		r.at(at+".memory_mb", "%d: at least 64 are needed", c.MemoryMB)
	}
	if c.DiskMB < 16 {
		r.at(at+".disk_mb", "%d: at least 16 are needed", c.DiskMB)
	}
	if c.Processes < 1 {
		r.at(at+".processes", "%d: at least 1 is needed", c.Processes)
	}
	if c.Isolation != fleetscore.IsolationBest && c.Isolation != fleetscore.IsolationRequired {
		r.at(at+".isolation", "%q: write best or required; only the operator of a machine can switch isolation off, by --isolation off", string(c.Isolation))
	}
}
