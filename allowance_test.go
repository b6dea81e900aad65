package fleetscore_test

import (
	"encoding/json"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// TestAllowance: a count and a share are read, written back as they were, and judged.
func TestAllowance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		doc         string // JSON
		part, whole int64
		text        string // empty means that it is refused
		allows      bool
	}{
		{`"5%"`, 5, 100, "5%", true},
		{`"5%"`, 6, 100, "5%", false},
		{`"5"`, 5, 6, "5", true},
		{`5`, 6, 1_000_000, "5", false},
		{`0`, 0, 0, "0", true},
		{`"0%"`, 1, 1000, "0%", false},
		{`"101%"`, 0, 0, "", false},
		{`-1`, 0, 0, "", false},
		{`1.5`, 0, 0, "", false},
		{`"five"`, 0, 0, "", false},
	} {
		var a fleetscore.Allowance
		err := json.Unmarshal([]byte(tt.doc), &a)
		if tt.text == "" {
			if !fleetscore.Invalid.Is(err) {
				t.Errorf("%s is read as %v, %v", tt.doc, a, err)
			}
			continue
		}
		back, err2 := json.Marshal(a)
		if err != nil || err2 != nil || string(back) != `"`+tt.text+`"` || a.Allows(tt.part, tt.whole) != tt.allows {
			t.Errorf("%s: got %v (%s), allows %d of %d: %v; %v, %v", tt.doc, a, back, tt.part, tt.whole, a.Allows(tt.part, tt.whole), err, err2)
		}
	}
}

// TestSize: a size is read with any unit and written with the largest that fits.
func TestSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"10GB": "10GB", "1500 mb": "1500MB", "2000MB": "2GB", "1.5TB": "1500GB", "0B": "0B", "7b": "7B"} {
		var s fleetscore.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != want {
			t.Errorf("%s is read as %s, %v; want %s", text, s, err, want)
		}
	}
	for _, text := range []string{"", "10", "GB", "-1GB", "ten GB", "1e300TB", "NaNGB"} {
		var s fleetscore.Size
		if err := s.UnmarshalText([]byte(text)); !fleetscore.Invalid.Is(err) {
			t.Errorf("%q is read as %s, %v", text, s, err)
		}
	}
}
