package dispatch

import (
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// The aims of Plan.
const (
	// TaskTime is what a task is to take: long beside what it costs to hand one out, and
	// short beside what is lost if its node goes.
	TaskTime = 3 * time.Second
	// ShortestTask is below what no task is cut merely to give each slot one.
	ShortestTask = TaskTime / 10
	// taskBytes is how many bytes of rows and models a task reads at most, whatever they
	// cost: a node has to hold them in memory.
	taskBytes = 64 << 20
	// readBytes is how many bytes of rows and models a node reads in a second, and writes
	// what comes of them. It matters only beside models that cost next to nothing.
	readBytes = 32 << 20
)

// minKeys is the least number of keys of a task whose cost nobody knows yet, if the job has
// as many. A smaller task would probably take longer to hand out than to score.
const minKeys = 64

// tasksPerSlot is how many tasks of a job whose cost nobody knows yet there are for each
// slot, so that a slow task doesn't delay the rest.
const tasksPerSlot = 4

// fileShards is the number of shards in the smallest range that a dataset's large
// files cover. Tasks whose ranges end at multiples of it share no such file. To end
// there, a task may be a tenth smaller or larger than its share.
const (
	fileShards = 16
	slack      = 10
)

// Workload is what a job has to do.
type Workload struct {
	Keys  [fleetscore.Shards]int64 // that the job has, per shard
	Bytes [fleetscore.Shards]int64 // of the files with their rows and models
	Rows  int64                    // of the files with their rows
	Of    fleetscore.Digest        // of what the cost depends on besides; another digest's cost doesn't count
}

// Spread adds the bytes of a file with the rows or models of some shards. How many of them
// belong to a shard isn't known: its share is that of its keys.
func (w *Workload) Spread(bytes int64, over fleetscore.ShardRange) {
	var keys int64
	for s := int(over.First); s <= int(over.Last); s++ {
		keys += w.Keys[s]
	}
	if keys == 0 {
		w.Bytes[over.First] += bytes
		return
	}
	for s := int(over.First); s <= int(over.Last); s++ {
		w.Bytes[s] += int64(float64(bytes) * (float64(w.Keys[s]) / float64(keys)))
	}
}

// Cost is how long a shard's models took, on one of the threads of a task.
type Cost struct {
	Shard fleetscore.Shard `json:"shard"`
	Keys  int64            `json:"keys"` // that were worked on, also those without rows
	Load  time.Duration    `json:"load"`
	Score time.Duration    `json:"score"`
}

// CostOf is what the items of a task cost, by shard; those that were kept aren't counted. Threads is how many scored them at
// once: so much of the time passed at the same time.
func CostOf(items []fleetscore.Item, threads int) (out []Cost) {
	var at [fleetscore.Shards]*Cost
	for i := range items {
		it := &items[i]
		if it.Kept != "" {
			continue
		}
		s := it.Key.Shard()
		if at[s] == nil {
			at[s] = &Cost{Shard: s}
		}
		at[s].Keys++
		at[s].Load += it.Load
		at[s].Score += it.Score
	}
	n := time.Duration(max(1, threads))
	for _, c := range at {
		if c != nil {
			out = append(out, Cost{c.Shard, c.Keys, c.Load / n, c.Score / n})
		}
	}
	return out
}

// Measured is what is known of the cost of a pipeline's jobs.
type Measured struct {
	Of     fleetscore.Digest `json:"of"`   // of what the cost depends on
	Job    fleetscore.JobID  `json:"job"`  // that it was measured in last
	At     time.Time         `json:"at"`   // when that job ended
	Rows   int64             `json:"rows"` // of the files that this job read
	Shards []Cost            `json:"shards"`
}

// Learn adds what the tasks of a job measured. If the job worked only on some of its keys,
// as a rerun does, the others of each shard count with what they cost before. A job whose
// models took no time, because it had no rows, teaches nothing.
func (m Measured) Learn(job fleetscore.JobID, w Workload, some bool, found []Cost) Measured {
	if m.Job == job { // it was counted before a crash
		return m
	}
	if !slices.ContainsFunc(found, func(c Cost) bool { return c.Load+c.Score > 0 }) {
		return m
	}
	if m.Of != w.Of {
		m = Measured{Of: w.Of}
	}
	old := [fleetscore.Shards]Cost{}
	if some {
		old = m.average(w)
	}
	var now [fleetscore.Shards]Cost
	for _, c := range found {
		to := &now[c.Shard]
		to.Keys += max(0, c.Keys)
		to.Load, to.Score = to.Load+min(max(0, c.Load), maxCost), to.Score+min(max(0, c.Score), maxCost)
	}
	have := m.Shards
	m.Job, m.Rows, m.Shards = job, w.Rows, nil
	for _, c := range have {
		if left := c.Keys - now[c.Shard].Keys; some && left > 0 {
			was, part := old[c.Shard], float64(left)/float64(c.Keys)
			to := &now[c.Shard]
			to.Keys = c.Keys
			to.Load, to.Score = to.Load+time.Duration(float64(was.Load)*part), to.Score+time.Duration(float64(was.Score)*part)
		}
	}
	for s, c := range now {
		if c.Shard = fleetscore.Shard(s); c.Keys > 0 {
			c.Load, c.Score = min(c.Load, maxCost), min(c.Score, maxCost)
			m.Shards = append(m.Shards, c)
		}
	}
	return m
}

// average is what keys of each shard cost in a job with so many rows. For a shard of which
// nothing is known, it is what the keys of all shards cost.
func (m Measured) average(w Workload) (out [fleetscore.Shards]Cost) {
	if m.Of != w.Of {
		return out
	}
	more := 1.0
	if m.Rows > 0 {
		more = float64(w.Rows) / float64(m.Rows)
	}
	all := Cost{}
	for _, c := range m.Shards {
		c.Score = time.Duration(min(float64(c.Score)*more, float64(maxCost)))
		out[c.Shard] = c
		all.Keys, all.Load, all.Score = all.Keys+c.Keys, all.Load+c.Load, all.Score+c.Score
	}
	for s := range out {
		if out[s].Keys == 0 {
			out[s] = all
		}
	}
	return out
}

// maxCost bounds what is believed of a shard's cost, so that sums don't overflow.
const maxCost = 24 * time.Hour

// costs is what each shard of a job will probably cost, if anything is known of that.
// Without rows, models aren't loaded.
func (m Measured) costs(w Workload) (out [fleetscore.Shards]int64, known bool) {
	for s, c := range m.average(w) {
		known = known || c.Keys > 0
		if c.Keys == 0 || w.Rows == 0 {
			continue
		}
		models := float64(c.Load+c.Score) / float64(c.Keys) * float64(w.Keys[s])
		reading := float64(w.Bytes[s]) / readBytes * float64(time.Second)
		out[s] = int64(min(models+reading, float64(maxCost)))
	}
	return out, known
}

// Plan cuts all shards into ranges, a task each, that cost about the same; slots is how
// many tasks may run at once. The ranges cover every shard, because rows may also come from
// unexpected keys.
//
// If the pipeline's jobs were measured, a task is to take about three seconds; if these
// would be fewer tasks than slots, they are smaller, down to a tenth of that. In the first
// job nobody knows whether models take microseconds or seconds: there are four tasks for each
// slot, of at least 64 keys each, with about the same number of bytes of rows and models. No
// task reads more than 64 MB, as far as shards allow that.
func Plan(w Workload, m Measured, slots int) []fleetscore.ShardRange {
	var keys, bytes int64
	for s := range w.Keys {
		keys += w.Keys[s]
		bytes += w.Bytes[s]
	}
	cost, known := m.costs(w)
	total := sum(cost)
	want := max(ceil(total, int64(TaskTime)), min(int64(slots), total/int64(ShortestTask)))
	if !known {
		want = min(ceil(keys, minKeys), int64(tasksPerSlot*max(1, slots)))
		if cost = w.Bytes; bytes == 0 {
			cost = w.Keys
		}
		total = sum(cost)
	}
	if w.Rows > 0 { // without rows, models aren't read either
		want = max(want, ceil(bytes, taskBytes))
	}
	want = min(max(1, want), fleetscore.Shards)
	return ranges(cost, total, want)
}

func ceil(n, unit int64) int64 { return (n + unit - 1) / unit }

func sum(of [fleetscore.Shards]int64) (total int64) {
	for _, n := range of {
		total += n
	}
	return total
}

// ranges cuts all shards into at most so many ranges of about the same cost.
func ranges(cost [fleetscore.Shards]int64, total, most int64) (out []fleetscore.ShardRange) {
	share := float64(total) / float64(most)
	early, late := share, share
	if most <= fleetscore.Shards/fileShards { // a range ends where files end, if that is near
		early, late = share*(1-1.0/slack), share*(1+1.0/slack)
	}
	first, seen, begin := 0, 0.0, 0.0 // begin is where the range would begin if shards were small
	for s := range fleetscore.Shards - 1 {
		seen += float64(cost[s])
		limit := late
		if (s+1)%fileShards == 0 {
			limit = early
		}
		if int64(len(out))+1 == most || seen < begin+limit || seen >= float64(total) {
			continue // the last range takes the rest, which isn't to be nothing
		}
		out = append(out, fleetscore.ShardRange{First: fleetscore.Shard(first), Last: fleetscore.Shard(s)})
		first, begin = s+1, max(begin+share, seen-share/2) // a shard of several shares leaves no tiny ranges behind it
	}
	return append(out, fleetscore.ShardRange{First: fleetscore.Shard(first), Last: fleetscore.Shards - 1})
}
