// Package config reads the text of a fleet.yaml and returns a checked
// fleetscore.Config.
//
// Every problem is reported at once, each with its line: unknown keys, values of a
// wrong form, queries and cron expressions that don't parse, names that refer to
// nothing. Defaults are filled in, so that the rest of the system needn't know what a
// zero means. It opens no files; all functions are safe for concurrent use.
package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/schedule"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// MaxBytes bounds the size of a fleet.yaml.
const MaxBytes = 1 << 20

// Problem is one thing wrong with a file.
type Problem struct {
	Line int    // 1-based; 0 means the whole file
	Text string // what is wrong and what to do
}

// Problems is the error of Parse: all problems, in the order of lines.
type Problems struct {
	Name string
	List []Problem
}

// Error lists the problems, a line each, as "fleet.yaml:12: text".
func (p *Problems) Error() string {
	lines := make([]string, len(p.List))
	for i, q := range p.List {
		if q.Line > 0 {
			lines[i] = fmt.Sprintf("%s:%d: %s", p.Name, q.Line, q.Text)
		} else {
			lines[i] = fmt.Sprintf("%s: %s", p.Name, q.Text)
		}
	}
	return strings.Join(lines, "\n")
}

// Parse reads and checks a fleet.yaml. The name is used in messages; when it is an
// absolute path, fleet paths that start with "./" or "../" are taken as relative to
// its folder.
func Parse(name string, text []byte) (fleetscore.Config, error) {
	r := newReader()
	var cfg fleetscore.Config
	r.read(text, &cfg)
	if r.decoded {
		fill(&cfg)
		r.judge(&cfg, filepath.Dir(name), filepath.IsAbs(name))
	}
	if len(r.problems) > 0 {
		slices.SortStableFunc(r.problems, func(a, b Problem) int { return a.Line - b.Line })
		if n := len(r.problems); n > maxProblems {
			r.problems = append(r.problems[:maxProblems:maxProblems], Problem{Text: "and " + fleetscore.Counted(n-maxProblems, "more problem")})
		}
		return fleetscore.Config{}, &fleetscore.Error{Kind: fleetscore.Invalid,
			Err: &Problems{Name: filepath.Base(name), List: r.problems}}
	}
	return cfg, nil
}

func (r *reader) read(text []byte, cfg *fleetscore.Config) {
	body := r.parse(text)
	if body == nil {
		return
	}
	r.decode(body, cfg)
	r.decoded = true
}

// parse returns the tree of a YAML document; nil after a problem.
func (r *reader) parse(text []byte) (body ast.Node) {
	if len(text) > MaxBytes {
		r.problemf(0, "the file has %d bytes, more than the %d allowed", len(text), MaxBytes)
		return nil
	}
	if line, why := bound(text); why != "" {
		r.problemf(line, "%s", why)
		return nil
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		line := 0
		var se *yaml.SyntaxError
		if errors.As(err, &se) && se.Token != nil {
			line = se.Token.Position.Line
			err = errors.New(se.Message)
		}
		r.problemf(line, "not valid YAML: %s", shown(err.Error()))
		return nil
	}
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if body != nil {
			r.problemf(d.Body.GetToken().Position.Line, "the file has a second YAML document; put everything into one document")
			return nil
		}
		body = d.Body
	}
	if body == nil {
		r.problemf(0, "the file is empty; describe at least one pipeline (docs/configuration.md shows how)")
		return nil
	}
	return body
}

