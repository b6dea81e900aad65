package sklearn

import (
	"archive/zip"
	"bytes"
	"context"
	"math"
	"path"
	"regexp"
	"slices"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
)

// exercise calls all methods of a model with all kinds of values, and checks that its
// native record gives the same results. The results don't matter; the calls must return
// without a panic.
func exercise(t *testing.T, m *Model) {
	t.Helper()
	i := m.Info()
	_, _ = i.Chain(), i.Degenerate()
	cols := max(1, m.NumFeatures())
	if cols > 256 {
		return
	}
	const rows = 5
	x := make([]float64, 0, rows*cols)
	for _, v := range []float64{0, 1.5, -3e6, math.NaN(), 1e300} {
		for range cols {
			x = append(x, v)
		}
	}
	var back *Model
	record, err := m.AppendRecord(nil)
	if err == nil {
		if back, err = new(RecordReader).Read(record); err != nil {
			t.Fatalf("its own record: %v", err)
		}
	}
	var scratch Scratch
	for _, method := range m.Methods() {
		n := m.root.Outputs(method, cols)
		if n > 1<<12 {
			continue
		}
		// The last rows may be refused, so the first row is also computed alone.
		for first := 0; first < rows; first += 3 {
			part := x[first*cols : min(rows, first+3)*cols]
			out, again := make([]float64, 3*n), make([]float64, 3*n)
			err := m.Call(method, part, len(part)/cols, out, &scratch)
			if err != nil && !fleetscore.Invalid.Is(err) {
				t.Fatalf("%s: %v", method, err)
			}
			if record == nil {
				continue
			}
			if err2 := back.Call(method, part, len(part)/cols, again, &scratch); (err2 == nil) != (err == nil) {
				t.Fatalf("%s: %v, from its record: %v", method, err, err2)
			}
			if err == nil && !slices.EqualFunc(out, again, func(a, b float64) bool { return a == b || a != a && b != b }) {
				t.Fatalf("%s: %v, from its record: %v", method, out, again)
			}
		}
	}
	if m.Outputs(Predict) == 1 {
		_ = m.PredictInto(x, rows, make([]float64, rows), make([]float64, rows), &scratch)
	}
}

// loads loads a file and checks that it takes no more memory than promised.
func loads(t *testing.T, data []byte, size int) {
	t.Helper()
	var m *Model
	var err error
	if got := allocated(func() { m, err = Load(data) }); got > memoryPromise(size)+4<<20 { // the fuzzer allocates too
		t.Fatalf("%d bytes are allocated for %d", got, size)
	}
	if err == nil {
		exercise(t, m)
	} else if kind := fleetscore.KindOf(err); kind != fleetscore.Invalid && kind != fleetscore.Corrupt {
		t.Fatalf("an error of kind %v: %v", kind, err)
	}
}

// seeds adds the small fixtures of a kind.
func seeds(f *testing.F, ext string, most int, add func(data []byte)) {
	n := 0
	for name, data := range fixtureFiles(f) {
		if path.Ext(name) == ext && len(data) <= most {
			add(data)
			n++
		}
	}
	if n == 0 {
		f.Fatalf("no fixtures of the kind %s", ext)
	}
}

// FuzzPickle: any pickle, also joblib's with arrays in the stream.
func FuzzPickle(f *testing.F) {
	seeds(f, ".pickle", 4000, func(data []byte) { f.Add(data) })
	seeds(f, ".joblib", 9000, func(data []byte) { f.Add(data) })
	f.Fuzz(func(t *testing.T, data []byte) { loads(t, data, len(data)) })
}

// FuzzJoblib: a compressed pickle gives the same result as the pickle itself, for each
// compression.
func FuzzJoblib(f *testing.F) {
	names := []string{"gzip", "zlib", "lz4", "xz", "lzma"}
	seeds(f, ".joblib", 9000, func(data []byte) {
		for i := range names {
			f.Add(uint8(i), data)
		}
	})
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		name := names[int(kind)%len(names)]
		_, plain := loadPickle(data, "joblib", budget.New(context.Background(), budget.Limits{}, len(data), true))
		_, wrapped := Load(compressed(t, name, data))
		if (plain == nil) != (wrapped == nil) {
			t.Fatalf("%v; in %s: %v", plain, name, wrapped)
		}
	})
}

// FuzzCompressed: any bytes in place of a compressed file.
func FuzzCompressed(f *testing.F) {
	for _, ext := range []string{".z", ".gz", ".bz2", ".xz", ".lzma", ".lz4"} {
		seeds(f, ext, 6000, func(data []byte) { f.Add(data) })
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		loads(t, data, 16<<20) // the content of every file may have this size
	})
}

var fileOf = regexp.MustCompile(`"file": "([^"]+)"`)

// FuzzSkops: any schema and any arrays.
func FuzzSkops(f *testing.F) {
	seeds(f, ".skops", 1<<20, func(data []byte) {
		z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			f.Fatal(err)
		}
		var schema, array []byte
		for _, file := range z.File {
			r, err := file.Open()
			if err != nil {
				f.Fatal(err)
			}
			var b bytes.Buffer
			if _, err := b.ReadFrom(r); err != nil {
				f.Fatal(err)
			}
			if file.Name == "schema.json" {
				schema = b.Bytes()
			} else {
				array = b.Bytes()
			}
		}
		f.Add(schema, array)
	})
	f.Fuzz(func(t *testing.T, schema, array []byte) {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		put := func(name string, data []byte) {
			if file, err := w.CreateHeader(&zip.FileHeader{Name: name}); err == nil {
				_, _ = file.Write(data)
			}
		}
		put("schema.json", schema)
		for _, m := range fileOf.FindAllSubmatch(schema, 16) {
			put(string(m[1]), array)
		}
		if err := w.Close(); err != nil {
			t.Skip(err)
		}
		loads(t, b.Bytes(), 2*b.Len())
	})
}

// FuzzRecord: any native record whose checksum matches.
func FuzzRecord(f *testing.F) {
	seeds(f, ".pickle", 8000, func(data []byte) {
		m, err := Load(data)
		if err != nil {
			f.Fatal(err)
		}
		record, err := m.AppendRecord(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(record)
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		data = slices.Clone(data)
		seal(data)
		loads(t, data, len(data))
	})
}
