package config

import (
	"bytes"
	"encoding/json"

	"github.com/fleetscore/fleetscore"
)

// ParseRecurrence reads the JSON of a recurrence of Logic Apps, by itself or within
// its trigger ({"type": "Recurrence", "recurrence": {…}}), as strictly as Parse.
func ParseRecurrence(text []byte) (fleetscore.Recurrence, error) {
	var tree map[string]json.RawMessage
	if err := json.Unmarshal(text, &tree); err != nil {
		return fleetscore.Recurrence{}, fleetscore.Errorf(fleetscore.Invalid, "read recurrence", "", "not a JSON object: %v", err).
			WithHint(`write for example {"frequency": "Day", "interval": 1}`)
	}
	if inner, ok := tree["recurrence"]; ok {
		text = inner
	}
	var c struct {
		Recurrence fleetscore.Recurrence `json:"recurrence"`
	}
	// JSON is YAML, except for tabs, so that one reader reads both.
	var indented bytes.Buffer
	if err := json.Indent(&indented, append(append([]byte(`{"recurrence":`), text...), '}'), "", " "); err != nil {
		return c.Recurrence, fleetscore.Wrap("read recurrence", "", err)
	}
	r := newReader()
	if body := r.parse(indented.Bytes()); body != nil {
		r.decode(body, &c)
	}
	if len(r.problems) > 0 {
		for i := range r.problems {
			r.problems[i].Line = 0 // the lines are not the user's
		}
		return fleetscore.Recurrence{}, &fleetscore.Error{Kind: fleetscore.Invalid, Err: &Problems{Name: "JSON", List: r.problems}}
	}
	return c.Recurrence, nil
}
