package config

import (
	"cmp"
	"reflect"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// follow gives a shadow pipeline what it doesn't say itself: the settings of the pipeline
// that it shadows, a due time after each of its jobs, and low priority. A shadow of a
// pipeline that isn't there, or is a shadow too, stays as it is; judgeShadow refuses it.
func follow(p *fleetscore.PipelineConfig, c *fleetscore.Config) {
	live, ok := c.Pipelines[p.Shadow]
	if !ok || live.Shadow != "" {
		return
	}
	for _, by := range []fleetscore.FeatureOrder{c.Fleets[p.Fleet].FeaturesBy, live.FeaturesBy, c.Fleets[live.Fleet].FeaturesBy} {
		def(&p.FeaturesBy, by)
	}
	inherit(reflect.ValueOf(p).Elem(), reflect.ValueOf(live))
	// The jobs of the other pipeline have waited for the data already.
	p.Schedule = fleetscore.ScheduleConfig{RunAfter: p.Shadow, StartWhen: "clock"}
	p.Priority = fleetscore.PriorityLow
}

// inherit copies the values of fields that are zero.
func inherit(into, from reflect.Value) {
	for i := range into.NumField() {
		switch f := into.Field(i); {
		case f.Kind() == reflect.Struct:
			inherit(f, from.Field(i))
		case f.IsZero() && into.Type().Field(i).Name != "Shadow":
			f.Set(from.Field(i))
		}
	}
}

// judgeShadow refuses a shadow pipeline without a pipeline to shadow, and settings that
// it can't have of its own. It reports whether the rest can be judged.
func (r *reader) judgeShadow(path string, p fleetscore.PipelineConfig, c *fleetscore.Config) bool {
	for _, s := range []struct{ name, why string }{
		{"dataset", "a shadow scores the rows of the pipeline that it shadows"},
		{"schedule", "a shadow's jobs follow those of the pipeline that it shadows"},
		{"priority", "a shadow's jobs have low priority, so that they don't delay others"},
	} {
		if _, set := r.lines[path+"."+s.name]; set {
			r.at(path+"."+s.name, "%s; leave %s out", s.why, s.name)
		}
	}
	live, ok := c.Pipelines[p.Shadow]
	var there []string
	for _, name := range keys(c.Pipelines) {
		if c.Pipelines[name].Shadow == "" {
			there = append(there, name)
		}
	}
	switch {
	case !ok:
		r.at(path+".shadow", "pipeline %q is not described under pipelines%s", p.Shadow, cmp.Or(nearest(p.Shadow, there), among(there)))
		return false
	case live.Shadow != "" && path == "pipelines."+p.Shadow:
		r.at(path+".shadow", "a pipeline can't shadow itself; name the pipeline whose data the candidate is to score%s", among(there))
		return false
	case live.Shadow != "":
		r.at(path+".shadow", "%s is a shadow too, of %s; name that pipeline", p.Shadow, live.Shadow)
		return false
	}
	if p.Fleet == live.Fleet && slices.Equal(p.Features, live.Features) && p.FeaturesBy == live.FeaturesBy && p.Missing == live.Missing &&
		p.Runtime == live.Runtime && reflect.DeepEqual(p.Python, live.Python) && reflect.DeepEqual(p.Command, live.Command) {
		r.at(path, "it would score what %s scores, with the same models of fleet %s in the same way; name another fleet, features, runtime, script or command", p.Shadow, p.Fleet)
	}
	return true
}

// leastKept is the least size that a limit may have: a table's files are expired whole.
const leastKept = 1_000_000

func (r *reader) judgeRetention(c fleetscore.RetentionConfig) {
	for _, k := range []struct {
		name string
		fleetscore.KeepConfig
	}{{"predictions", c.Predictions}, {"logs", c.Logs}, {"history", fleetscore.KeepConfig{Age: c.History.Age, Size: c.History.Size}}} {
		r.judgeKept("retention."+k.name+".age", k.Age)
		if k.Size != 0 && k.Size < leastKept {
			r.at("retention."+k.name+".size", "%s is too little: write at least %s, or leave it out", k.Size, fleetscore.Size(leastKept))
		}
	}
	if c.History.Jobs < 0 {
		r.at("retention.history.jobs", "%d is negative", c.History.Jobs)
	}
}

// judgeKept checks how long data is kept. Files hold up to an hour of rows, so that a
// shorter time would keep nothing.
func (r *reader) judgeKept(path string, d fleetscore.Duration) {
	if d != 0 && d < fleetscore.Duration(time.Hour) {
		r.at(path, "%s is too short: write at least 1h, or leave it out", d)
	}
}

// judgeRunAfter refuses a pipeline that follows one that isn't there, or itself, also
// through others.
func (r *reader) judgeRunAfter(path string, s fleetscore.ScheduleConfig, c *fleetscore.Config) {
	if s.RunAfter == "" {
		return
	}
	if s.IsSet() || s.Start != "" || s.End != "" || s.Zone != "" || s.Jitter != 0 || s.Backfill != 0 || s.CatchUpWindow != 0 {
		r.at(path+".run_after", "a pipeline that follows another one has no due times of its own; leave cron, recurrence, zone, start, end, jitter, backfill and catch_up_window out")
	}
	seen := map[string]bool{}
	for next := s.RunAfter; next != ""; next = c.Pipelines[next].Schedule.RunAfter {
		if _, ok := c.Pipelines[next]; !ok {
			r.at(path+".run_after", "pipeline %q is not described under pipelines%s", next, among(keys(c.Pipelines)))
			return
		}
		if live := c.Pipelines[next].Shadow; live != "" {
			r.at(path+".run_after", "%s is a shadow of %s, which may be taken away at any time; follow %s, or make this one a shadow too", next, live, live)
			return
		}
		if seen[next] {
			r.at(path+".run_after", "the pipelines follow one another in a circle that contains %s; none of their jobs would ever be due", next)
			return
		}
		seen[next] = true
	}
	if first := c.Pipelines[s.RunAfter].Schedule; !first.IsSet() && first.RunAfter == "" {
		r.at(path+".run_after", "pipeline %s has no schedule, so that nothing would follow it; give it one", s.RunAfter)
	}
}
