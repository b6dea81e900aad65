package fleet

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Spec says what a fleet is.
type Spec struct {
	Fleet string // its name
	Model Template
}

// Options say how a pack is made.
type Options struct {
	Workers int // segments made at once; 0 means one per core
	// Progress is told how many of the models have been looked at. It may be nil,
	// and is called from several goroutines.
	Progress func(done, total int64)
}

// Change is what a sync found.
type Change struct {
	Generation *Generation
	New        bool  // whether the generation is another than before
	Added      int64 // keys
	Changed    int64 // keys whose model's file has another content
	Removed    int64 // keys
	Read       int64 // files that were read
	Segments   int   // segments that were written
}

// Sync brings the pack in dst up to date with the models in src. The folder is
// listed; only files whose size or modification changed are read, and only
// segments whose members changed are written anew. What a crash leaves behind is
// not visible: segments are written first, then the generation that lists them,
// then the pointer to it. One Sync of a dst may run at a time.
//
// A model that can't be used costs its own sensor: the pack says why.
func Sync(ctx context.Context, src, dst store.Bucket, spec Spec, opt Options) (*Change, error) {
	folder, err := Scan(ctx, src, spec.Model)
	if err != nil {
		return nil, err
	}
	b := &builder{src: src, dst: dst, opt: opt, total: int64(len(folder.members))}
	if err := b.openOld(ctx); err != nil {
		return nil, err
	}
	g := &Generation{Fleet: spec.Fleet, Template: spec.Model.String(), KeyNames: spec.Model.KeyNames(),
		Ignored: append([]string{}, folder.Ignored[:min(len(folder.Ignored), 100)]...), Segments: []Segment{}}
	marks, err := b.segments(ctx, g, folder.members)
	if err != nil {
		return nil, err
	}
	if err := g.identify(); err != nil {
		return nil, err
	}
	return b.commit(ctx, g, marks)
}

// builder makes a generation.
type builder struct {
	src, dst store.Bucket
	opt      Options
	old      *Pack                         // the current generation's index; nil if there is none
	marks    []uint64                      // of old's members, by number; nil if unknown
	there    map[fleetscore.BlobName]int64 // sizes of the segments that can be trusted

	total                               int64
	done, read, written, changed, added atomic.Int64
}

// openOld opens what is there. A damaged pack is none: it is made anew.
func (b *builder) openOld(ctx context.Context) error {
	b.there = map[fleetscore.BlobName]int64{}
	for i, err := range b.dst.List(ctx, segmentArea, store.ListOptions{}) {
		if err != nil {
			return err
		}
		b.there[i.Name] = i.SizeBytes
	}
	g, err := current(ctx, b.dst)
	if err == nil {
		err = b.complete(g)
	}
	if err == nil {
		b.old, err = openPack(ctx, b.dst, g, fleetscore.AllShards, 0)
	}
	if fleetscore.NotFound.Is(err) || fleetscore.Corrupt.Is(err) {
		b.old = nil
		if fleetscore.Corrupt.Is(err) {
			clear(b.there)
		}
		return nil
	}
	if err != nil {
		return err
	}
	b.marks = readMarks(ctx, b.dst, b.old)
	return nil
}

// complete reports a generation's segment that is gone or cut.
func (b *builder) complete(g *Generation) error {
	all := g.Segments
	if g.Shared != nil {
		all = append(slices.Clone(all), *g.Shared)
	}
	for _, s := range all {
		if name := segmentName(s.Digest); b.there[name] != s.SizeBytes {
			return corrupt(string(name), "it is gone or cut")
		}
	}
	return nil
}

const (
	segmentMembers = 4096     // about so many keys
	segmentSize    = 32 << 20 // or so many bytes of models lie in a segment
	heldAtOnce     = 1 << 30  // bytes of models that segments in the making hold together, if none is larger
)

// segmentCount is a power of two: more segments mean less to write anew after a
// change, fewer mean less to open. It stays as it was until it is off by 4.
func segmentCount(members, bytes int64, was int) int {
	want := max(members/segmentMembers, bytes/segmentSize)
	n := 1
	for n < fleetscore.Shards && int64(n) < want {
		n *= 2
	}
	if was > 0 && was <= 4*n && n <= 4*was {
		return was
	}
	return n
}

