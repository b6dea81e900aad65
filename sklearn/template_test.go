package sklearn

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
)

// TestSameShape: a file that differs in a byte from earlier files is read as if it were
// the first file.
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
	const stride = 11 // every eleventh byte of the file is changed
	var warm []string
	for i := 0; i < len(file); i += stride {
		for range 3 {
			read(file)
		}
		warm = append(warm, read(change(i)))
	}
	for i := 0; i < len(file); i += stride {
		runtime.GC() // two collections remove all templates of earlier files
		runtime.GC()
		if cold := read(change(i)); cold != warm[i/stride] {
			t.Errorf("byte %d is changed: %s\nas the first file: %s", i, warm[i/stride], cold)
		}
	}
}
