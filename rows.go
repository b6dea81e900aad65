package fleetscore

import (
	"cmp"
	"iter"
	"math"
	"slices"
)

// Rows is a batch of a dataset's rows in columns: time, key and values. Row i
// has the stamp Times[i], the key Keys[KeyIndex[i]] and the values
// Values[c][i]. A missing value is NaN.
//
// The order of rows means nothing unless the producer says so.
type Rows struct {
	TimeName   string   // name of the time column, e.g. "TS"
	KeyNames   []string // names of the key columns, e.g. Device, Tag
	ValueNames []string // names of the value columns

	Keys     []Key    // the distinct keys
	KeyIndex []uint32 // per row, an index into Keys
	Times    []Micros
	Values   [][]float64 // one slice per value column, each as long as Times
}

// Len is the number of rows.
func (r *Rows) Len() int { return len(r.Times) }

// Column returns the values of the named column, or nil.
func (r *Rows) Column(name string) []float64 {
	for i, n := range r.ValueNames {
		if n == name {
			return r.Values[i]
		}
	}
	return nil
}

// PartsByTime cuts rows into parts of about n rows in the order of their times: all
// rows of a part are later than those of the parts before. Rows with the same time
// keep their order. The parts share the keys.
func (r *Rows) PartsByTime(n int) iter.Seq[*Rows] {
	return func(yield func(*Rows) bool) {
		if r.Len() <= n {
			yield(r)
			return
		}
		order := make([]int, r.Len())
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(r.Times[a], r.Times[b]) })
		for from := 0; from < len(order); {
			to := min(from+max(n, 1), len(order))
			for to < len(order) && r.Times[order[to]] == r.Times[order[to-1]] {
				to++
			}
			if !yield(r.Pick(order[from:to])) {
				return
			}
			from = to
		}
	}
}

// Pick returns the rows at the given places.
func (r *Rows) Pick(order []int) *Rows {
	out := &Rows{TimeName: r.TimeName, KeyNames: r.KeyNames, ValueNames: r.ValueNames, Keys: r.Keys,
		KeyIndex: make([]uint32, len(order)), Times: make([]Micros, len(order)), Values: make([][]float64, len(r.Values))}
	for i, row := range order {
		out.KeyIndex[i], out.Times[i] = r.KeyIndex[row], r.Times[row]
	}
	for c, values := range r.Values {
		out.Values[c] = make([]float64, len(order))
		for i, row := range order {
			out.Values[c][i] = values[row]
		}
	}
	return out
}

// Predictions are scored rows. Prediction is 1 for an anomaly and 0 for a normal
// row of an outlier detector, the class or value of other estimators; Score is
// the decision value, or NaN where the estimator has none.
type Predictions struct {
	Rows       // the rows that were scored: features under their output names
	Prediction []float64
	Score      []float64
	Models     []Digest // per Rows.Keys entry, the model that scored it
}

// Missing stands for an absent value in Rows.
var Missing = math.NaN()

// Readings is a batch of readings in columns, as it lies in a hub: every reading
// has a key and an event time, and may have any of the columns.
type Readings struct {
	Keys     []Key
	KeyIndex []uint32
	Times    []Micros
	IDs      []string // message ids for repeats; nil if no reading has one
	Columns  []ReadingColumn
}

// Len is the number of readings.
func (r *Readings) Len() int { return len(r.Times) }

// ReadingColumn is one column of readings. A name has one column of numbers, one of
// texts, or one of each; then a reading has a value in at most one of the two.
// Exactly one of Numbers and Strings is set; booleans are the numbers 0 and 1. Absent
// values are NaN, or strings with Present false.
type ReadingColumn struct {
	Name    string
	Numbers []float64
	Strings []string
	Present []bool // for Strings; nil means all present
}

// DataFile describes one file of a table, as a Delta add action does. Writers return
// it, and a commit makes it visible.
type DataFile struct {
	Path      string     `json:"path"` // relative to the table's root
	SizeBytes int64      `json:"size_bytes"`
	Rows      int64      `json:"rows"`
	First     Micros     `json:"first"` // smallest stamp of its rows
	Last      Micros     `json:"last"`  // largest
	Shards    ShardRange `json:"shards"`
	Date      string     `json:"date"` // partition values: "2026-11-23"
	Hour      int        `json:"hour"` // 0…23
}
