package hub

import (
	"fmt"
	"strings"
	"sync"
)

// Warnings tells people what they should know of a log, wherever it lies: what was found to be
// damaged, and how much is kept beyond the retention. It is safe for concurrent use.
type Warnings struct {
	health Health

	mu      sync.Mutex // guards what follows
	texts   []string
	overdue map[int]int64 // bytes by partition
}

// NewWarnings makes the warnings of one log.
func NewWarnings(health Health) *Warnings {
	return &Warnings{health: health, overdue: map[int]int64{}}
}

const maxDamageTexts = 20 // lines of a warning

// Damaged adds something that was found to be damaged.
func (w *Warnings) Damaged(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.texts) < maxDamageTexts {
		w.texts = append(w.texts, text)
	}
	w.health.Warn("hub log", strings.Join(w.texts, "; ")+". Everything else can be read. Restart the server to clear this warning")
}

// Overdue notes how many bytes of a partition are kept beyond the retention, and warns
// while there are any, because the log grows until the query that needs them goes on.
func (w *Warnings) Overdue(partition int, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n == w.overdue[partition] {
		return
	}
	w.overdue[partition] = n
	sum := int64(0)
	for _, n := range w.overdue {
		sum += n
	}
	w.health.Warn("hub retention", overdueText(sum))
}

// OverdueOf is what Overdue noted last.
func (w *Warnings) OverdueOf(partition int) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.overdue[partition]
}

// overdueText is empty if there are no such bytes.
func overdueText(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprintf("%d MB of readings are older than hub.retention, or more than its size, and are kept, because a query still needs them, they are not archived yet, or the clock is not trusted: GET /queries and the overview show whether a query has stopped; if you remove that query from fleet.yaml, the readings are removed too; if none has stopped, its windows need more than hub.retention allows", (bytes+1<<20-1)>>20)
}
