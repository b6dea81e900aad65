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
