package scorer

import (
	"cmp"
	"errors"
	"iter"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// Cause is keys that ended alike for the same reason.
type Cause struct {
	Outcome  fleetscore.Outcome `json:"outcome"`
	Reason   string             `json:"reason"` // of the first key
	Sensors  int64              `json:"sensors"`
	Examples []string           `json:"examples"` // the first keys, at most 8
}

const (
	maxCauses   = 1000 // that are told apart
	maxExamples = 8
)

// causes counts why keys ended as they did.
type causes map[string]*Cause

// add counts a key. The group is the reason without what differs from key to key.
func (c causes) add(k fleetscore.Key, o fleetscore.Outcome, reason, group string) {
	id := string(o) + "\x00" + fleetscore.WithoutNumbers(group)
	if c[id] == nil && len(c) >= maxCauses {
		id, reason = string(o), "one of very many different reasons; the coverage has them all"
	}
	if c[id] == nil {
		c[id] = &Cause{Outcome: o, Reason: reason}
	}
	c[id].Sensors++
	c[id].Examples = append(c[id].Examples, k.String())
	slices.Sort(c[id].Examples) // whichever goroutine came first
	c[id].Examples = c[id].Examples[:min(len(c[id].Examples), maxExamples)]
}

// CausesOf groups items that failed, timed out, were quarantined or have no model by
// outcome and reason, without what differs from key to key; most sensors first.
func CausesOf(items iter.Seq[fleetscore.Item]) []Cause {
	c := causes{}
	for it := range items {
		switch it.Outcome {
		case fleetscore.Failed, fleetscore.TimedOut, fleetscore.Quarantined, fleetscore.NoModel:
		default:
			continue
		}
		group := strings.ReplaceAll(it.Reason, it.Key.String(), "")
		for _, v := range it.Key.Values() {
			if len(v) > 2 { // shorter ones may be part of any word
				group = strings.ReplaceAll(group, v, "")
			}
		}
		c.add(it.Key, it.Outcome, it.Reason, group)
	}
	return c.sorted()
}

// sorted is most sensors first.
func (c causes) sorted() []Cause {
	out := make([]Cause, 0, len(c))
	for _, cause := range c {
		out = append(out, *cause)
	}
	slices.SortFunc(out, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(b.Sensors, a.Sensors), cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

// groupOf is an error without its subject, which differs from key to key.
func groupOf(err error) string {
	var e *fleetscore.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	c := *e
	c.Subject = ""
	return c.Error()
}