// fill replaces zero values by their documented defaults.
func fill(c *fleetscore.Config) {
	fillHub(&c.Hub)
	fillAccess(&c.Access)
	for name, q := range c.Queries {
		def(&q.Cut, fleetscore.Duration(10*time.Minute))
		c.Queries[name] = q
	}
	for name, ref := range c.References {
		def(&ref.Every, fleetscore.Duration(time.Minute))
		c.References[name] = ref
	}
	for name, f := range c.Fleets {
		def(&f.Sync, fleetscore.Duration(time.Minute))
		c.Fleets[name] = f
	}
	for name, p := range c.Pools {
		def(&p.Provider, "local")
		def(&p.Slots, 1)
		def(&p.Scale.Max, max(1, p.Scale.Min))
		if low := p.Scale.LowPriority; low != nil {
			def(&low.Max, max(1, low.Min))
		}
		def(&p.Scale.IdleAfter, fleetscore.Duration(time.Minute))
		if p.Scale.Formula != "" {
			def(&p.Scale.EvaluationInterval, fleetscore.Duration(autoscale.UsualInterval))
		}
		c.Pools[name] = p
	}
	for name, p := range c.Pipelines {
		if p.Shadow != "" {
			follow(&p, c)
		}
		def(&p.FeaturesBy, c.Fleets[p.Fleet].FeaturesBy)
		def(&p.FeaturesBy, fleetscore.FeaturesByName)
		if f, ok := c.Fleets[p.Fleet]; ok && (p.Runtime == fleetscore.RuntimePython || p.Runtime == fleetscore.RuntimeONNX || p.Runtime == fleetscore.RuntimeCommand) {
			f.KeepFiles = true
			c.Fleets[p.Fleet] = f
		}
		if p.Runtime.RunsPython() {
			pythonDefaults(&p.Python)
		}
		commandDefaults(p.Command)
		def(&p.Schedule.StartWhen, "complete")
		def(&p.Schedule.Overlap, fleetscore.OverlapQueueOne)
		def(&p.Schedule.CatchUp, fleetscore.CatchUpLast)
		def(&p.Limits.ModelTimeout, fleetscore.Duration(10*time.Second))
		def(&p.Limits.Tries, 3)
		def(&p.Limits.QuarantineAfter, 3)
		def(&p.Retention, c.Retention.Predictions.Age)
		def(&p.History, c.Retention.History.Age)
		def(&p.History, fleetscore.Duration(30*24*time.Hour))
		defAllowance(&p.Limits.Failed)
		defAllowance(&p.Limits.NoModel)
		c.Pipelines[name] = p
	}
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func defAllowance(a **fleetscore.Allowance) {
	if *a == nil {
		*a = fleetscore.AllowShare(0)
	}
}

var goodName = pattern{regexp.MustCompile(`^[a-z][a-z0-9_-]*$`), 63}

// pattern is the form of a text with a greatest length. An expression that counts up to the length itself takes so
// long to prepare that each start of the program is slower.
type pattern struct {
	form *regexp.Regexp
	most int
}

func (p pattern) MatchString(s string) bool { return len(s) <= p.most && p.form.MatchString(s) }

// judge reports settings that are well formed but make no sense.
func (r *reader) judge(c *fleetscore.Config, base string, haveBase bool) {
	for _, part := range []struct {
		path  string
		names []string
	}{{"queries", keys(c.Queries)}, {"references", keys(c.References)}, {"datasets", keys(c.Datasets)}, {"fleets", keys(c.Fleets)}, {"pools", keys(c.Pools)}, {"mounts", keys(c.Mounts)}, {"pipelines", keys(c.Pipelines)}} {
		for _, n := range part.names {
			if !goodName.MatchString(n) {
				r.at(part.path+"."+n, "the name %q must start with a lower-case letter and have only a-z, 0-9, - and _ (at most 63), because it becomes part of file names", n)
			}
		}
	}
	r.judgeStore(c, base, haveBase)
	r.judgeHub(c.Hub)
	r.judgeAccess(c.Access)
	r.judgeMounts(c)
	r.judgeReferences(c)
	plans := r.judgeQueries(c)
	r.judgeRetention(c.Retention)
	for _, n := range keys(c.Datasets) {
		r.judgeKept("datasets."+n+".retention", c.Datasets[n].Retention)
		r.judgeExport(n, c, plans[n])
	}
	for _, n := range keys(c.Fleets) {
		f := c.Fleets[n]
		r.judgeFleet(n, &f, c.Hub.Key, base, haveBase)
		c.Fleets[n] = f
	}
	for _, n := range keys(c.Pools) {
		p := c.Pools[n]
		r.judgePool("pools."+n, &p, c.Mounts, base, haveBase)
		c.Pools[n] = p
	}
	for _, n := range keys(c.Pipelines) {
		p := c.Pipelines[n]
		r.judgePython("pipelines."+n, &p, c.Pools[p.Pool].Provider, base, haveBase)
		r.judgeCommand("pipelines."+n, &p, base, haveBase)
		c.Pipelines[n] = p
		r.judgePipeline("pipelines."+n, p, c, plans[p.Dataset])
	}
}

func (r *reader) judgeStore(c *fleetscore.Config, base string, haveBase bool) {
	if err := store.CheckURL(c.Store); err != nil {
		r.at("store", "%v", err)
	}
	if c.Store == "" || strings.Contains(c.Store, "://") || filepath.IsAbs(c.Store) {
		return
	}
	if !haveBase {
		r.at("store", "%s is relative to fleet.yaml, but the folder of fleet.yaml is unknown here; write an absolute path", c.Store)
		return
	}
	c.Store = filepath.Join(base, c.Store)
}

func (r *reader) judgeFleet(name string, f *fleetscore.FleetConfig, key []string, base string, haveBase bool) {
	path := "fleets." + name
	r.judgeMembers(path, f, key)
	local := strings.HasPrefix(f.Path, "./") || strings.HasPrefix(f.Path, "../") || f.Path == "." || f.Path == ".."
	switch {
	case f.Path == "":
		r.at(path, "path is missing: a folder of the store such as models/%s, or a folder of this machine such as ./models", name)
	case local && !haveBase:
		r.at(path+".path", "%s is relative to fleet.yaml, but the folder of fleet.yaml is unknown here; write an absolute path or a folder of the store", f.Path)
	case local:
		f.Path = filepath.Join(base, f.Path)
	case !filepath.IsAbs(f.Path) && !strings.HasPrefix(f.Path, catalog.ModelsArea):
		r.at(path+".path", "%s: models must be in the store's area models/; write models/%s, or ./%s for a folder beside fleet.yaml", f.Path, name, f.Path)
	}
}

// judgeMembers checks the settings of a fleet's sensors and of how their models are
// found.
func (r *reader) judgeMembers(path string, f *fleetscore.FleetConfig, key []string) {
	if _, err := fleet.SpecOf("", *f, key); err != nil {
		r.at(path+".model", "%v", err)
	}
	if f.FeaturesBy.Validate() != nil {
		r.at(path+".features_by", "%q: write name or position", string(f.FeaturesBy))
	}
	if f.Sync < fleetscore.Duration(time.Second) {
		r.at(path+".sync", "%s is too often; the folder is listed each time, so write at least 1s", f.Sync)
	}
	if f.Sensors != "" {
		if ext := filepath.Ext(f.Sensors); ext != ".csv" && ext != ".ndjson" && ext != ".jsonl" {
			r.at(path+".sensors", "%s: a list of sensors is a .csv, .ndjson or .jsonl file in the fleet's folder", f.Sensors)
		}
		if slices.Contains(key, fleet.ModelColumn) {
			r.at(path+".sensors", "the key column %q has the same name as the list's column of models; give it another name", fleet.ModelColumn)
		}
	} else if len(f.Defaults) > 0 {
		r.at(path+".defaults", "defaults need a list of sensors, because without a list a sensor without a file is unknown; write sensors: sensors.csv")
	}
	for i, d := range f.Defaults {
		if d.Model == "" {
			r.at(path+".defaults", "default %d has no model: name a file in the fleet's folder", i+1)
		}
		for _, column := range keys(d.When) {
			if !slices.Contains(key, column) {
				r.at(path+".defaults", "default %d: %q is not a key column%s", i+1, column, among(key))
			}
		}
	}
}

func (r *reader) judgePool(path string, p *fleetscore.PoolConfig, mounts map[string]fleetscore.MountConfig, base string, haveBase bool) {
	switch {
	case p.Provider != "local" && p.Provider != "static" && p.Provider != "exec" && p.Provider != "docker":
		r.at(path+".provider", "%q is not a provider; write local (child processes of the server), static (agents that you start), exec (machines that your commands start) or docker (containers)", p.Provider)
	case p.Provider == "exec" && p.Exec == nil:
		r.at(path+".provider", "the provider exec needs commands; write exec: {start: [./start], stop: [./stop], list: [./list]} (docs/pools.md)")
	case p.Provider != "exec" && p.Exec != nil:
		r.at(path+".exec", "commands belong to the provider exec, and this pool's provider is %s", p.Provider)
	}
	if p.Exec != nil {
		r.judgeExec(path+".exec", p.Exec, base, haveBase)
	}
	r.judgeDocker(path, p, mounts)
	if _, scaled := r.lines[path+".scale"]; scaled && p.Provider == "static" {
		r.at(path+".scale", "nobody but you starts and stops the nodes of a static pool; leave scale out")
	}
	if p.Setup != nil {
		r.judgeSetup(path+".setup", p, base, haveBase)
	}
	if p.StartLimit < 0 {
		r.at(path+".start_limit", "%s is negative", p.StartLimit)
	}
	if p.Slots < 1 || p.Slots > 1024 {
		r.at(path+".slots", "%d slots; from 1 to 1024 are possible", p.Slots)
	}
	if s := p.Scale; s.Min < 0 || s.Max < s.Min || s.Max > 1000 {
		r.at(path+".scale", "min %d, max %d: 0 ≤ min ≤ max ≤ 1000 must hold", s.Min, s.Max)
	}
	if low := p.Scale.LowPriority; low != nil {
		if low.Min < 0 || low.Max < low.Min || low.Max > 1000 {
			r.at(path+".scale.low_priority", "min %d, max %d: 0 ≤ min ≤ max ≤ 1000 must hold", low.Min, low.Max)
		}
		if cost := low.CostPerHour; cost < 0 || math.IsNaN(cost) || cost > maxCost {
			r.at(path+".scale.low_priority.cost_per_hour", "%v: a price from 0 to %d is possible", cost, maxCost)
		}
	}
	if p.Scale.IdleAfter < 0 {
		r.at(path+".scale.idle_after", "%s is negative", p.Scale.IdleAfter)
	}
	if cost := p.Scale.CostPerHour; cost < 0 || math.IsNaN(cost) || cost > maxCost {
		r.at(path+".scale.cost_per_hour", "%v: a price from 0 to %d is possible", cost, maxCost)
	}
	r.judgeFormula(path+".scale", p.Scale)
}

// maxCost bounds the price of a node for an hour.
const maxCost = 1_000_000

// judgeFormula checks what a formula is written with, and the formula itself.
func (r *reader) judgeFormula(path string, s fleetscore.ScaleConfig) {
	every := s.EvaluationInterval
	if s.Formula == "" {
		if every != 0 {
			r.at(path+".evaluation_interval", "there is no formula to evaluate; write one, or leave evaluation_interval out")
		}
		return
	}
	if _, set := r.lines[path+".max"]; !set {
		r.at(path, "max is missing: the most nodes that the pool may have, whatever its formula says")
	}
	if _, set := r.lines[path+".idle_after"]; set {
		r.at(path+".idle_after", "the formula decides when nodes end; leave idle_after out")
	}
	if every.D() < autoscale.LeastInterval || every.D() > autoscale.MostInterval {
		r.at(path+".evaluation_interval", "%s: from %s to %s are possible", every, fleetscore.Duration(autoscale.LeastInterval), fleetscore.Duration(autoscale.MostInterval))
	}
	for _, f := range formula.Check(s.Formula) {
		if f.Severity != formula.Wrong {
			continue
		}
		text := fmt.Sprintf("%s.formula: line %d, column %d: %s (%s)", path, f.Line, f.Column, shown(f.Message), f.Hint)
		if first, block := r.blocks[path+".formula"]; block {
			r.problemf(first+f.Line-1, "%s", text)
		} else {
			r.problemf(r.lines[path+".formula"], "%s", text)
		}
	}
}

// judgeSetup checks the command that prepares nodes. Only the path of a program on the
// server's machine can be relative to fleet.yaml.
func (r *reader) judgeSetup(path string, p *fleetscore.PoolConfig, base string, haveBase bool) {
	c := p.Setup.Command
	switch {
	case len(c) == 0 || c[0] == "":
		r.at(path, "command is missing: a program and its arguments, such as [prepare.sh]")
	case filepath.IsAbs(c[0]) || !strings.Contains(c[0], "/"):
	case p.Provider != "local":
		r.at(path+".command", "%s is a path on the machines of the nodes, which don't know where fleet.yaml lies; write an absolute path, or the program's name alone", c[0])
	case !haveBase:
		r.at(path+".command", "%s is relative to fleet.yaml, but the folder of fleet.yaml is unknown here; write an absolute path", c[0])
	default:
		c[0] = filepath.Join(base, c[0])
	}
	if p.Setup.Timeout < 0 {
		r.at(path+".timeout", "%s is negative", p.Setup.Timeout)
	}
}

// judgeExec checks commands, and makes their paths absolute.
func (r *reader) judgeExec(path string, x *fleetscore.ExecConfig, base string, haveBase bool) {
	for _, c := range []struct {
		name    string
		command []string
	}{{"start", x.Start}, {"stop", x.Stop}, {"list", x.List}} {
		switch {
		case len(c.command) == 0 || c.command[0] == "":
			r.at(path, "%s is missing: a program and its arguments, such as [./%s]; without it, machines that are no longer needed could run on", c.name, c.name)
		case filepath.IsAbs(c.command[0]):
		case !haveBase:
			r.at(path+"."+c.name, "%s is relative to fleet.yaml, but the folder of fleet.yaml is unknown here; write an absolute path", c.command[0])
		default:
			c.command[0] = filepath.Join(base, c.command[0])
		}
	}
	if x.Timeout < 0 {
		r.at(path+".timeout", "%s is negative", x.Timeout)
	}
	if u, err := url.Parse(x.Server); x.Server != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		r.at(path+".server", "%q is not the URL of a server; write for example https://fleet.example.com:7180", x.Server)
	}
}

