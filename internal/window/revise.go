package window

import (
	"math"

	"github.com/fleetscore/fleetscore"
)

// Cell names a row: of a key, in the window that ends at a time.
type Cell struct {
	Key fleetscore.Key
	End fleetscore.Micros
}

// Touched are the committed rows that readings came for which Config.Revise allows, and the
// last message with such a reading. Like the rows of Close they have to be committed
// together with the position of the log, or they are found again after a restart.
func (p *Partition) Touched() map[Cell]uint64 { return p.touched }

// Untouch forgets what Touched returned, once it was committed.
func (p *Partition) Untouch() { p.touched = map[Cell]uint64{} }

// Since says how far back the readings of the log go: readings for committed windows that
// start earlier are late, because the windows' other readings may be gone.
func (p *Partition) Since(oldest fleetscore.Micros) { p.oldest = oldest }

// out reports whether a window that is over takes no reading of a message any more.
func (p *Partition) out(seq uint64, end fleetscore.Micros) bool {
	return p.cfg.Revise == 0 || end+micros(p.cfg.Revise) <= p.state.watermark || seq > p.doneSeq && end <= p.doneEnd && end-p.width < p.oldest
}

// Again takes a message of a log that is read again, by the times of its readings alone. A
// reading counts in a window if last, which says up to which message rows take readings,
// has the row; if last is nil, it counts in all of its windows. Early readings don't count.
// It returns how many readings counted, and how many were repeats.
// Close returns the rows. The partition is used for this only.
func (p *Partition) Again(s Stamp, r *fleetscore.Readings, keep []bool, last map[Cell]uint64) (counted, repeats int64) {
	m := p.message(s.Seq, r)
	p.kept = nil
	ahead := s.Arrived + s.Unsure + micros(p.cfg.MaxEarly)
	for i, t := range r.Times {
		if t > ahead || keep != nil && !keep[i] {
			continue
		}
		taken, again := false, false
		for k, x, end := ^uint32(0), (print{}), p.end(t); end-p.width < t; end += p.hop {
			if last != nil && s.Seq > last[Cell{r.Keys[r.KeyIndex[i]], end}] {
				continue
			}
			if k == ^uint32(0) {
				k = p.number(m, r.KeyIndex[i])
				x = printOf(&p.keys.list[k], t, hashOf(r, m.names, i))
			}
			if p.add(end, k, x, m, i) {
				taken = true
			} else {
				again = true
			}
		}
		if taken {
			counted++
		} else if again {
			repeats++
		}
	}
	return counted, repeats
}

// Rest closes all windows and returns their rows.
func (p *Partition) Rest() *fleetscore.Rows { return p.Close(math.MaxInt64) }
