package python

import (
	"context"
	"fmt"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/sklearn"
)

// mismatch says in what a model's releases differ from those of a process, as far as results
// may differ for that: in the second number of scikit-learn's and Python's releases, and in the
// first of NumPy's. Empty if in nothing.
func mismatch(made sklearn.Origin, have map[string]string) string {
	var out []string
	for _, c := range []struct {
		name, made, have string
		numbers          int
	}{{"scikit-learn", made.SKLearn, have["sklearn"], 2}, {"NumPy", made.NumPy, have["numpy"], 1}, {"Python", made.Python, have["python"], 2}} {
		if c.made != "" && c.have != "" && begin(c.made, c.numbers) != begin(c.have, c.numbers) {
			out = append(out, fmt.Sprintf("made with %s %s, scored with %s", c.name, c.made, c.have))
		}
	}
	return strings.Join(out, "; ")
}

// begin is the first numbers of a release.
func begin(release string, numbers int) string {
	parts := strings.Split(release, ".")
	return strings.Join(parts[:min(numbers, len(parts))], ".")
}

// fit ends the sensors whose models must not be scored by a process, and gives the others, with
// what is to be said of them.
func (p *Pool) fit(w *process, b *scorer.Batch, sensors []int, ended func(int, scorer.Ended)) (out []int, notes map[int]string) {
	if p.cfg.Script != "" && !p.cfg.PerModel {
		return sensors, nil // it loads models as it likes
	}
	notes = map[int]string{}
	for _, i := range sensors {
		s := &b.Sensors[i]
		if notes[i] = mismatch(s.Made(), w.versions); notes[i] == "" {
			delete(notes, i)
		} else if p.cfg.Versions == fleetscore.VersionsRefuse {
			ended(i, scorer.Ended{Err: fmt.Errorf("the model was %s; add an environment for it (python.environments), train it again, or write versions: warn", notes[i])})
			continue
		} else {
			b.Log("%s: %s", s.Key, notes[i])
		}
		out = append(out, i)
	}
	return out, notes
}

// Places scores each sensor in the environment that fits its model.
type Places struct {
	// Of chooses the place of a model by the releases it was made with.
	Of func(made sklearn.Origin) int
	// At gives what scores at a place.
	At func(ctx context.Context, place int) (scorer.Foreign, error)
}

// Score implements scorer.Foreign.
func (p Places) Score(ctx context.Context, b *scorer.Batch, ended func(int, scorer.Ended)) error {
	var order []int
	at := map[int][]int{}
	for i := range b.Sensors {
		place := p.Of(b.Sensors[i].Made())
		if at[place] == nil {
			order = append(order, place)
		}
		at[place] = append(at[place], i)
	}
	starts := make([]int, len(b.Sensors)+1)
	for i := range b.Sensors {
		starts[i+1] = starts[i] + b.Sensors[i].Rows
	}
	for _, place := range order {
		sensors := at[place]
		scores, err := p.At(ctx, place)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			for _, i := range sensors {
				ended(i, scorer.Ended{Err: err})
			}
			continue
		}
		part := b
		if len(order) > 1 {
			part = some(b, sensors, starts)
		}
		if err := scores.Score(ctx, part, func(k int, e scorer.Ended) { ended(sensors[k], e) }); err != nil {
			return err
		}
	}
	return nil
}

// some is the batch of some sensors.
func some(b *scorer.Batch, sensors, starts []int) *scorer.Batch {
	out := *b
	out.Sensors, out.Times, out.Columns = nil, nil, make([][]float64, len(b.Columns))
	for _, i := range sensors {
		out.Sensors = append(out.Sensors, b.Sensors[i])
		out.Times = append(out.Times, b.Times[starts[i]:starts[i+1]]...)
		for c, column := range b.Columns {
			out.Columns[c] = append(out.Columns[c], column[starts[i]:starts[i+1]]...)
		}
	}
	return &out
}
