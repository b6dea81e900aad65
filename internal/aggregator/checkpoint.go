package aggregator

import (
	"math"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/window"
)

// A checkpoint lies in the transactions of the dataset's table, one number an
// entry: query/<name>/p<partition>/ and
//
//	position, complete_until, replay_from, replay_watermark, replay_arrived
//	replay_source/<source>/mark, replay_source/<source>/last
//
// Entries of sources are never removed; a source that was committed once is part
// of every later checkpoint.
const sourceEntry = "replay_source/"

// entries are a checkpoint's transactions.
func (a *Aggregator) entries(partition int, c window.Checkpoint) map[string]int64 {
	id := func(what string) string { return a.appID(partition, what) }
	out := map[string]int64{
		id("position"):                        int64(c.Position),
		id("replay_from"):                     int64(c.ReplayFrom),
		id("replay_watermark"):                int64(c.Watermark),
		id("replay_arrived"):                  int64(c.Arrived),
		id("complete_until"):                  int64(c.Done),
		"query/" + a.cfg.Name + "/partitions": int64(a.hub.Partitions()),
	}
	for _, s := range c.Sources {
		if s.Mark != math.MinInt64 { // it takes part in the watermark
			out[id(sourceEntry+string(s.Source)+"/mark")] = int64(s.Mark)
			out[id(sourceEntry+string(s.Source)+"/last")] = int64(s.Last)
		}
	}
	return out
}

// checkpoint reads what entries wrote; false if nothing was committed.
func (a *Aggregator) checkpoint(snap *table.Snapshot, partition int) (c window.Checkpoint, ok bool) {
	get := func(what string) int64 { return snap.Txns[a.appID(partition, what)] }
	position, ok := snap.Txns[a.appID(partition, "position")]
	if !ok {
		return c, false
	}
	c = window.Checkpoint{Position: uint64(position), Done: fleetscore.Micros(get("complete_until")), ReplayFrom: uint64(get("replay_from")),
		Watermark: fleetscore.Micros(get("replay_watermark")), Arrived: fleetscore.Micros(get("replay_arrived"))}
	prefix := a.appID(partition, sourceEntry)
	for id, mark := range snap.Txns {
		name, isMark := strings.CutSuffix(id, "/mark")
		if source, mine := strings.CutPrefix(name, prefix); isMark && mine {
			c.Sources = append(c.Sources, window.SourceMark{Source: fleetscore.Source(source), Mark: fleetscore.Micros(mark),
				Last: fleetscore.Micros(snap.Txns[name+"/last"])})
		}
	}
	return c, true
}
