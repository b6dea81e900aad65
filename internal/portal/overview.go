package portal

import (
	"cmp"
	"context"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/table"
)

// recent is how far back anomalies are counted, maxRows how many rows are read at
// most to count them, and maxSensors how many sensors are shown. Counts are used
// again for keep.
const (
	recent     = time.Hour
	maxRows    = 500_000
	maxSensors = 100
	keep       = 20 * time.Second
)

// overview is the portal's first page.
type overview struct {
	Now       time.Time // of the page
	Problems  []obs.Problem
	Gateway   gateway.Stats
	Queries   []query
	Jobs      []fleetscore.Job
	Counts    []count
	Pools     []poolTile
	Fleets    []fleetPanel
	Pipelines []pipeline
	Schedules []dueRow
	Servers   []fleetscore.Server // if several may share the work
}

// refresh is the number of seconds after which a browser loads the page again.
func (overview) refresh() int { return 5 }

type query struct {
	aggregator.Status
	CompleteUntil time.Time // zero before the first commit
	Counted       int64
	Late          int64
	Early         int64
	Repeats       int64
	Rows          int64
	Sensors       *sensorCounts // nil before the first row
}

// Share says which share of the readings was set aside or repeated, unless the share
// is small.
func (q query) Share() string {
	aside := q.Late + q.Early + q.Repeats
	if aside == 0 || 1000*aside < q.Counted {
		return ""
	}
	return fmt.Sprintf(" (%.1f %% of all)", 100*float64(aside)/float64(aside+q.Counted))
}

type count struct {
	State fleetscore.JobState
	N     int64
}

// pipeline holds the recent results of one pipeline.
type pipeline struct {
	Name    string
	Shadow  string        // the pipeline whose rows it scores for comparison; empty if its results are live
	Label   string        // the column with the true labels; empty if there is none
	Over    time.Duration // how far back rows are counted: recent, or less if there are many
	Sensors []sensorRow   // the sensors with the most anomalies
	More    int           // sensors that aren't shown
	Problem string        // why the results can't be read; empty if they were read

	version int64 // of the table
	made    time.Time
}

// sensorRow holds the recent results of one sensor.
type sensorRow struct {
	Key             fleetscore.Key
	Rows, Anomalies int64
	Faults, Found   int64 // rows that are truly faulty, and how many of these were flagged
	Last            time.Time
	LastIsAnomaly   bool
	Pipeline        string
}

// URL is the sensor's page.
func (s sensorRow) URL() string { return sensorURL(s.Pipeline, s.Key) }

func sensorURL(pipeline string, k fleetscore.Key) string {
	q := url.Values{"key": k.Values()}
	return "/sensors/" + url.PathEscape(pipeline) + "?" + q.Encode()
}

func (p *Portal) overview(r *http.Request) (any, error) {
	ctx := r.Context()
	cfg, _, _, err := p.deps.Ledger.Config(ctx)
	if err != nil && !fleetscore.NotFound.Is(err) {
		return nil, err
	}
	sensors := map[string]*sensorCounts{}
	for _, c := range p.deps.Sensors.Counts() {
		sensors[c.Dataset] = countsOf(c)
	}
	v := overview{Now: p.deps.Now(), Problems: p.deps.Health.Problems(), Gateway: p.deps.Gateway()}
	for _, s := range p.deps.Queries() {
		q := query{Status: s, Sensors: sensors[s.Dataset]}
		snap, err := p.deps.Catalog.Dataset(s.Dataset).Snapshot(ctx)
		switch {
		case err == nil:
			if until, ok := catalog.CompleteUntil(snap, p.deps.Now()); ok {
				q.CompleteUntil = until.Time()
			}
			q.Rows = snap.Rows()
		case !fleetscore.NotFound.Is(err) && q.Problem == "":
			q.Problem = err.Error()
		}
		for _, part := range s.Partitions {
			q.Counted, q.Late, q.Early, q.Repeats = q.Counted+part.Counted, q.Late+part.Late, q.Early+part.Early, q.Repeats+part.Repeats
		}
		v.Queries = append(v.Queries, q)
	}
	if v.Jobs, err = p.deps.Ledger.Jobs(ctx, ledger.JobFilter{Limit: 12}); err != nil {
		return nil, err
	}
	counts, err := p.deps.Ledger.CountJobs(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range fleetscore.JobStates {
		if counts[s] > 0 {
			v.Counts = append(v.Counts, count{s, counts[s]})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Pools)) {
		one, err := p.poolTile(ctx, name, cfg.Pools[name])
		if err != nil {
			return nil, err
		}
		v.Pools = append(v.Pools, one)
	}
	if p.deps.Servers != nil {
		if v.Servers, err = p.deps.Servers(ctx); err != nil {
			return nil, err
		}
	}
	if v.Schedules, err = p.schedules(ctx, cfg); err != nil {
		return nil, err
	}
	v.Fleets = p.fleets(ctx, cfg)
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		one, err := p.results(ctx, name, cfg.Pipelines[name])
		if err != nil { // the others are shown
			one.Problem = err.Error()
		}
		v.Pipelines = append(v.Pipelines, one)
	}
	return v, nil
}

