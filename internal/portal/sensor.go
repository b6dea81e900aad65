package portal

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/sensor"
	"github.com/fleetscore/fleetscore/internal/table"
)

// Limits of what a sensor's page shows: the latest rows, and a list of the latest
// anomalies.
const (
	maxPoints    = 5000
	maxAnomalies = 50
)

type sensorPage struct {
	Pipeline  string
	Key       fleetscore.Key
	Over      time.Duration // how far back rows are shown
	Spans     []spanLink    // others to choose
	Rows      int
	Cut       bool // there are earlier rows in the shown time that aren't drawn
	Anomalies int
	Faults    int
	Label     string
	Charts    []chart
	Columns   []string
	Latest    []anomaly // newest first
}

// spans are how far back a sensor's page can show rows; the first is shown by default.
var spans = []struct {
	name string
	d    time.Duration
}{{"hour", recent}, {"6 hours", 6 * time.Hour}, {"day", 24 * time.Hour}, {"week", 7 * 24 * time.Hour}}

// spanLink leads to the same page over another time.
type spanLink struct {
	Name  string
	URL   string
	Shown bool
}

// spanOf reads how far back rows are to be shown, and links the others.
func spanOf(name string, key fleetscore.Key, asked string) (over time.Duration, links []spanLink, err error) {
	over = recent
	if asked != "" {
		if over, err = time.ParseDuration(asked); err != nil {
			over = 0
		}
	}
	known := false
	for _, s := range spans {
		url := sensorURL(name, key)
		if s.d != recent {
			url += "&over=" + s.d.String()
		}
		links = append(links, spanLink{s.name, url, s.d == over})
		known = known || s.d == over
	}
	if !known {
		return 0, nil, fleetscore.Errorf(fleetscore.Invalid, "open sensor", asked, "rows can't be shown over this time").WithHint("choose one of the times that the page offers")
	}
	return over, links, nil
}

// maxListed is how many sensors a page of the list shows.
const maxListed = 100

// sensorsPage lists sensors.
type sensorsPage struct {
	Now     time.Time // of the page
	Counts  []*sensorCounts
	Filter  string // silent, flat or skewed; empty shows all
	Dataset string // the only one; empty shows all
	Sensors []listedSensor
	Total   int64
	Next    string // address of the next page; empty if there is none
}

// sensorCounts are the sensors of a dataset that a page can show.
type sensorCounts struct {
	sensor.Counts
	All, SilentURL, FlatURL, SkewedURL string
}

func countsOf(c sensor.Counts) *sensorCounts {
	return &sensorCounts{c, sensorsURL(c.Dataset, "", ""), sensorsURL(c.Dataset, "silent", ""), sensorsURL(c.Dataset, "flat", ""), sensorsURL(c.Dataset, "skewed", "")}
}

// listedSensor is a sensor of the list.
type listedSensor struct {
	sensor.Sensor
	Name   string
	URL    string // of its page; empty if no pipeline has scored it
	Values []string
	Share  string
}

// refresh is the number of seconds after which a browser loads the page again.
func (sensorsPage) refresh() int { return 15 }

// sensorsURL leads to the sensors of a dataset with a fault.
func sensorsURL(dataset, filter, after string) string {
	q := url.Values{}
	for name, v := range map[string]string{"dataset": dataset, "show": filter, "after": after} {
		if v != "" {
			q.Set(name, v)
		}
	}
	return "/sensors?" + q.Encode()
}