// judgeSensors judges whether a pipeline's fleet fits its dataset, and returns the fleet's key columns.
func (r *reader) judgeSensors(path string, p fleetscore.PipelineConfig, c *fleetscore.Config, plan *query.Plan) []string {
	f, ok := c.Fleets[p.Fleet]
	key := f.KeyOr(c.Hub.Key)
	if !ok {
		r.at(path, "fleet %q is not described under fleets%s", p.Fleet, among(keys(c.Fleets)))
	} else if plan != nil && !slices.Equal(plan.KeyNames, key) {
		r.at(path, "the dataset %s has the key columns %s, and the sensors of fleet %s have %s; write key: [%s] in the fleet", p.Dataset, strings.Join(plan.KeyNames, ", "), p.Fleet, strings.Join(key, ", "), strings.Join(plan.KeyNames, ", "))
	}
	return key
}

func (r *reader) judgePipeline(path string, p fleetscore.PipelineConfig, c *fleetscore.Config, plan *query.Plan) {
	if p.Shadow != "" && !r.judgeShadow(path, p, c) {
		return
	}
	if !goodName.MatchString(p.Dataset) {
		r.at(path, "dataset %q: name a query's INTO or an uploaded dataset (a-z, 0-9, - and _)", p.Dataset)
	}
	key := r.judgeSensors(path, p, c, plan)
	if _, ok := c.Pools[p.Pool]; !ok {
		r.at(path, "pool %q is not described under pools%s", p.Pool, among(keys(c.Pools)))
	}
	if len(p.Features) == 0 {
		r.at(path, "features is missing: the value columns that the models were trained with")
	}
	seen := map[string]bool{}
	var known []string
	if plan != nil {
		known = plan.Values()
	}
	check := func(where, column string) {
		if plan != nil && !slices.Contains(known, column) {
			r.at(path+"."+where, "dataset %s has no column %q%s", p.Dataset, column, among(known))
		}
	}
	for _, f := range p.Features {
		out, column := fleetscore.SplitFeature(f)
		if out == "" || column == "" || seen[out] {
			r.at(path+".features", "feature %q: write a column, or Name=column, each name once", f)
		}
		seen[out] = true
		check("features", column)
	}
	if p.Label != "" {
		check("label", p.Label)
	}
	if p.FeaturesBy.Validate() != nil {
		r.at(path+".features_by", "%q: write name or position", string(p.FeaturesBy))
	}
	if err := p.Priority.Validate(); err != nil {
		r.at(path+".priority", "%v", err)
	}
	if p.Missing.Validate() != nil {
		r.at(path+".missing", "%q: write fail, skip or model", string(p.Missing))
	}
	if p.Logs.Layout.Validate() != nil {
		r.at(path+".logs.layout", "%q: write nested or flat", string(p.Logs.Layout))
	}
	outputs := slices.Collect(maps.Keys(seen))
	if p.Label != "" && !seen[p.Label] {
		outputs = append(outputs, p.Label)
	} else if p.Label != "" {
		r.at(path+".label", "%s is a feature's name too; rename the feature: Other=%s", p.Label, p.Label)
	}
	for _, s := range []table.TableSchema{catalog.PredictionSchema(c.Hub.Time, key, outputs), catalog.ItemSchema(key)} {
		if err := s.Check(); err != nil {
			r.at(path, "its results: %v", err)
		}
	}
	if p.Shadow == "" {
		r.judgeSchedule(path+".schedule", p.Schedule)
		r.judgeRunAfter(path+".schedule", p.Schedule, c)
	}
	if p.Schedule.Deadline < 0 || p.Schedule.Backfill < 0 || p.Limits.ModelTimeout < 0 || p.Limits.TaskTimeout < 0 || p.Limits.JobTimeout < 0 {
		r.at(path, "deadline, backfill, model_timeout, task_timeout and job_timeout can't be negative")
	}
	r.judgeKept(path+".retention", p.Retention)
	r.judgeKept(path+".history", p.History)
	if p.Limits.QuarantineAfter < 1 || p.Limits.QuarantineAfter > 100 {
		r.at(path+".limits.quarantine_after", "%d jobs; from 1 to 100 are possible", p.Limits.QuarantineAfter)
	}
	if m := p.Limits.ModelMemoryMB; m != 0 && m < 256 {
		r.at(path+".limits.model_memory_mb", "%d MB; the process that scores a model needs at least 256", m)
	}
	if p.Limits.Tries < 1 || p.Limits.Tries > 100 {
		r.at(path+".limits.tries", "%d tries; from 1 to 100 are possible", p.Limits.Tries)
	}
}

