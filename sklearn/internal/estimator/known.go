package estimator

import (
	_ "embed"
	"strings"
	"sync"

	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// attributesList has a line for each class: its name, and the names of all parameters
// and attributes that the class has in any release since 0.19. testdata/attributes.py
// of package sklearn collects them, and its TestAttributes checks each.
//
//go:embed attributes.txt
var attributesList string

// nameSet is a set of names, found by their tags.
type nameSet struct {
	slots []string // the length is a power of 2; a free slot is ""
}

func newNameSet(names []string) *nameSet {
	size := 16
	for size < 3*len(names) {
		size *= 2
	}
	s := &nameSet{slots: make([]string, size)}
	for _, n := range names {
		at := s.first(tag(n))
		for s.slots[at] != "" {
			at = (at + 1) % size
		}
		s.slots[at] = n
	}
	return s
}

func (s *nameSet) first(tag uint64) int {
	return int(tag * 0x9e3779b97f4a7c15 >> 32 % uint64(len(s.slots)))
}

func (s *nameSet) has(tag uint64, name []byte) bool {
	if s == nil {
		return false
	}
	for at := s.first(tag); ; at = (at + 1) % len(s.slots) {
		switch n := s.slots[at]; {
		case n == string(name):
			return true
		case n == "":
			return false
		}
	}
}

// known has the set of names for each class.
var known = sync.OnceValue(func() map[string]*nameSet {
	out := map[string]*nameSet{}
	for line := range strings.Lines(attributesList) {
		if f := strings.Fields(line); len(f) > 0 {
			out[f[0]] = newNameSet(f[1:])
		}
	}
	return out
})

// KnownAttributes returns the names that objects of each class may have.
func KnownAttributes() map[string][]string {
	out := map[string][]string{}
	for line := range strings.Lines(attributesList) {
		if f := strings.Fields(line); len(f) > 0 {
			out[f[0]] = f[1:]
		}
	}
	return out
}

// judge refuses an attribute that the class has in no release of scikit-learn. Such an
// attribute may change predictions; for example, it may replace a method. Other errors
// are reported first, because they say more.
func (a *Attributes) judge(class string) {
	if a.unknown == "" || a.err != nil {
		return
	}
	name := a.unknown
	r := refusal.Refusal{Reason: refusal.Parameter, Class: class, Step: a.Name, Parameter: name}
	where := at(class, a.Name)
	for m := range Methods {
		if name == m.String() {
			a.err = refusal.Of(r, "%s has an attribute %s, which replaces the method of that name", where, name).
				WithHint("it was added after the fit; fit the estimator again and write it with pickle.dump without changes")
			return
		}
	}
	a.err = refusal.Of(r, "%s has an attribute %q that it has in no release of scikit-learn up to %s, so its effect on predictions isn't known", where, pickle.Clean([]byte(name)), newest).
		WithHint("if you added it, delete it before you write the model (del model.%s); if a newer scikit-learn made it, use a newer release of Fleetscore", pickle.Clean([]byte(name)))
}

// newest is the last scikit-learn release whose attributes were collected.
const newest = "1.9"
