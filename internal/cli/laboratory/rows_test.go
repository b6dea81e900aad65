package laboratory

import (
	"encoding/json"
	"fmt"
	"testing"
)

// jsonRows reads printed rows without the code that prints them.
type jsonRows struct{}

func (jsonRows) read(t *testing.T, line string) map[string]string {
	t.Helper()
	var raw map[string]any
	if err := json.Unmarshal([]byte(line), &raw); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	out := map[string]string{}
	for k, v := range raw {
		out[k] = fmt.Sprint(v)
	}
	return out
}