// segments makes the generation's segments, the changed ones anew, and gives the
// members' marks in their order.
func (b *builder) segments(ctx context.Context, g *Generation, members []Member) ([]uint64, error) {
	var bytes int64
	for _, m := range members {
		bytes += m.SizeBytes
	}
	was := 0
	if b.old != nil && len(b.old.gen.Segments) > 0 {
		r := b.old.gen.Segments[0].Shards
		was = fleetscore.Shards / (int(r.Last-r.First) + 1)
	}
	ranges := fleetscore.SplitShards(segmentCount(int64(len(members)), bytes, was))
	results := make([]*made, len(ranges))
	memory := semaphore.NewWeighted(heldAtOnce)
	group, working := errgroup.WithContext(ctx)
	workers := b.opt.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	group.SetLimit(workers)
	for i, r := range ranges {
		n := 0
		var bytes int64
		for n < len(members) && r.Contains(members[n].Key.Shard()) {
			bytes += members[n].SizeBytes
			n++
		}
		mine := members[:n:n]
		members = members[n:]
		if len(mine) == 0 {
			continue
		}
		weight := min(bytes, heldAtOnce)
		if memory.Acquire(working, weight) != nil {
			break // the group or ctx knows why
		}
		group.Go(func() (err error) {
			defer memory.Release(weight)
			results[i], err = b.segment(working, r, mine)
			return err
		})
	}
	if err := cmp.Or(group.Wait(), ctx.Err()); err != nil {
		return nil, err
	}
	var marks []uint64
	for _, m := range results {
		if m == nil || m.Keys == 0 {
			continue
		}
		g.Segments = append(g.Segments, m.Segment)
		g.Members += m.Keys
		marks = append(marks, m.marks...)
		for shard, n := range m.shardKeys {
			g.ShardKeys[shard] += n
		}
	}
	return marks, nil
}

// made is a segment of the new generation.
type made struct {
	Segment
	marks     []uint64
	shardKeys map[fleetscore.Shard]int64
}

// segment makes the segment of the members, or finds that the old one still
// holds.
func (b *builder) segment(ctx context.Context, r fleetscore.ShardRange, members []Member) (*made, error) {
	m := &made{shardKeys: map[fleetscore.Shard]int64{}}
	rows := make([]segmentRow, len(members))
	kept := make([]int, len(members)) // the old number; -1 for what must be read
	var changed []int
	for i, mem := range members {
		if kept[i] = b.unchanged(mem); kept[i] < 0 {
			changed = append(changed, i)
		}
	}
	b.progress(int64(len(members) - len(changed)))
	if len(changed) == 0 && b.old != nil {
		at := slices.IndexFunc(b.old.gen.Segments, func(s Segment) bool { return s.Shards == r })
		if at >= 0 && b.old.gen.Segments[at].Keys == int64(len(members)) {
			m.Segment = b.old.gen.Segments[at]
			for _, mem := range members {
				m.add(mem)
			}
			return m, nil
		}
	}
	opened, err := b.keep(ctx, rows, members, kept)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	gone, err := b.readAll(ctx, rows, members, changed)
	if err != nil {
		return nil, err
	}
	if len(gone) > 0 {
		members, rows = drop(members, gone), drop(rows, gone)
	}
	for i, mem := range members {
		if rows[i].flags&Unreadable != 0 {
			mem.mark = 0 // look again next time
		}
		m.add(mem)
	}
	m.Segment, err = b.write(ctx, r, rows)
	return m, err
}

func (m *made) add(mem Member) {
	m.marks = append(m.marks, mem.mark)
	m.shardKeys[mem.Key.Shard()]++
}

// drop removes the elements at the places, which are in order.
func drop[T any](s []T, places []int) []T {
	out := s[:0:0]
	for i, v := range s {
		if len(places) > 0 && places[0] == i {
			places = places[1:]
			continue
		}
		out = append(out, v)
	}
	return out
}

// unchanged is the old number of a member whose file is as it was, or -1.
func (b *builder) unchanged(m Member) int {
	if b.marks == nil {
		return -1
	}
	i, ok := b.old.Find(m.Key)
	if !ok || b.marks[i] != m.mark || m.mark == 0 {
		return -1
	}
	s, r := b.old.row(i)
	if s.name(r) != m.Name {
		return -1
	}
	return i
}

func (b *builder) progress(n int64) {
	done := b.done.Add(n)
	if b.opt.Progress != nil && n > 0 {
		b.opt.Progress(done, b.total)
	}
}

// commit makes the generation the current one.
func (b *builder) commit(ctx context.Context, g *Generation, marks []uint64) (*Change, error) {
	c := &Change{Generation: g, New: true, Read: b.read.Load(), Segments: int(b.written.Load()), Added: b.added.Load(), Changed: b.changed.Load()}
	if b.old != nil {
		c.Removed = int64(b.old.Len()) + c.Added - g.Members
		c.New = b.old.gen.ID != g.ID
	}
	if !c.New {
		c.Generation = b.old.gen
		if slices.Equal(marks, b.marks) {
			return c, nil
		}
		return c, writeMarks(ctx, b.dst, g.ID, marks)
	}
	if was, err := loadGeneration(ctx, b.dst, g.ID); err == nil {
		c.Generation = was // it is as it was before
	} else {
		g.Created = time.Now().UTC()
		if err := writeJSON(ctx, b.dst, generationName(g.ID), g); err != nil {
			return nil, err
		}
	}
	if err := writeMarks(ctx, b.dst, g.ID, marks); err != nil {
		return nil, err
	}
	return c, writeJSON(ctx, b.dst, currentName, pointer{segmentVersion, g.ID})
}
