// Package table reads and writes rows: CSV, NDJSON and Parquet files, and tables
// in the Delta Lake format, whose commits make files visible at once and whose
// txn entries make them exactly once.
//
// It gives rows their columns and types and nothing more: what a row means, when
// it is complete and who scores it are other rooms' business. A Delta value may
// be used by several goroutines at once; so may all functions.
package table

import (
	"strings"
	"sync/atomic"

	"github.com/fleetscore/fleetscore"
)

// Schema says which columns of a file are the time, the key and the values.
type Schema struct {
	Time   string
	Key    []string
	Values []string // empty: every other column that holds numbers
}

func (s Schema) validate() error {
	names := append([]string{s.Time}, s.Key...)
	names = append(names, s.Values...)
	seen := map[string]bool{}
	for _, n := range names {
		if err := checkColumn(n); err != nil {
			return err
		}
		if seen[n] {
			return fleetscore.Errorf(fleetscore.Invalid, "read columns", n, "the column is named twice among time, key and values")
		}
		seen[n] = true
	}
	if len(s.Key) == 0 {
		return fleetscore.Errorf(fleetscore.Invalid, "read columns", "", "no key column is named")
	}
	return nil
}

// checkColumn refuses column names that Parquet tags can't carry.
func checkColumn(n string) error {
	if n == "" || strings.ContainsAny(n, ",\"`\\\n\r\t;{}()=") {
		return fleetscore.Errorf(fleetscore.Invalid, "check column name", n, "it is empty or has one of , ; { } ( ) = quotes, backslash or a line break")
	}
	return nil
}

// ReadOptions say what is read from files, and how.
type ReadOptions struct {
	Interval *fleetscore.Interval // only rows of this interval
	BadRows  fleetscore.Percent   // share of malformed rows that are left out and counted; 0: the first ends the reading
	Workers  int                  // goroutines; 0 means all cores
	Progress *atomic.Int64        // bytes read so far are added; may be nil

	chunkBytes int // for tests; 0 means chunkBytes
}

func (o ReadOptions) wants(t fleetscore.Micros) bool {
	return o.Interval == nil || o.Interval.ContainsMicros(t)
}
