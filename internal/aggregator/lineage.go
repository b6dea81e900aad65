package aggregator

import (
	"context"
	"fmt"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/window"
)

// place says which log a sequence belongs to, and the offset between the sequence and
// the table's count.
type place struct {
	hub    int64
	epoch  int64 // of the message at the position
	offset int64
}

// count converts a sequence to the count in the table's entries.
func (p place) count(seq uint64) int64 { return int64(seq) + p.offset }

// follow finds out whether the hub's log is still the one in which a position was
// committed. It isn't if the hub's folder is new, was lost, lost its end or was
// replaced by an older copy. Then the same sequences name other messages, and follow
// moves the checkpoint to the last message that the query has certainly taken, so
// that all others count as new. Committed windows stay closed, so no row is made
// twice; readings that belong to them are set aside as late.
func (a *Aggregator) follow(ctx context.Context, partition int, c window.Checkpoint, at place) (window.Checkpoint, place, error) {
	stats, err := a.hub.Stats(ctx)
	if err != nil {
		return c, at, err
	}
	log := stats[partition]
	reaches, known, err := a.hub.Reaches(ctx, partition, at.epoch)
	if err != nil {
		return c, at, err
	}
	switch {
	case known && c.Position <= reaches:
		return c, at, nil
	case !known && at.hub == a.hub.ID() && log.First > c.Position && log.Last >= c.Position:
		return c, at, nil // the message at the position was removed because of its age
	}
	var text string
	switch {
	case known:
		text = fmt.Sprintf("the hub's log of partition %d ends at message %d of what this query had read up to message %d: the rest was lost after it had been read", partition, reaches, c.Position)
	case at.hub == a.hub.ID():
		text = fmt.Sprintf("the hub's log of partition %d isn't the one that this query had read up to message %d: the folder was damaged, or is an older copy", partition, c.Position)
	default:
		text = fmt.Sprintf("dataset %s was made from hub %016x, this one is hub %016x: partition %d is read from its beginning", a.plan.Into, at.hub, a.hub.ID(), partition)
	}
	a.note(partition, text+". All later messages count as new. Readings of rows that already exist are set aside as late")
	at = place{hub: a.hub.ID(), epoch: at.epoch, offset: max(1, at.count(c.Position)-int64(reaches))} // 0 says that all rows were made from one log
	c.Position, c.ReplayFrom = reaches, min(c.ReplayFrom, reaches+1)
	if reaches == 0 { // no message of the old log is left
		c.ReplayFrom, c.Watermark = 1, max(c.Watermark, c.Done)
	}
	return c, at, nil
}

// inherit returns the checkpoint of a partition that was never committed, if other
// partitions of the query were committed in a hub with another number of partitions.
// The partition's keys may already have rows, up to the latest time until which any
// old partition was complete.
func (a *Aggregator) inherit(snap *table.Snapshot) (done fleetscore.Micros, ok bool) {
	if snap.Txns["query/"+a.cfg.Name+"/partitions"] == int64(a.hub.Partitions()) {
		return 0, false
	}
	for id, v := range snap.Txns {
		if strings.HasPrefix(id, "query/"+a.cfg.Name+"/p") && strings.HasSuffix(id, "/complete_until") {
			done, ok = max(done, fleetscore.Micros(v)), true
		}
	}
	return done, ok
}

// note tells operators something about a partition, in the log, the status and the
// health, until the next start.
func (a *Aggregator) note(partition int, text string) {
	a.log.Error(text, "partition", partition)
	a.mu.Lock()
	defer a.mu.Unlock() // also until health knows, or the note of a partition that came first might be told last
	a.status.Partitions[partition].Note = text
	var all []string
	for _, p := range a.status.Partitions {
		if p.Note != "" {
			all = append(all, p.Note)
		}
	}
	a.health.Warn("log of query "+a.subject, strings.Join(all, "; "))
}

// missing counts messages that the hub no longer has, and says why.
func (r *reading) missing(t *track, first, last uint64) {
	r.a.metrics.gone.Add(float64(last - first + 1))
	r.a.update(t.partition, func(s *PartitionStatus) { s.Gone += last - first + 1 })
	why := "they were removed because of their age, or of the size of the log, before the query had read them: hub.retention is too little for the outage"
	if last <= t.last.Position {
		why = "they were removed because of their age, or of the size of the log, and this query needs them once more, because its state is gone: rows of what was open then are made of the readings that are left"
	}
	if stats, err := r.a.hub.Stats(r.ctx); err == nil {
		for _, d := range stats[t.partition].Damage {
			if d.First <= last && first <= d.Last {
				why = "damaged: " + d.Reason
			}
		}
	}
	r.a.note(t.partition, fmt.Sprintf("messages %d to %d of partition %d are not in the hub any more, %s", first, last, t.partition, why))
}
