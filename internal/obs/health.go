package obs

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Health collects what doesn't work in a process. Code that finds that a part fails
// reports the failure here, and reports again, with an empty text, when the part
// works again. GET /health and the portal's overview show the list.
//
// A part is named in lower case: by one word if everything depends on the part
// ("hub", "ledger", "store", "disk"), else by kind and name ("query readings",
// "dataset readings", "fleet sensors"). Two reporters must not use one name.
//
// The zero value has no problems. A nil *Health discards reports. All methods may be
// called concurrently.
type Health struct {
	// Now is the time that Since is told by; nil means time.Now. It may be set before
	// Problems is called for the first time, also after reports.
	Now func() time.Time

	mu    sync.Mutex // guards what follows
	parts map[string]reported
}

// reported is a problem whose Since isn't known yet.
type reported struct {
	Problem
	first time.Time // by the machine's clock, and by the monotonic clock, which nobody sets
}

// Problem is one part that doesn't work or, as a warning, a part that works but needs
// a person's attention.
type Problem struct {
	Part    string    `json:"part" doc:"the part that the problem concerns, such as hub or dataset readings"`
	Problem string    `json:"problem" doc:"what is wrong, why, and what to do"`
	Since   time.Time `json:"since" doc:"when this part was first reported since it last worked"`
	Warning bool      `json:"warning" doc:"the part works, but somebody should look at it"`
}

// Report says that a part doesn't work and why, or, with an empty problem, that it
// works again. A part that is reported again keeps its time.
func (h *Health) Report(part, problem string) { h.set(part, problem, false) }

// Warn says that a part works but needs a person's attention, such as a disk that is
// nearly full or damage that was found and skipped. An empty text clears the warning,
// and also a problem of that part, because Report uses the same names of parts.
func (h *Health) Warn(part, text string) { h.set(part, text, true) }

func (h *Health) set(part, problem string, warning bool) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if problem == "" {
		delete(h.parts, part)
		return
	}
	p, ok := h.parts[part]
	if !ok || p.Warning != warning {
		p = reported{Problem: Problem{Part: part, Warning: warning}, first: time.Now()}
	}
	p.Problem.Problem = problem
	if h.parts == nil {
		h.parts = map[string]reported{}
	}
	h.parts[part] = p
}

// Problems lists what doesn't work, then the warnings; each in the order of their
// parts. The list is empty if everything works.
func (h *Health) Problems() []Problem {
	if h == nil {
		return nil
	}
	measured := time.Now()
	now := measured
	if h.Now != nil {
		now = h.Now() // without the lock: the clock reports to this health while it holds its own lock
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []Problem
	for _, p := range h.parts {
		// The age is measured by the monotonic clock, so that a machine's clock that was
		// set by hand doesn't move the time.
		p.Since = now.Add(p.first.Sub(measured)).UTC()
		out = append(out, p.Problem)
	}
	slices.SortFunc(out, func(a, b Problem) int {
		if a.Warning != b.Warning {
			if b.Warning {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Part, b.Part)
	})
	return out
}
