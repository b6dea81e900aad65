package catalog

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/compare"
	"github.com/fleetscore/fleetscore/internal/table"
)

// Comparison names the results that Compare compares.
type Comparison struct {
	A, B     string           // pipelines
	From, To time.Time        // the interval; a zero end means that of the time that both have predictions of
	Keys     []fleetscore.Key // only these sensors; empty means all
}

// Compare compares the results of two pipelines sensor by sensor, by shard, then key, and
// returns the interval that it compared. It keeps the totals of the sensors that are in
// the same files, and of their rows an hour, so that it needs about as much memory for a
// million sensors as for some ten thousand. Kind NotFound if a pipeline has no
// predictions, or the two have none of the same time.
func (c *Catalog) Compare(ctx context.Context, q Comparison, take func(compare.Sensor) error) (iv fleetscore.Interval, err error) {
	var sides [2]side
	for i, name := range []string{q.A, q.B} {
		if sides[i], err = c.side(ctx, name); err != nil {
			return iv, err
		}
	}
	if !slices.Equal(sides[0].key, sides[1].key) {
		return iv, fleetscore.Errorf(fleetscore.Conflict, "compare results", q.A+" and "+q.B, "the key columns of one are %s, of the other %s", strings.Join(sides[0].key, ", "), strings.Join(sides[1].key, ", "))
	}
	if iv, err = q.interval(sides); err != nil {
		return iv, err
	}
	query := table.ReadQuery{Interval: &iv, Keys: q.Keys}
	var all []fleetscore.DataFile
	for i := range sides {
		s := &sides[i]
		s.rows, s.items = query.Prune(s.rows), query.Prune(s.items)
		all = append(append(all, s.rows...), s.items...)
	}
	for _, files := range apart(all) {
		shards := fleetscore.ShardRange{First: files[0].Shards.First}
		for _, f := range files {
			shards.Last = max(shards.Last, f.Shards.Last)
		}
		for _, part := range portions(shards, sides) {
			query.Shards = &part
			g, err := compareShards(ctx, sides, query)
			if err != nil {
				return iv, err
			}
			for s := range g.Sensors() {
				if err := take(s); err != nil {
					return iv, err
				}
			}
		}
	}
	return iv, nil
}

// atOnce is how many sensors are compared at once, about. Files that hold more shards are
// read several times.
const atOnce = 100_000

// portions cuts shards so that each part has about atOnce sensors, judged by the outcomes
// of the largest hour.
func portions(shards fleetscore.ShardRange, sides [2]side) (out []fleetscore.ShardRange) {
	perHour, most := map[string]int64{}, int64(0)
	for i, s := range sides {
		for _, f := range (table.ReadQuery{Shards: &shards}).Prune(s.items) {
			h := hourOf(f) + string(rune('a'+i))
			perHour[h] += f.Rows
			most = max(most, perHour[h])
		}
	}
	all := int(shards.Last) - int(shards.First) + 1
	n := min(all, int(most/atOnce)+1)
	for i := range n {
		out = append(out, fleetscore.ShardRange{First: shards.First + fleetscore.Shard(i*all/n), Last: shards.First + fleetscore.Shard((i+1)*all/n-1)})
	}
	return out
}

// side is what one pipeline has.
type side struct {
	name        string
	key         []string // the key columns
	predictions Predictions
	coverage    Coverage
	rows, items []fleetscore.DataFile
}

func (c *Catalog) side(ctx context.Context, name string) (side, error) {
	s := side{name: name, predictions: c.Predictions(name), coverage: c.Coverage(name)}
	for _, t := range []struct {
		table *table.Delta
		files *[]fleetscore.DataFile
	}{{s.predictions.Delta, &s.rows}, {s.coverage.Delta, &s.items}} {
		snap, err := t.table.Snapshot(ctx)
		if fleetscore.NotFound.Is(err) {
			return s, fleetscore.Errorf(fleetscore.NotFound, "compare results", name, "the pipeline has no results yet").WithHint("fleetscore job list --pipeline %s shows its jobs", name)
		} else if err != nil {
			return s, err
		}
		*t.files = snap.Files
		s.key = snap.Schema.Key
	}
	return s, nil
}

