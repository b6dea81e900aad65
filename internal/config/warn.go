package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/schedule"
)

// Warnings lists settings that are allowed but are most likely mistakes, in a
// configuration that Parse accepted. now is when schedules begin; there says which
// datasets already have rows, as far as this is known.
func Warnings(c fleetscore.Config, now time.Time, there func(dataset string) bool) []string {
	var out []string
	warn := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	queries := map[string]fleetscore.QueryConfig{} // by the dataset that they write
	for _, q := range c.Queries {
		plans, _ := query.Parse(q.SQL, c.Hub.Key) // it was judged before
		for _, plan := range plans {
			queries[plan.Into] = q
		}
	}
	fleets, pools := map[string]bool{}, map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(c.Pipelines)) {
		p := c.Pipelines[name]
		fleets[p.Fleet], pools[p.Pool] = true, true
		q, written := queries[p.Dataset]
		if !written && !there(p.Dataset) {
			warn("pipelines.%s: no query writes the dataset %s%s; its jobs wait until rows are uploaded (fleetscore dataset upload)", name, p.Dataset, nearest(p.Dataset, slices.Sorted(maps.Keys(queries))))
		}
		if !p.Schedule.IsSet() {
			continue
		}
		if r := p.Schedule.Recurrence; r != nil && strings.HasSuffix(r.StartTime, "Z") && cmp.Or(r.TimeZone, p.Schedule.Zone) != "" {
			warn("pipelines.%s.schedule.recurrence.startTime ends in Z, so that the time zone %s is ignored; leave the Z out for a start in that zone", name, cmp.Or(r.TimeZone, p.Schedule.Zone))
		}
		step, ok := shortest(p.Schedule, now)
		switch {
		case !ok:
			warn("pipelines.%s.schedule: its end has passed, so that it is never due again", name)
		case written && q.Cut.D() > step && p.Schedule.StartWhen == "clock":
			warn("pipelines.%s: jobs are due every %s and start at once, but new rows of %s appear only every %s (its query's cut), so that jobs find none; set the query's cut to %s or less", name, fleetscore.Duration(step), p.Dataset, q.Cut, fleetscore.Duration(step))
		case written && q.Cut.D() > step:
			warn("pipelines.%s: jobs are due every %s, but %s becomes complete only in steps of %s (its query's cut), so that jobs wait for up to %s; set the query's cut to %s or less", name, fleetscore.Duration(step), p.Dataset, q.Cut, q.Cut, fleetscore.Duration(step))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Fleets)) {
		if !fleets[name] {
			warn("fleets.%s: no pipeline uses it", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Pools)) {
		if !pools[name] {
			warn("pools.%s: no pipeline uses it", name)
		}
		for _, w := range doubts(c.Pools[name].Scale.Formula) {
			warn("pools.%s.scale.formula: %s", name, w)
		}
	}
	return out
}

// doubts are what is allowed in a formula but most likely not meant.
func doubts(text string) (out []string) {
	if text == "" {
		return nil
	}
	for _, f := range formula.Check(text) {
		out = append(out, fmt.Sprintf("line %d, column %d: %s (%s)", f.Line, f.Column, f.Message, f.Hint))
	}
	return out
}

// shortest is the least time between two of the next occurrences of a schedule;
// false if there are none.
func shortest(c fleetscore.ScheduleConfig, now time.Time) (step time.Duration, ok bool) {
	const looked = 64
	spec, err := schedule.Parse(c)
	if err != nil {
		return 0, false
	}
	at, ok := spec.Next(now)
	if !ok {
		return 0, false
	}
	for range looked {
		next, ok := spec.Next(at)
		if !ok {
			break
		}
		if d := next.Sub(at); step == 0 || d < step {
			step = d
		}
		at = next
	}
	if step == 0 {
		step = 365 * 24 * time.Hour // the schedule is due only once in the next years
	}
	return step, true
}

// nearest suggests the known name that is most similar to a mistyped one.
func nearest(name string, names []string) string {
	best := fleetscore.Nearest(name, names)
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// Leaving warns of pipelines that a change removes: their schedule and predictions
// stay under their old name.
func Leaving(old, now fleetscore.Config) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(old.Pipelines)) {
		if _, stays := now.Pipelines[name]; stays {
			continue
		}
		p := old.Pipelines[name]
		var renamed []string
		for _, other := range slices.Sorted(maps.Keys(now.Pipelines)) {
			q := now.Pipelines[other]
			if _, was := old.Pipelines[other]; !was && q.Dataset == p.Dataset && q.Fleet == p.Fleet {
				renamed = append(renamed, other)
			}
		}
		s := fmt.Sprintf("pipelines.%s is removed: its jobs end; the position of its schedule and its predictions stay under that name", name)
		if len(renamed) > 0 {
			s = fmt.Sprintf("pipelines.%s is gone, and %s scores the same dataset with the same fleet: the schedule begins again, and the old predictions stay under %s; to continue the old schedule, restore the old name", name, strings.Join(renamed, " or "), name)
		}
		out = append(out, s)
	}
	return out
}

// Editing says what a change of queries means for windows that are open.
func Editing(old, now fleetscore.Config) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(old.Queries)) {
		before, _ := query.Parse(old.Queries[name].SQL, old.Hub.Key) // they were judged before
		after, _ := query.Parse(now.Queries[name].SQL, now.Hub.Key)
		for _, o := range before {
			i := slices.IndexFunc(after, func(p *query.Plan) bool { return p.Into == o.Into })
			switch {
			case i < 0:
				out = append(out, fmt.Sprintf("queries.%s no longer writes the dataset %s: its rows stay, and windows that are open now get no row", name, o.Into))
			case strings.TrimSpace(after[i].SQL) != strings.TrimSpace(o.SQL):
				s := fmt.Sprintf("queries.%s is edited: rows that are there stay; windows that are open now, and all later ones, get their rows by the new text from all readings that the hub still has, which are read again", name)
				if keeps := now.Hub.Retention.Age.D(); after[i].Window > keeps {
					s += fmt.Sprintf("; the query looks back %s, and hub.retention is %s, so that its first rows may be of fewer readings", fleetscore.Duration(after[i].Window), fleetscore.Duration(keeps))
				}
				out = append(out, s)
			}
		}
	}
	return slices.Compact(out) // a query with several datasets is edited once
}
