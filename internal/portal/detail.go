package portal

import (
	"context"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/scheduler"
	"github.com/fleetscore/fleetscore/internal/table"
)

// maxItems and maxLog bound what a job's page shows; the API has all.
const (
	maxItems = 2000
	maxLog   = 64 << 10
)

type jobPage struct {
	Job      fleetscore.Job
	Tasks    []fleetscore.Task
	Outcomes []outcome
	Filter   fleetscore.Outcome
	Items    []fleetscore.Item
	More     int // items that are not shown
	Logs     []logText
}

type outcome struct {
	Outcome fleetscore.Outcome
	N       int64
}

type logText struct {
	scheduler.LogRef
	Text string
	Cut  bool
}

func (p *Portal) job(r *http.Request) (any, error) {
	ctx := r.Context()
	id := fleetscore.JobID(r.PathValue("id"))
	j, err := p.deps.Ledger.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	v := jobPage{Job: j, Filter: fleetscore.Outcome(r.URL.Query().Get("outcome"))}
	if v.Tasks, err = p.deps.Ledger.Tasks(ctx, id); err != nil {
		return nil, err
	}
	for _, o := range fleetscore.Outcomes {
		if n := j.Outcomes[o]; n > 0 {
			v.Outcomes = append(v.Outcomes, outcome{o, n})
		}
	}
	if v.Items, err = p.items(ctx, j, v.Filter); err != nil {
		return nil, err
	}
	if len(v.Items) > maxItems {
		v.Items, v.More = v.Items[:maxItems], len(v.Items)-maxItems
	}
	refs, err := p.deps.Logs.Logs(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, ref := range refs {
		text, err := p.logText(ctx, id, ref)
		if err != nil {
			return nil, err
		}
		v.Logs = append(v.Logs, logText{ref, text, ref.SizeBytes > maxLog})
	}
	return v, nil
}

func (p *Portal) items(ctx context.Context, j fleetscore.Job, only fleetscore.Outcome) ([]fleetscore.Item, error) {
	d := p.table("predictions/" + j.Pipeline + "/_coverage")
	snap, err := d.Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	found, err := d.ReadItems(ctx, snap.Files, table.ItemQuery{Job: j.ID, Interval: &j.Interval, Outcome: only})
	items := make([]fleetscore.Item, len(found))
	for i, f := range found {
		items[i] = f.Item
	}
	return items, err
}

func (p *Portal) logText(ctx context.Context, id fleetscore.JobID, ref scheduler.LogRef) (string, error) {
	in, err := p.deps.Logs.OpenLog(ctx, id, ref.Index, ref.Attempt, ref.Stream)
	if err != nil {
		return "", err
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxLog))
	return string(b), fleetscore.Wrap("read log", string(id), err)
}

type sensorPage struct {
	Pipeline  string
	Key       fleetscore.Key
	Rows      int
	Anomalies int
	Faults    int
	Label     string
	Charts    []chart
	From, To  time.Time
}

// chart is one value over time, in the units of its picture.
type chart struct {
	Name             string
	Line             string // points of a polyline
	Anomalies        []point
	Faults           []point
	Low, High        float64
	Width, Height    int
	TimeFrom, TimeTo time.Time
}

type point struct {
	X, Y  float64
	Label string
}

// The chart's size in pixels.
const (
	chartWidth  = 1000
	chartHeight = 260
)

func (p *Portal) sensor(r *http.Request) (any, error) {
	ctx := r.Context()
	name := r.PathValue("pipeline")
	key, err := fleetscore.NewKey(r.URL.Query()["key"]...)
	if err != nil || key == "" {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "open sensor", r.URL.RawQuery, "the address has no key").WithHint("open it from the overview")
	}
	d := p.table("predictions/" + name)
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	now := p.deps.Now()
	rows, err := d.ReadPredictions(ctx, snap.Files, table.ReadQuery{Interval: &fleetscore.Interval{From: now.Add(-recent), To: now}, Keys: []fleetscore.Key{key}})
	if err != nil {
		return nil, err
	}
	v := sensorPage{Pipeline: name, Key: key, Rows: rows.Len()}
	cfg, _, _, err := p.deps.Ledger.Config(ctx)
	if err == nil {
		v.Label = cfg.Pipelines[name].Label
	}
	truth := rows.Column(v.Label)
	for i := range rows.Times {
		if rows.Prediction[i] == 1 {
			v.Anomalies++
		}
		if truth != nil && truth[i] > 0 {
			v.Faults++
		}
	}
	for c, column := range rows.ValueNames {
		if column != v.Label && rows.Len() > 0 {
			v.Charts = append(v.Charts, draw(rows, c, truth))
		}
	}
	return v, nil
}

// draw makes a chart of one column.
func draw(rows *fleetscore.Predictions, column int, truth []float64) chart {
	order := make([]int, rows.Len())
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(rows.Times[a] - rows.Times[b]) })
	first, last := rows.Times[order[0]], rows.Times[order[len(order)-1]]
	c := chart{Name: rows.ValueNames[column], Low: math.Inf(1), High: math.Inf(-1), Width: chartWidth, Height: chartHeight, TimeFrom: first.Time(), TimeTo: last.Time()}
	for _, v := range rows.Values[column] {
		if !math.IsNaN(v) {
			c.Low, c.High = min(c.Low, v), max(c.High, v)
		}
	}
	var line strings.Builder
	for _, i := range order {
		v := rows.Values[column][i]
		if math.IsNaN(v) {
			continue
		}
		at := point{X: 10, Y: chartHeight / 2, Label: rows.Times[i].Time().Format("15:04:05") + " " + short(v)}
		if last > first {
			at.X = 10 + float64(chartWidth-20)*float64(rows.Times[i]-first)/float64(last-first)
		}
		if c.High > c.Low {
			at.Y = 10 + float64(chartHeight-20)*(c.High-v)/(c.High-c.Low)
		}
		line.WriteString(short(at.X) + "," + short(at.Y) + " ")
		if truth != nil && truth[i] > 0 {
			c.Faults = append(c.Faults, at)
		}
		if rows.Prediction[i] == 1 {
			c.Anomalies = append(c.Anomalies, at)
		}
	}
	c.Line = line.String()
	return c
}
