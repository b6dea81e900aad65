package config

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog/export"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// judgeQueries returns the plan of each dataset that a query writes.
func (r *reader) judgeQueries(c *fleetscore.Config) map[string]*query.Plan {
	written := map[string]*query.Plan{}
	for _, n := range keys(c.Queries) {
		q := c.Queries[n]
		path := "queries." + n
		parse := query.Parse
		if q.Late == fleetscore.LateAdjust {
			parse = query.ParseInOrder
		}
		plans, err := parse(q.SQL, c.Hub.Key)
		if err != nil {
			r.at(path, "%v", err)
			continue
		}
		if q.MemoryMB < 0 {
			r.at(path+".memory_mb", "%d is negative", q.MemoryMB)
		}
		if q.Cut.D() <= 0 || (24*time.Hour)%q.Cut.D() != 0 {
			r.at(path, "cut %s must divide a day", q.Cut)
		}
		r.judgeLate(path, c, q, plans)
		for _, plan := range plans {
			r.judgePlan(path, c, q, plan, written)
			written[plan.Into] = plan
		}
	}
	return written
}

// judgeReferences judges where reference data lies.
func (r *reader) judgeReferences(c *fleetscore.Config) {
	for _, name := range keys(c.References) {
		ref, path := c.References[name], "references."+name
		if err := store.CheckName(fleetscore.BlobName(ref.Path)); err != nil || ref.Path == "" {
			r.at(path+".path", "%q is not the name of a file in the store, such as references/%s.csv", ref.Path, name)
		} else if !slices.Contains([]string{".csv", ".parquet"}, strings.ToLower(filepath.Ext(ref.Path))) {
			r.at(path+".path", "%s: reference data is a .csv or .parquet file", ref.Path)
		}
		if ref.Every.D() < time.Second {
			r.at(path+".every", "%s is less than 1s", ref.Every)
		}
	}
}

// judgeExport judges where the plain files of a dataset lie; plan is that of its query, if there is one.
func (r *reader) judgeExport(name string, c *fleetscore.Config, plan *query.Plan) {
	files, path := c.Datasets[name].Files, "datasets."+name+".files"
	if files == "" {
		return
	}
	key := c.Hub.Key
	if plan != nil {
		key = plan.KeyNames
	}
	if _, err := export.Parse(files, key); err != nil {
		r.at(path, "%v", err)
	}
	for _, other := range keys(c.Datasets) {
		if other < name && c.Datasets[other].Files == files {
			r.at(path, "the dataset %s has the same path; write another one", other)
		}
	}
}

// judgePlan judges what a query does for one of its datasets.
func (r *reader) judgePlan(path string, c *fleetscore.Config, q fleetscore.QueryConfig, plan *query.Plan, written map[string]*query.Plan) {
	if !goodName.MatchString(plan.Into) {
		r.at(path, "INTO %s: a dataset's name must start with a lower-case letter and have only a-z, 0-9, - and _", plan.Into)
	}
	if written[plan.Into] != nil {
		r.at(path, "INTO %s: another query already writes into that dataset", plan.Into)
	}
	if plan.From != "hub" {
		r.at(path, "FROM %s: readings come from the hub; write FROM hub", plan.From)
	}
	if timed := plan.General != nil && plan.General.Timed; !timed && plan.TimestampBy != c.Hub.Time {
		r.at(path, "TIMESTAMP BY %[1]s: the hub's time column is %[2]s; name the same in both, or, if readings have another time in %[1]s, write TIMESTAMP BY TRY_CAST(%[1]s AS datetime)", plan.TimestampBy, c.Hub.Time)
	}
	if plan.General != nil {
		for _, name := range plan.General.References {
			if _, ok := c.References[name]; !ok {
				hint := ""
				if near := fleetscore.Nearest(name, keys(c.References)); near != "" {
					hint = "; is " + near + " meant?"
				}
				r.at(path, "JOIN %s: there is no such reference data; write references: {%s: {path: references/%s.csv}}%s", name, name, name, hint)
			}
		}
	}
	if plan.Hop > 0 && q.Cut.D() > 0 && q.Cut.D()%plan.Hop != 0 {
		r.at(path, "cut %s must be a multiple of the window (%s)", q.Cut, plan.Hop)
	}
	if err := table.DatasetSchema(plan.StampName, plan.KeyNames, plan.Values()).Check(); err != nil {
		r.at(path, "%v", err)
	}
}

// judgeLate judges what happens to late readings.
func (r *reader) judgeLate(path string, c *fleetscore.Config, q fleetscore.QueryConfig, plans []*query.Plan) {
	if q.LateWithin < 0 {
		r.at(path+".late_within", "%s is negative", q.LateWithin)
	}
	over := slices.IndexFunc(plans, func(p *query.Plan) bool { return p.General != nil && p.General.Over != "" })
	most := fleetscore.Duration(21 * 24 * time.Hour)
	switch q.Late {
	case fleetscore.LateRevise:
		if over >= 0 {
			r.at(path+".late", "revise doesn't go with TIMESTAMP BY … OVER, which the statement INTO %s has: with OVER each sensor's readings are waited for already, up to late_within. Write drop or adjust, or leave OVER out", plans[over].Into)
			return
		}
	case fleetscore.LateAdjust:
		if q.LateWithin > most {
			r.at(path+".late_within", "%s is more than %s", q.LateWithin, most)
		}
		return
	default:
		if q.LateWithin != 0 && over < 0 {
			r.at(path+".late_within", "it has a meaning only with late: revise or adjust, or with TIMESTAMP BY … OVER")
		} else if q.LateWithin > most {
			r.at(path+".late_within", "%s is more than %s", q.LateWithin, most)
		}
		if q.Late == "" || q.Late == fleetscore.LateDrop {
			return
		}
		r.at(path+".late", "%s is not possible; write drop, which sets late readings aside, revise, which computes the rows of their windows again, or adjust, which counts them at the earliest time that is still possible", q.Late)
		return
	}
	for _, plan := range plans {
		need := q.Revises()
		if plan.General == nil { // others keep what they need of older readings
			need += plan.Window
		}
		if age := c.Hub.Retention.Age; age != 0 && need > age.D() {
			r.at(path+".late_within", "a late reading's window is computed again from the hub's readings, so late_within and the window (%s together) must not be longer than hub.retention, which is %s", fleetscore.Duration(need), age)
		}
	}
}