// results counts the recent predictions of a pipeline per sensor, unless a recent
// count is there.
func (p *Portal) results(ctx context.Context, name string, cfg fleetscore.PipelineConfig) (pipeline, error) {
	out := pipeline{Name: name, Shadow: cfg.Shadow, Label: cfg.Label, Over: recent, made: p.deps.Now()}
	d := p.deps.Catalog.Predictions(name)
	snap, err := d.Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return out, nil
	} else if err != nil {
		return out, err
	}
	out.version = snap.Version
	done, err := p.counting.Take(ctx, name)
	if err != nil {
		return out, err
	}
	defer done()
	p.mu.Lock()
	last, ok := p.counted[name]
	p.mu.Unlock()
	if ok && last.version == out.version && last.Label == out.Label && last.Shadow == out.Shadow && out.made.Sub(last.made) < keep {
		return last, nil
	}
	query := table.ReadQuery{Interval: &fleetscore.Interval{From: out.made.Add(-out.Over), To: out.made}}
	for out.Over > time.Minute && countRows(query.Prune(snap.Files)) > maxRows {
		out.Over = (out.Over / 2).Round(time.Second)
		query.Interval.From = out.made.Add(-out.Over)
	}
	rows, err := d.ReadPredictions(ctx, snap.Files, query)
	if err != nil {
		return out, err
	}
	out.Sensors = sensorRows(name, cfg.Label, rows)
	if n := len(out.Sensors); n > maxSensors {
		out.Sensors, out.More = slices.Clone(out.Sensors[:maxSensors]), n-maxSensors
	}
	p.mu.Lock()
	p.counted[name] = out
	p.mu.Unlock()
	return out, nil
}

func countRows(files []fleetscore.DataFile) (n int64) {
	for _, f := range files {
		n += f.Rows
	}
	return n
}

// sensorRows counts per sensor; those with the most anomalies come first.
func sensorRows(pipeline, label string, rows *fleetscore.Predictions) []sensorRow {
	sensors := make([]sensorRow, len(rows.Keys))
	for i, k := range rows.Keys {
		sensors[i] = sensorRow{Key: k, Pipeline: pipeline}
	}
	truth := rows.Column(label)
	for i, t := range rows.Times {
		s := &sensors[rows.KeyIndex[i]]
		s.Rows++
		anomaly := rows.Prediction[i] == 1
		if anomaly {
			s.Anomalies++
		}
		if truth != nil && truth[i] > 0 {
			s.Faults++
			if anomaly {
				s.Found++
			}
		}
		if at := t.Time(); at.After(s.Last) {
			s.Last, s.LastIsAnomaly = at, anomaly
		}
	}
	slices.SortFunc(sensors, func(a, b sensorRow) int {
		return cmp.Or(cmp.Compare(b.Anomalies, a.Anomalies), cmp.Compare(a.Key, b.Key))
	})
	return sensors
}

// functions are the functions that pages may call.
var functions = template.FuncMap{
	"utc": instant,
	"interval": func(now time.Time, iv fleetscore.Interval) string {
		return instant(now, iv.From) + " – " + instant(now, iv.To)
	},
	"span": func(d time.Duration) string {
		for _, unit := range []struct {
			d    time.Duration
			name string
		}{{24 * time.Hour, "day"}, {time.Hour, "hour"}} {
			if n := d / unit.d; n == 1 && d == unit.d {
				return unit.name
			} else if n > 1 && d%unit.d == 0 {
				return fmt.Sprintf("%d %ss", n, unit.name)
			}
		}
		return strings.TrimSuffix(d.String(), "0s")
	},
	"full": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"num": func(n any) string {
		switch v := n.(type) {
		case int64:
			return group(v)
		case uint64:
			return group(int64(v))
		case int:
			return group(int64(v))
		}
		return "?"
	},
	"last": func(p jobPage) int { return p.First + len(p.Items) - 1 },
	"took": func(j fleetscore.Job) string {
		if j.Started == nil || j.Ended == nil {
			return "–"
		}
		return j.Ended.Sub(*j.Started).Round(time.Millisecond).String()
	},
	"micros": func(m fleetscore.Micros) string {
		if m == 0 {
			return "–"
		}
		return m.Time().Format(time.DateTime)
	},
	"short":     short,
	"seconds":   func(x float64) string { return time.Duration(x * float64(time.Second)).Round(time.Second).String() },
	"money":     func(v *float64) string { return fmt.Sprintf("%.2f", *v) },
	"sensorURL": sensorURL, "shortImage": fleetscore.ShortImage,
	"glyph": func(state any) string { return glyphs[toString(state)] },
}

// instant is a time as pages show it: with its date unless that is today.
func instant(now, t time.Time) string {
	now, t = now.UTC(), t.UTC()
	switch {
	case t.IsZero():
		return "–"
	case t.Format(time.DateOnly) == now.Format(time.DateOnly):
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

func toString(v any) string {
	switch s := v.(type) {
	case fleetscore.JobState:
		return string(s)
	case fleetscore.NodeState:
		return string(s)
	case fleetscore.TaskState:
		return string(s)
	case fleetscore.Outcome:
		return string(s)
	case fleetscore.ServerState:
		return string(s)
	}
	return ""
}

// glyphs gives each state a sign in addition to its colour.
var glyphs = map[string]string{
	"waiting": "◷", "queued": "○", "running": "▶", "leased": "▶", "committing": "⇪", "succeeded": "✓", "partly_failed": "◐", "failed": "✗", "canceled": "⊘",
	"starting": "◌", "preparing": "◔", "idle": "●", "draining": "◍", "unusable": "⊗", "lost": "✗", "stopped": "■",
	"scored": "✓", "no_data": "·", "no_model": "?", "timed_out": "⌛", "quarantined": "☣", "excluded": "–",
	"leads": "★", "follows": "●", "silent": "✗", "ended": "■",
}

// group writes a number with thin spaces between thousands.
func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

func short(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
