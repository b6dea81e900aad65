package sklearn

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
)

// TestSameShape: files that differ in a byte from those before them are read as
// if they were the first.
func TestSameShape(t *testing.T) {
	file := benchModels(t, "ref_1")[0].file
	read := func(data []byte) string {
		m, err := Load(data)
		if err != nil {
			return err.Error()
		}
		record, err := m.AppendRecord(nil)
		return fmt.Sprintf("%x %v %v", record, err, m.Info())
	}
	change := func(i int) []byte {
		changed := bytes.Clone(file)
		changed[i] ^= byte(1 + i%255)
		return changed
	}
	const stride = 11 // of the file's bytes
	var warm []string
	for i := 0; i < len(file); i += stride {
		for range 3 {
			read(file)
		}
		warm = append(warm, read(change(i)))
	}
	for i := 0; i < len(file); i += stride {
		runtime.GC() // twice, and nothing is left of what was read before
		runtime.GC()
		if cold := read(change(i)); cold != warm[i/stride] {
			t.Errorf("byte %d is changed: %s\nas the first file: %s", i, warm[i/stride], cold)
		}
	}
}
