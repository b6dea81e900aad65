package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// Change is one key in which two configurations differ.
type Change struct {
	Path string `json:"path"`          // such as pipelines.anomalies.schedule.cron
	Old  string `json:"old,omitempty"` // as JSON; empty if the key is added
	New  string `json:"new,omitempty"` // as JSON; empty if the key is removed
}

// String is the change in a line: "+" added, "-" removed, "~" changed.
func (c Change) String() string {
	switch {
	case c.Old == "":
		return "+ " + c.Path + ": " + c.New
	case c.New == "":
		return "- " + c.Path + ": " + c.Old
	}
	return "~ " + c.Path + ": " + c.Old + " → " + c.New
}

// Diff lists the differences of two configurations by path. Defaults are filled in
// both, so that leaving a key out equals writing its default. If a whole mapping such
// as a pipeline is added or removed, there is one change for each of its keys.
func Diff(old, now fleetscore.Config) ([]Change, error) {
	a, err := flat(old)
	if err != nil {
		return nil, err
	}
	b, err := flat(now)
	if err != nil {
		return nil, err
	}
	changes := []Change{}
	for path, v := range a {
		if w := b[path]; w != v {
			changes = append(changes, Change{path, v, w})
		}
	}
	for path, w := range b {
		if _, was := a[path]; !was {
			changes = append(changes, Change{Path: path, New: w})
		}
	}
	slices.SortFunc(changes, func(x, y Change) int { return strings.Compare(x.Path, y.Path) })
	return changes, nil
}

// flat is a configuration as paths and their values as JSON.
func flat(c fleetscore.Config) (map[string]string, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, err
	}
	out := map[string]string{}
	var walk func(path string, v any) error
	walk = func(path string, v any) error {
		if m, ok := v.(map[string]any); ok && len(m) > 0 {
			for k, e := range m {
				if err := walk(strings.TrimPrefix(path+"."+k, "."), e); err != nil {
					return err
				}
			}
			return nil
		}
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if s := strings.TrimSpace(b.String()); s != "{}" {
			out[path] = s
		}
		return nil
	}
	return out, walk("", tree)
}
