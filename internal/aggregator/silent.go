package aggregator

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
)

// Silent says which keys of a dataset had rows earlier but have no recent rows.
type Silent struct {
	Count     int         `json:"count"`
	After     string      `json:"after"`           // a key is silent if its last row is older than the dataset's newest by this
	Keys      []SilentKey `json:"keys,omitempty"`  // the keys that have been silent for the longest time
	Watched   int         `json:"watched"`         // keys that are watched
	Unwatched bool        `json:"unwatched"`       // there are more keys, which are not watched
	Since     string      `json:"since,omitempty"` // keys that fell silent before this time are unknown after a restart
}

// SilentKey is a key that fell silent.
type SilentKey struct {
	Key  []string          `json:"key"`
	Last fleetscore.Micros `json:"last"` // stamp of its last row
}

const (
	maxWatched   = 200_000          // keys, about 100 bytes each with the text of short keys
	maxSilent    = 100              // keys that are listed
	minSilence   = 10 * time.Minute // a key is silent after this, or after three cuts if that is longer
	recallFiles  = 64               // of the dataset that are read at the start, the newest ones
	recallRows   = 2_000_000        // of these files
	silentInCuts = 3
)

// lastSeen is the stamp of the last row of each key.
type lastSeen struct {
	mu     sync.Mutex // guards what follows
	last   map[fleetscore.Key]fleetscore.Micros
	newest fleetscore.Micros // the time until which rows were committed, in any partition
	since  fleetscore.Micros // the oldest row that was read
	full   bool
	after  time.Duration
}

func newLastSeen(cut time.Duration) *lastSeen {
	return &lastSeen{last: map[fleetscore.Key]fleetscore.Micros{}, after: max(minSilence, silentInCuts*cut)}
}

// add notes committed rows and the time until which they were committed.
func (l *lastSeen) add(rows *fleetscore.Rows, done fleetscore.Micros) {
	newest := make([]fleetscore.Micros, len(rows.Keys))
	for i, k := range rows.KeyIndex {
		newest[k] = max(newest[k], rows.Times[i])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newest = max(l.newest, done)
	for i, k := range rows.Keys {
		old, known := l.last[k]
		if !known && len(l.last) >= maxWatched {
			l.full = true
			continue
		}
		l.last[k] = max(old, newest[i])
	}
	for _, t := range rows.Times {
		if l.since == 0 || t < l.since {
			l.since = t
		}
	}
}

func (l *lastSeen) silent() Silent {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := Silent{Watched: len(l.last), Unwatched: l.full, After: l.after.String()}
	if l.since != 0 {
		out.Since = l.since.String()
	}
	limit := l.newest - fleetscore.Micros(l.after.Microseconds())
	var keys []fleetscore.Key
	for k, t := range l.last {
		if t < limit {
			keys = append(keys, k)
		}
	}
	out.Count = len(keys)
	slices.SortFunc(keys, func(a, b fleetscore.Key) int { return cmp.Or(cmp.Compare(l.last[a], l.last[b]), cmp.Compare(a, b)) })
	for _, k := range keys[:min(len(keys), maxSilent)] {
		out.Keys = append(out.Keys, SilentKey{k.Values(), l.last[k]})
	}
	return out
}

// recall reads the newest files of the dataset, so that keys which fell silent
// shortly before a restart are still known. The list only helps people, so an error
// is logged and ignored.
func (a *Aggregator) recall(ctx context.Context) {
	snap, err := a.table.Snapshot(ctx)
	if err != nil {
		return
	}
	files := slices.Clone(snap.Files)
	slices.SortFunc(files, func(x, y fleetscore.DataFile) int { return cmp.Compare(y.Last, x.Last) })
	rows := int64(0)
	for i, f := range files[:min(len(files), recallFiles)] {
		if rows += f.Rows; rows > recallRows {
			break
		}
		r, err := a.table.ReadRows(ctx, files[i:i+1], table.ReadQuery{})
		if err != nil {
			a.log.Warn("rows could not be read to find silent keys", "file", f.Path, "error", err)
			return
		}
		a.seen.add(r, f.Last)
	}
}