func (p *Portal) sensors(r *http.Request) (any, error) {
	asked := r.URL.Query()
	v := sensorsPage{Now: p.deps.Now().UTC(), Filter: asked.Get("show"), Dataset: asked.Get("dataset")}
	q := sensor.Query{Dataset: v.Dataset, After: asked.Get("after"), Limit: maxListed}
	switch v.Filter {
	case "":
	case "silent":
		q.Silent = sensor.SilentAfter
	case "flat":
		q.Flat = sensor.FlatAfter
	case "skewed":
		q.Skewed = sensor.SkewedBy
	default:
		return nil, fleetscore.Errorf(fleetscore.Invalid, "list sensors", v.Filter, "sensors can't be listed by this").WithHint("choose one of the lists that the page offers")
	}
	for _, c := range p.deps.Sensors.Counts() {
		v.Counts = append(v.Counts, countsOf(c))
	}
	list, next, total := p.deps.Sensors.List(q)
	v.Total = total
	if next != "" {
		v.Next = sensorsURL(v.Dataset, v.Filter, next)
	}
	for _, s := range list {
		key, err := fleetscore.NewKey(s.Key...)
		if err != nil {
			return nil, err
		}
		l := listedSensor{Sensor: s, Name: key.String()}
		for _, name := range slices.Sorted(maps.Keys(s.Values)) {
			if x := s.Values[name]; x != nil {
				l.Values = append(l.Values, name+" "+short(*x))
			}
		}
		for i, x := range s.Pipelines {
			if i == 0 {
				l.URL = sensorURL(x.Pipeline, key)
			} else {
				l.Share += ", "
			}
			l.Share += fmt.Sprintf("%s %.1f %%", x.Pipeline, 100*x.Share)
		}
		v.Sensors = append(v.Sensors, l)
	}
	return v, nil
}

// refresh is the number of seconds after which a browser loads the page again.
func (sensorPage) refresh() int { return 15 }

// anomaly is one flagged row.
type anomaly struct {
	Time   time.Time
	Values []string
	Score  string
	Fault  bool
}

func (p *Portal) sensor(r *http.Request) (any, error) {
	ctx := r.Context()
	name := r.PathValue("pipeline")
	key, err := fleetscore.NewKey(r.URL.Query()["key"]...)
	if err != nil || key == "" {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "open sensor", r.URL.RawQuery, "the address has no key").WithHint("open it from the overview")
	}
	var snap *table.Snapshot
	d := p.deps.Catalog.Predictions(name)
	if !strings.ContainsAny(name, `/\`) {
		snap, err = d.Snapshot(ctx)
	}
	if fleetscore.NotFound.Is(err) || err == nil && snap == nil {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "open sensor", key.String(), "there is no pipeline %q with results", name)
	} else if err != nil {
		return nil, err
	}
	over, links, err := spanOf(name, key, r.URL.Query().Get("over"))
	if err != nil {
		return nil, err
	}
	now := p.deps.Now()
	rows, err := d.ReadPredictions(ctx, snap.Files, table.ReadQuery{Interval: &fleetscore.Interval{From: now.Add(-over), To: now}, Keys: []fleetscore.Key{key}})
	if err != nil {
		return nil, err
	}
	v := sensorPage{Pipeline: name, Key: key, Over: over, Spans: links}
	cfg, _, _, err := p.deps.Ledger.Config(ctx)
	if err == nil {
		v.Label = cfg.Pipelines[name].Label
	}
	v.fill(rows)
	return v, nil
}

func (v *sensorPage) fill(rows *fleetscore.Predictions) {
	order := byTime(rows)
	v.Rows = len(order)
	truth := rows.Column(v.Label)
	fault := func(i int) bool { return truth != nil && truth[i] > 0 }
	for _, i := range order {
		if rows.Prediction[i] == 1 {
			v.Anomalies++
		}
		if fault(i) {
			v.Faults++
		}
	}
	if len(order) > maxPoints {
		order, v.Cut = order[len(order)-maxPoints:], true
	}
	for c, column := range rows.ValueNames {
		if column == v.Label {
			continue
		}
		v.Columns = append(v.Columns, column)
		if len(order) > 0 {
			v.Charts = append(v.Charts, draw(rows, order, c, fault))
		}
	}
	for n := len(order) - 1; n >= 0 && len(v.Latest) < maxAnomalies; n-- {
		i := order[n]
		if rows.Prediction[i] != 1 {
			continue
		}
		a := anomaly{Time: rows.Times[i].Time(), Score: short(rows.Score[i]), Fault: fault(i)}
		for c, column := range rows.ValueNames {
			if column != v.Label {
				a.Values = append(a.Values, short(rows.Values[c][i]))
			}
		}
		v.Latest = append(v.Latest, a)
	}
}
