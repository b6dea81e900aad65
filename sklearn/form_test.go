package sklearn

import (
	"fmt"
	"hash/crc64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRecordForm: native records of the fixtures have the same bytes as when their
// version was introduced. If the content of a class's record changes, the version must
// change too, because packs of the old version would be read in the new form.
func TestRecordForm(t *testing.T) {
	t.Parallel()
	const golden = "testdata/records.txt"
	forms := map[string]uint64{} // a hash of all records, by class
	files := fixtureFiles(t)
	names := make([]string, 0, len(files))
	for name := range files {
		if filepath.Ext(name) == ".pickle" && strings.HasPrefix(name, "parity/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	table := crc64.MakeTable(crc64.ECMA)
	for _, name := range names {
		m, err := Load(files[name])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		record, err := m.AppendRecord(nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// Only whole numbers are hashed: lengths, flags and counts. The last digits of
		// floats depend on the processor.
		class := m.last.Class()
		forms[class] = crc64.Update(forms[class], table, []byte(fmt.Sprint(len(record), record[16:24])))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "version %d\n", RecordVersion)
	classes := make([]string, 0, len(forms))
	for class := range forms {
		classes = append(classes, class)
	}
	slices.Sort(classes)
	for _, class := range classes {
		fmt.Fprintf(&b, "%s %016x\n", class, forms[class])
	}
	got := b.String()
	data, err := os.ReadFile(golden)
	if want := string(data); *update {
		version, _, _ := strings.Cut(want, "\n")
		if now, _, _ := strings.Cut(got, "\n"); now == version && got != want && err == nil {
			t.Log("records of this version had another form; raise RecordVersion, unless nobody has any")
		}
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != want {
		t.Errorf("records have another form than those of this version: raise RecordVersion, then run go test ./sklearn -run TestRecordForm -update\n%s", got)
	}
}
