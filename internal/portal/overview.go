package portal

import (
	"cmp"
	"context"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/table"
)

// recent is how far back anomalies are counted.
const recent = time.Hour

// overview is the first page.
type overview struct {
	Gateway   gateway.Stats
	Queries   []query
	Jobs      []fleetscore.Job
	Counts    []count
	Pools     []pool
	Fleets    []fleetPanel
	Pipelines []pipeline
}

type query struct {
	aggregator.Status
	CompleteUntil time.Time // zero before the first commit
	Counted       int64
	Late          int64
	Repeats       int64
	Rows          int64
}

type count struct {
	State fleetscore.JobState
	N     int64
}

type pool struct {
	Name           string
	Queued, Leased int64
	Nodes          []fleetscore.Node
	Max            int
}

// pipeline is the recent results of one pipeline.
type pipeline struct {
	Name    string
	Label   string // column with the truth; empty if there is none
	Sensors []sensorRow
}

// sensorRow is the recent results of one sensor.
type sensorRow struct {
	Key                fleetscore.Key
	Rows, Anomalies    int64
	Faults, Found      int64 // rows that are truly faulty, and those of them that were flagged
	Last               time.Time
	LastIsAnomaly      bool
	Pipeline, KeyQuery string
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
	v := overview{Gateway: p.deps.Gateway()}
	for _, s := range p.deps.Queries() {
		q := query{Status: s}
		if snap, err := p.table("data/" + s.Dataset).Snapshot(ctx); err == nil {
			if until, ok := table.CompleteUntil(snap); ok {
				q.CompleteUntil = until.Time()
			}
			q.Rows = snap.Rows()
		}
		for _, part := range s.Partitions {
			q.Counted, q.Late, q.Repeats = q.Counted+part.Counted, q.Late+part.Late, q.Repeats+part.Repeats
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
		one := pool{Name: name, Max: cfg.Pools[name].Scale.Max}
		if one.Queued, one.Leased, err = p.deps.Ledger.QueueDepth(ctx, name); err != nil {
			return nil, err
		}
		nodes, err := p.deps.Ledger.Nodes(ctx, name)
		if err != nil {
			return nil, err
		}
		one.Nodes = slices.DeleteFunc(nodes, func(n fleetscore.Node) bool {
			return n.State == fleetscore.NodeStopped || n.State == fleetscore.NodeLost
		})
		v.Pools = append(v.Pools, one)
	}
	if v.Fleets, err = p.fleets(ctx, cfg); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		one, err := p.results(ctx, name, cfg.Pipelines[name])
		if err != nil {
			return nil, err
		}
		v.Pipelines = append(v.Pipelines, one)
	}
	return v, nil
}

// results counts the recent predictions of a pipeline per sensor.
func (p *Portal) results(ctx context.Context, name string, cfg fleetscore.PipelineConfig) (pipeline, error) {
	out := pipeline{Name: name, Label: cfg.Label}
	d := p.table("predictions/" + name)
	snap, err := d.Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return out, nil
	} else if err != nil {
		return out, err
	}
	now := p.deps.Now()
	rows, err := d.ReadPredictions(ctx, snap.Files, table.ReadQuery{Interval: &fleetscore.Interval{From: now.Add(-recent), To: now}})
	if err != nil {
		return out, err
	}
	sensors := make([]sensorRow, len(rows.Keys))
	for i, k := range rows.Keys {
		sensors[i] = sensorRow{Key: k, Pipeline: name}
	}
	truth := rows.Column(cfg.Label)
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
	out.Sensors = sensors
	return out, nil
}

// functions are what pages may call.
var functions = template.FuncMap{
	"utc": func(t time.Time) string {
		if t.IsZero() {
			return "–"
		}
		return t.UTC().Format("15:04:05")
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
		return m.Time().Format("15:04:05")
	},
	"sensorURL": sensorURL,
	"glyph":     func(state any) string { return glyphs[toString(state)] },
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
	}
	return ""
}

// glyphs give each state a sign besides its colour.
var glyphs = map[string]string{
	"waiting": "◷", "queued": "○", "running": "▶", "leased": "▶", "committing": "⇪", "succeeded": "✓", "partly_failed": "◐", "failed": "✗", "canceled": "⊘",
	"starting": "◌", "ready": "●", "draining": "◍", "stopped": "■", "lost": "✗",
	"scored": "✓", "no_data": "·", "no_model": "?", "timed_out": "⌛", "quarantined": "☣", "excluded": "–",
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
