package estimator

import (
	_ "embed"
	"strings"
	"sync"

	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// attributesList has a line for each class that is read: its name, and those of all
// parameters and attributes that any release since 0.19 gives it. testdata/attributes.py
// of package sklearn collects them; its TestAttributes judges each.
//
//go:embed attributes.txt
var attributesList string

// nameSet is a set of names, by their tags.
type nameSet struct {
	slots []string // a power of 2; empty where free
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

// known has the names of each class.
var known = sync.OnceValue(func() map[string]*nameSet {
	out := map[string]*nameSet{}
	for line := range strings.Lines(attributesList) {
		if f := strings.Fields(line); len(f) > 0 {
			out[f[0]] = newNameSet(f[1:])
		}
	}
	return out
})

// KnownAttributes are the names that objects of each class that is read may have.
func KnownAttributes() map[string][]string {
	out := map[string][]string{}
	for line := range strings.Lines(attributesList) {
		if f := strings.Fields(line); len(f) > 0 {
			out[f[0]] = f[1:]
		}
	}
	return out
}

// judge refuses an attribute that no release of scikit-learn gives the class: it may
// change what the estimator predicts, as one does that has the name of a method. Other
// errors come first, as they say more.
func (a *Attributes) judge(class string) {
	if a.unknown == "" || a.err != nil {
		return
	}
	name := a.unknown
	r := refusal.Refusal{Reason: refusal.Parameter, Class: class, Step: a.Name, Parameter: name}
	where := at(class, a.Name)
	for m := range Methods {
		if name == m.String() {
			a.err = refusal.Of(r, "%s has an attribute %s, which takes the place of its method", where, name).
				WithHint("somebody put it there after the fit; fit the estimator again and write it as it is, with pickle.dump")
			return
		}
	}
	a.err = refusal.Of(r, "%s has an attribute %q that no release of scikit-learn up to %s gives it, so what it does to predictions can't be known", where, pickle.Clean([]byte(name)), newest).
		WithHint("if you added it, delete it before you write the model (del model.%s); if a newer scikit-learn made it, use a newer release of this program", pickle.Clean([]byte(name)))
}

// newest is the last release whose attributes were collected.
const newest = "1.9"
