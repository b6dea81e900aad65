package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/table"
)

// writeRows writes the rows of sensors: time, key columns, values, with the names of the
// dataset.
func (s *session) writeRows(f io.Writer, sensors []int) error {
	b := s.batch
	rows := &fleetscore.Rows{TimeName: b.TimeName, KeyNames: b.KeyNames, ValueNames: b.Features, Values: make([][]float64, len(b.Columns))}
	for k, i := range sensors {
		rows.Keys = append(rows.Keys, b.Sensors[i].Key)
		from, to := s.starts[i], s.starts[i+1]
		for range to - from {
			rows.KeyIndex = append(rows.KeyIndex, uint32(k))
		}
		rows.Times = append(rows.Times, b.Times[from:to]...)
		for c := range rows.Values {
			rows.Values[c] = append(rows.Values[c], b.Columns[c][from:to]...)
		}
	}
	if s.cfg.Input == fleetscore.CommandParquet {
		return table.WriteRowsParquet(f, rows)
	}
	return table.WriteRowsCSV(f, rows)
}

// judge reads the predictions, if the command makes some: each row of the input has to have
// one.
func (s *session) judge(ctx context.Context, sensors []int, output *os.Root) result {
	res := result{ended: map[int]scorer.Ended{}}
	if s.cfg.Predictions == "" {
		for _, i := range sensors {
			res.ended[i] = scorer.Ended{Apart: true}
		}
		return res
	}
	got, err := s.predictions(ctx, output)
	if err != nil {
		return result{err: fmt.Errorf("the predictions in %s can't be used: %w", s.cfg.Predictions, err)}
	}
	type row struct {
		key fleetscore.Key
		at  fleetscore.Micros
	}
	places := make(map[row][]int, len(s.batch.Times)) // of the rows, in the batch
	for _, i := range sensors {
		for at := s.starts[i]; at < s.starts[i+1]; at++ {
			r := row{s.batch.Sensors[i].Key, s.batch.Times[at]}
			places[r] = append(places[r], at)
		}
	}
	prediction, score := nans(len(s.batch.Times)), nans(len(s.batch.Times))
	p, sc := got.Column("Prediction"), got.Column("Score")
	unasked := 0
	for n, k := range got.KeyIndex {
		r := row{got.Keys[k], got.Times[n]}
		free := places[r]
		if len(free) == 0 {
			unasked++
			continue
		}
		places[r], prediction[free[0]] = free[1:], p[n]
		if sc != nil {
			score[free[0]] = sc[n]
		}
	}
	if unasked > 0 {
		s.batch.Log("%s: left out of %s, because they aren't rows of the input or are there twice: %s", s.subject(sensors), s.cfg.Predictions, fleetscore.Counted(unasked, "row"))
	}
	for _, i := range sensors {
		e := scorer.Ended{Prediction: prediction[s.starts[i]:s.starts[i+1]], Score: score[s.starts[i]:s.starts[i+1]]}
		missing := 0
		for _, v := range e.Prediction {
			switch {
			case math.IsNaN(v):
				missing++
			case v == 1:
				e.Anomalies++
			}
		}
		if missing > 0 {
			e = scorer.Ended{Err: fmt.Errorf("%s has no prediction for %d of its %s", s.cfg.Predictions, missing, fleetscore.Counted(len(e.Prediction), "row"))}
		}
		res.ended[i] = e
	}
	return res
}

func nans(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = math.NaN()
	}
	return out
}

// predictions reads the command's predictions.
func (s *session) predictions(ctx context.Context, output *os.Root) (*fleetscore.Rows, error) {
	f, err := open(output, s.cfg.Predictions)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("the command hasn't made the file")
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	in, err := table.ReadCSV(ctx, s.cfg.Predictions, f, table.Schema{Time: s.batch.TimeName, Key: s.batch.KeyNames}, table.ReadOptions{Workers: 1})
	if err != nil {
		return nil, err
	}
	if in.Rows.Len() > 0 && in.Rows.Column("Prediction") == nil {
		return nil, errors.New("it has no column Prediction with numbers")
	}
	return in.Rows, nil
}