func (r *reader) judgeSchedule(path string, c fleetscore.ScheduleConfig) {
	_, err := schedule.Parse(c)
	problems := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		problems = joined.Unwrap()
	}
	for _, err := range problems {
		var e *fleetscore.Error
		if at := path; errors.As(err, &e) {
			for _, field := range []string{"cron", "recurrence", "zone", "start", "end"} {
				if e.Op == "read cron line" && field == "cron" || e.Subject == field || strings.HasPrefix(e.Subject, field+".") {
					at = path + "." + field
				}
			}
			r.at(at, "%v", err)
		}
	}
	if w := c.StartWhen; w != "complete" && w != "clock" {
		r.at(path+".start_when", "%q: write complete or clock", w)
	}
	if c.Overlap.Validate() != nil {
		r.at(path+".overlap", "%q: write skip, queue_one, queue_all, replace or allow", string(c.Overlap))
	}
	if c.CatchUp.Validate() != nil {
		r.at(path+".catch_up", "%q: write none, last or all", string(c.CatchUp))
	}
	for _, d := range []struct {
		name string
		v    fleetscore.Duration
	}{{"jitter", c.Jitter}, {"catch_up_window", c.CatchUpWindow}} {
		if d.v < 0 {
			r.at(path+"."+d.name, "%s is negative", d.v)
		}
	}
}

func among(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "; there is: " + strings.Join(names, ", ")
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
