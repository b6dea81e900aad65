package testkit

import (
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
)

// Seen is what another program reads from a table: the number of rows, the sum of a
// column, the first and last stamp in microseconds, and the number of sensors.
type Seen struct{ Rows, Sum, First, Last, Sensors float64 }

// ReadDelta reads a table's folder with delta-rs and with DuckDB's delta_scan. It
// returns the result of each reader by the reader's name.
func ReadDelta(t testing.TB, folder, column string) map[string]Seen {
	t.Helper()
	scripts := filepath.Join(Root(t), "internal", "testkit", "readers")
	python := Readers(t)
	out, err := exec.CommandContext(t.Context(), python, filepath.Join(scripts, "readers.py"), folder, column).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%s: %v\n%s", folder, err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var raw map[string][5]float64
	if err := json.Unmarshal(out, &raw); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	seen := map[string]Seen{}
	for reader, v := range raw {
		seen[reader] = Seen{v[0], v[1], v[2], v[3], v[4]}
	}
	if len(seen) != 2 {
		t.Fatalf("%s was read by %v", folder, seen)
	}
	return seen
}

// Readers returns a Python with delta-rs, pyarrow and DuckDB. A package contains
// DuckDB's extension for Delta tables, signed by DuckDB.
func Readers(t testing.TB) (python string) {
	t.Helper()
	return Venv(t, "deltalake==1.6.6", "duckdb==1.5.5", "duckdb-extension-delta==1.5.5", "pyarrow==26.0.1")
}
