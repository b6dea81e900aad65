// Package table reads and writes rows: CSV, NDJSON and Parquet files, and tables
// in the Delta Lake format, whose commits make files visible at once and whose
// txn entries make them exactly once.
//
// It gives rows their columns and types and nothing more: what a row means, when
// it is complete and who scores it are other rooms' business. A Delta value may
// be used by several goroutines at once; so may all functions.
package table

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/fleetscore/fleetscore"
)

// Schema says which columns of a file are the time, the key and the values.
type Schema struct {
	Time    string
	Key     []string
	Values  []string // empty: every other column that holds numbers
	Untimed bool     // no column is the time, and Time is empty: the rows' times are their numbers, from 1
}

// Validate refuses columns that are named twice or can't be stored.
func (s Schema) Validate() error {
	names := slices.Concat(s.times(), s.Key, s.Values)
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

// times is the time column, if there is one.
func (s Schema) times() []string {
	if s.Untimed && s.Time == "" {
		return nil
	}
	return []string{s.Time}
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

	MaxRows   int64    // of a Parquet file, few bytes of which can hold very many; 0: any number
	Separator byte     // of fields in CSV; 0: guessed from the header
	Decimal   byte     // '.' or ',' in numbers of CSV; 0: '.'
	TimeUnit  TimeUnit // of times that are numbers; empty: they are refused
	Say       Words    // for messages

	chunkBytes int // for tests; 0 means chunkBytes
}

// Words are how people set options where they are, such as "--separator". An empty
// one isn't spoken of.
type Words struct{ Separator, Decimal, TimeUnit string }

func (o ReadOptions) wants(t fleetscore.Micros) bool {
	return o.Interval == nil || o.Interval.ContainsMicros(t)
}

// TableSchema is the shape of a Delta table: its time and key columns, and all
// data columns in order. Partition columns (date, hour) are not listed.
type TableSchema struct {
	Time    string
	Key     []string
	Columns []Column
}

// Types of columns, as Delta names them.
const (
	Timestamp = string(kindTime)
	Text      = string(kindText)
	Double    = string(kindDouble)
	Long      = string(kindLong)
)

// Column is one data column: its name and type.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Values are the columns that hold numbers.
func (s TableSchema) Values() []string {
	var out []string
	for _, c := range s.Columns {
		if c.Type == string(kindDouble) {
			out = append(out, c.Name)
		}
	}
	return out
}

// Equal tells whether both have the same time, key and columns.
func (s TableSchema) Equal(o TableSchema) bool {
	return s.Time == o.Time && slices.Equal(s.Key, o.Key) && slices.Equal(s.Columns, o.Columns)
}

// extends tells whether the columns are those of another shape and further ones after them.
func (s TableSchema) extends(o TableSchema) bool {
	n := len(o.Columns)
	return s.Time == o.Time && slices.Equal(s.Key, o.Key) && len(s.Columns) > n && slices.Equal(s.Columns[:n], o.Columns)
}

// String lists the columns for people.
func (s TableSchema) String() string {
	names := make([]string, len(s.Columns))
	for i, c := range s.Columns {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

// Check refuses columns that a table can't have: names that files can't carry, and
// those that are the same but for their case, which most engines can't tell apart.
func (s TableSchema) Check() error {
	seen := map[string]string{"date": "date", "hour": "hour"} // by which files are partitioned
	for _, c := range s.Columns {
		if err := checkColumn(c.Name); err != nil {
			return err
		}
		low := strings.ToLower(c.Name)
		if other, twice := seen[low]; twice {
			return fleetscore.Errorf(fleetscore.Invalid, "check column name", c.Name, "the table has a column %s already", other).WithHint("give it another name")
		}
		seen[low] = c.Name
	}
	return nil
}

// wanted are time, key and the named value columns.
func (s TableSchema) wanted(values []string) []wanted {
	out := []wanted{{name: s.Time, kind: kindTime}}
	for _, k := range s.Key {
		out = append(out, wanted{name: k, kind: kindText})
	}
	for _, v := range values {
		out = append(out, wanted{name: v, kind: kindDouble})
	}
	return out
}

// all are all columns.
func (s TableSchema) all() []wanted {
	out := make([]wanted, len(s.Columns))
	for i, c := range s.Columns {
		own := c.Name == s.Time || slices.Contains(s.Key, c.Name)
		out[i] = wanted{c.Name, kind(c.Type), c.Type == string(kindTime) && c.Name != s.Time, !own}
	}
	return out
}

// some are time, key and the named columns. Named columns that the table doesn't have
// count as numbers.
func (s TableSchema) some(names []string) []wanted {
	out := s.wanted(nil)
	for _, n := range names {
		w := wanted{name: n, kind: kindDouble}
		for _, c := range s.all() {
			if c.name == n {
				w = c
			}
		}
		out = append(out, w)
	}
	return out
}

// DatasetSchema is the shape of a dataset: time, key columns, numbers.
func DatasetSchema(timeName string, key, values []string) TableSchema {
	s := TableSchema{Time: timeName, Key: slices.Clone(key), Columns: []Column{{timeName, string(kindTime)}}}
	for _, k := range key {
		s.Columns = append(s.Columns, Column{k, string(kindText)})
	}
	for _, v := range values {
		s.Columns = append(s.Columns, Column{v, string(kindDouble)})
	}
	return s
}

type deltaSchema struct {
	Type   string       `json:"type"`
	Fields []deltaField `json:"fields"`
}

type deltaField struct {
	Name     string         `json:"name"`
	Type     string         `json:"type"`
	Nullable bool           `json:"nullable"`
	Metadata map[string]any `json:"metadata"`
}

const (
	confTime = "fleetscore.time"
	confKey  = "fleetscore.key"
)

// writeMeta makes the metaData action of a new table.
func writeMeta(s TableSchema, id string, createdMS int64) (*metaAction, error) {
	ds := deltaSchema{Type: "struct"}
	for _, c := range append(slices.Clone(s.Columns), Column{"date", "date"}, Column{"hour", "integer"}) {
		ds.Fields = append(ds.Fields, deltaField{c.Name, c.Type, true, map[string]any{}})
	}
	text, err := json.Marshal(ds)
	if err != nil {
		return nil, err
	}
	return &metaAction{ID: id, Format: formatSpec{"parquet", map[string]string{}}, SchemaString: string(text),
		PartitionColumns: []string{"date", "hour"}, CreatedTime: createdMS,
		Configuration: map[string]string{confTime: s.Time, confKey: strings.Join(s.Key, ",")}}, nil
}

func readMeta(m *metaAction) (*TableSchema, error) {
	var ds deltaSchema
	if err := json.Unmarshal([]byte(m.SchemaString), &ds); err != nil {
		return nil, fmt.Errorf("schemaString: %w", err)
	}
	if !slices.Equal(m.PartitionColumns, []string{"date", "hour"}) || m.Configuration[confTime] == "" || m.Configuration[confKey] == "" {
		return nil, fmt.Errorf("the table was not made by Fleetscore: it isn't partitioned by date and hour, or its configuration lacks %s and %s", confTime, confKey)
	}
	s := &TableSchema{Time: m.Configuration[confTime], Key: strings.Split(m.Configuration[confKey], ",")}
	seen := map[string]bool{}
	for _, f := range ds.Fields {
		if seen[f.Name] || f.Name == "" {
			return nil, fmt.Errorf("the schema has the column %q twice, or it has no name", f.Name)
		}
		seen[f.Name] = true
		if f.Name != "date" && f.Name != "hour" {
			if !slices.Contains([]kind{kindTime, kindText, kindDouble, kindLong}, kind(f.Type)) {
				return nil, fmt.Errorf("column %q is of type %q, which isn't supported", f.Name, f.Type)
			}
			s.Columns = append(s.Columns, Column{f.Name, f.Type})
		}
	}
	for i, n := range append([]string{s.Time}, s.Key...) {
		want := string(kindText)
		if i == 0 {
			want = string(kindTime)
		}
		if !slices.Contains(s.Columns, Column{n, want}) {
			return nil, fmt.Errorf("the schema lacks the column %q of type %s", n, want)
		}
	}
	return s, nil
}