// interval is what is asked for; its ends are by default those of the time that both
// sides have predictions of.
func (q Comparison) interval(sides [2]side) (iv fleetscore.Interval, err error) {
	if iv.From, iv.To = q.From, q.To; !q.From.IsZero() && !q.To.IsZero() {
		return iv, iv.Validate()
	}
	for _, s := range sides {
		var first, last time.Time
		for _, f := range s.rows {
			if from := f.First.Time().Add(-time.Microsecond); first.IsZero() || from.Before(first) {
				first = from
			}
			if to := f.Last.Time(); to.After(last) {
				last = to
			}
		}
		for _, f := range s.items { // a job may end after its last row
			if to := f.Last.Time(); to.After(last) {
				last = to
			}
		}
		if q.From.IsZero() && (iv.From.IsZero() || first.After(iv.From)) {
			iv.From = first
		}
		if q.To.IsZero() && (iv.To.IsZero() || last.Before(iv.To)) {
			iv.To = last
		}
	}
	if !iv.To.After(iv.From) {
		return iv, fleetscore.Errorf(fleetscore.NotFound, "compare results", sides[0].name+" and "+sides[1].name, "they have no predictions of the same time%s", within(q)).
			WithHint("wait for jobs of both over the same interval, or submit one: fleetscore job submit %s --from … --to …", sides[1].name)
	}
	return iv, nil
}

// within says which end of the interval was asked for.
func within(q Comparison) string {
	switch {
	case !q.From.IsZero():
		return " after " + q.From.Format(time.RFC3339)
	case !q.To.IsZero():
		return " until " + q.To.Format(time.RFC3339)
	}
	return ""
}

// compareShards compares the sensors of some shards, the rows of an hour after the other.
func compareShards(ctx context.Context, sides [2]side, q table.ReadQuery) (*compare.Group, error) {
	g := &compare.Group{}
	var outcomes [2][]JobItem
	hours := map[string]bool{}
	for i, s := range sides {
		var err error
		if outcomes[i], err = s.coverage.ReadItems(ctx, s.items, ItemQuery{Interval: q.Interval, Keys: q.Keys, Shards: q.Shards}); err != nil {
			return nil, err
		}
		for _, f := range q.Prune(s.rows) {
			hours[hourOf(f)] = true
		}
	}
	items := comparable(outcomes)
	g.Items(items[0], items[1])
	order := make([]string, 0, len(hours))
	for h := range hours {
		order = append(order, h)
	}
	slices.SortFunc(order, cmp.Compare)
	for _, hour := range order {
		var rows [2]*fleetscore.Predictions
		for i, s := range sides {
			files := slices.DeleteFunc(q.Prune(s.rows), func(f fleetscore.DataFile) bool { return hourOf(f) != hour })
			var err error
			if rows[i], err = s.predictions.labels(ctx, files, q); err != nil {
				return nil, err
			}
		}
		g.Rows(rows[0], rows[1])
	}
	return g, nil
}

// comparable are the outcomes of intervals that both sides have jobs of, because what one has
// scored in more jobs than the other isn't a difference. Without such an interval they are all.
func comparable(outcomes [2][]JobItem) (items [2][]fleetscore.Item) {
	var have [2]map[fleetscore.Interval]bool
	for i, side := range outcomes {
		have[i] = map[fleetscore.Interval]bool{}
		for _, o := range side {
			have[i][o.Interval] = true
		}
	}
	common := false
	for iv := range have[0] {
		common = common || have[1][iv]
	}
	for i, side := range outcomes {
		for _, o := range side {
			if !common || have[1-i][o.Interval] {
				items[i] = append(items[i], o.Item)
			}
		}
	}
	return items
}

// hourOf is the part of a table that a file is in: rows of the same time are in the same
// part of all tables.
func hourOf(f fleetscore.DataFile) string { return f.Date + string(rune('a'+f.Hour)) }

// labels reads predictions without features and models.
func (d Predictions) labels(ctx context.Context, files []fleetscore.DataFile, q table.ReadQuery) (*fleetscore.Predictions, error) {
	f, s, err := d.ReadFrame(ctx, files, []string{"Prediction", "Score"}, q)
	if err != nil {
		return nil, err
	}
	return &fleetscore.Predictions{Rows: *f.Rows(s, []string{}), Prediction: f.Doubles("Prediction"), Score: f.Doubles("Score")}, nil
}
