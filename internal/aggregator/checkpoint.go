package aggregator

import (
	"math"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/window"
)

// A checkpoint is stored in the transactions of the dataset's table, one number per
// entry: query/<name>/p<partition>/ and
//
//	position, complete_until, replay_from, replay_watermark, replay_clock
//	replay_source/<source>/mark, …/arrived, …/last
//	hub, epoch, offset, form
//
// Entries of sources are never removed; a source that was committed once is part
// of every later checkpoint.
//
// position and replay_from count messages over all the hubs that the query ever
// read, so that they only grow: they are the hub's sequence plus offset. hub and
// epoch are those of the message at position. form is a hash of the query's text.
const sourceEntry = "replay_source/"

// entries are a checkpoint's transactions.
func (a *Aggregator) entries(partition int, c window.Checkpoint, at place) map[string]int64 {
	id := func(what string) string { return a.appID(partition, what) }
	out := map[string]int64{
		id("position"):                        at.count(c.Position),
		id("replay_from"):                     at.count(c.ReplayFrom),
		id("hub"):                             at.hub,
		id("epoch"):                           at.epoch,
		id("offset"):                          at.offset,
		id("form"):                            formOf(a.plan),
		id("replay_watermark"):                int64(c.Watermark),
		id("replay_clock"):                    int64(c.Clock),
		id("complete_until"):                  int64(c.Done),
		"query/" + a.cfg.Name + "/partitions": int64(a.hub.Partitions()),
	}
	for _, s := range c.Sources {
		if s.Mark != math.MinInt64 { // the source takes part in the watermark
			out[id(sourceEntry+string(s.Source)+"/mark")] = int64(s.Mark)
			out[id(sourceEntry+string(s.Source)+"/arrived")] = int64(s.Arrived)
			out[id(sourceEntry+string(s.Source)+"/last")] = int64(s.Last)
		}
	}
	return out
}

// checkpoint reads the entries of a checkpoint; false if nothing was committed.
func (a *Aggregator) checkpoint(snap *table.Snapshot, partition int) (c window.Checkpoint, at place, ok bool) {
	get := func(what string) int64 { return snap.Txns[a.appID(partition, what)] }
	position, ok := snap.Txns[a.appID(partition, "position")]
	if !ok {
		return c, at, false
	}
	at = place{hub: get("hub"), epoch: get("epoch"), offset: get("offset")}
	c = window.Checkpoint{Position: uint64(position - at.offset), Done: fleetscore.Micros(get("complete_until")), ReplayFrom: uint64(get("replay_from") - at.offset),
		Watermark: fleetscore.Micros(get("replay_watermark")), Clock: fleetscore.Micros(get("replay_clock"))}
	prefix := a.appID(partition, sourceEntry)
	for id, mark := range snap.Txns {
		name, isMark := strings.CutSuffix(id, "/mark")
		if source, mine := strings.CutPrefix(name, prefix); isMark && mine {
			c.Sources = append(c.Sources, window.SourceMark{Source: fleetscore.Source(source), Mark: fleetscore.Micros(mark),
				Arrived: fleetscore.Micros(snap.Txns[name+"/arrived"]), Last: fleetscore.Micros(snap.Txns[name+"/last"])})
		}
	}
	return c, at, true
}
