package sklearn

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"os"
	"testing"
)

// viaRecord writes a model in native form and reads it back.
func viaRecord(t testing.TB, m *Model) *Model {
	t.Helper()
	record, err := m.AppendRecord(nil)
	if err != nil {
		t.Fatal(err)
	}
	back, err := new(RecordReader).Read(record)
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func TestRecordReaderAllocatesNothing(t *testing.T) {
	data, err := os.ReadFile("testdata/1.9.1/wide.p5.pickle")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(data)
	if err != nil {
		t.Fatal(err)
	}
	record, err := m.AppendRecord(nil)
	if err != nil {
		t.Fatal(err)
	}
	var records RecordReader
	var back *Model
	if n := testing.AllocsPerRun(10, func() {
		if back, err = records.Read(record); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if back.Degenerate() != m.Degenerate() || back.NumFeatures() != m.NumFeatures() {
		t.Errorf("degenerate %v, %d features; want %v, %d", back.Degenerate(), back.NumFeatures(), m.Degenerate(), m.NumFeatures())
	}
}

// TestDamagedRecord: any changed byte and any missing end is noticed, and never causes
// a panic, even if the checksum matches.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/1.9.1/one.p5.pickle")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(data)
	if err != nil {
		t.Fatal(err)
	}
	record, err := m.AppendRecord(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range record {
		changed := append([]byte(nil), record...)
		changed[i] ^= 0x41
		if _, err := Load(changed); err == nil {
			t.Fatalf("byte %d is changed, but the record loads", i)
		}
		if _, err := Load(record[:i]); err == nil {
			t.Fatalf("the record loads, cut after %d bytes", i)
		}
		seal(changed)
		if m, err := Load(changed); err == nil {
			out := []float64{0, 0}
			_ = m.PredictInto([]float64{math.Pi}, 1, out[:1], out[1:], nil) // any result is right, but no panic
		}
	}
}

// seal sets the length and the checksum of a changed record.
func seal(record []byte) {
	if len(record) >= recordHeader {
		copy(record, recordMagic)
		binary.LittleEndian.PutUint32(record[4:], RecordVersion)
		binary.LittleEndian.PutUint32(record[8:], uint32(len(record)))
		binary.LittleEndian.PutUint32(record[12:], crc32.Checksum(record[16:], castagnoli))
	}
}
