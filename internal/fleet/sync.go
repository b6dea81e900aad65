package fleet

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet/folders"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Options say how a pack is made.
type Options struct {
	Workers int // segments made at once; 0 means one per core
	// MaxModelBytes is the largest file that is read; 0 means the constant of that
	// name.
	MaxModelBytes int64
	Memory        *Memory          // shared with other syncs; nil means one of its own
	TempDir       string           // folder for records that memory has no room for; empty means the system's
	Now           func() time.Time // that new generations bear; nil means time.Now
	// Progress is told how many of the models have been looked at. It may be nil,
	// and is called from several goroutines.
	Progress func(done, total int64)
}

func (o Options) now() time.Time {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	return now()
}

// Change is what a sync found.
type Change struct {
	Difference // from the generation that was current before
	Generation *Generation
	New        bool  // whether the generation is another than before
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
	src = folders.Fold(src)
	folder, err := ScanSpec(ctx, src, spec)
	if err != nil {
		return nil, err
	}
	b := newBuilder(src, dst, opt, len(folder.members))
	b.originals = spec.Originals
	if spec.Originals {
		folder.remark()
	}
	if err := b.openOld(ctx); err != nil {
		return nil, err
	}
	g := &Generation{Fleet: spec.Fleet, Template: spec.Model.String(), Sensors: spec.Sensors, KeyNames: spec.KeyNames, Originals: spec.Originals,
		Ignored: append([]string{}, folder.Ignored[:min(len(folder.Ignored), 100)]...), Segments: []Segment{}}
	shared, err := b.sharedSegment(ctx, g, folder.members)
	if err != nil {
		return nil, err
	}
	marks, err := b.segments(ctx, g, folder.members)
	if err != nil {
		return nil, err
	}
	if err := b.judge(ctx, g); err != nil {
		return nil, err
	}
	return b.commit(ctx, g, append(marks, shared...))
}

// remark changes the marks of all files, so that they are read again when a fleet begins
// or ceases to keep them.
func (f *Folder) remark() {
	for i := range f.members {
		if m := &f.members[i]; m.mark > noMark {
			m.mark = max(m.mark^originalsMark, noMark+1)
		}
	}
}

const originalsMark = 0x9e3779b97f4a7c15

// builder makes a generation.
type builder struct {
	src, dst  store.Bucket
	opt       Options
	originals bool                          // files are kept of native models too
	old       *Pack                         // the current generation's index; nil if there is none
	marks     []uint64                      // of old's members, by number, then of its shared models; nil if unknown
	there     map[fleetscore.BlobName]int64 // sizes of the segments that can be trusted
	shared    map[string]segmentRow         // the new shared models, by name

	total                               int64
	done, read, written, changed, added atomic.Int64
}

func newBuilder(src, dst store.Bucket, opt Options, members int) *builder {
	opt.MaxModelBytes = cmp.Or(opt.MaxModelBytes, MaxModelBytes)
	if opt.Memory == nil {
		opt.Memory = NewMemory()
	}
	return &builder{src: src, dst: dst, opt: opt, total: int64(members)}
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
	for _, s := range g.files() {
		if name := segmentName(s.Digest); b.there[name] != s.SizeBytes {
			return corrupt(string(name), "it is gone or cut")
		}
	}
	return nil
}

const (
	segmentMembers = 4096     // about so many keys
	segmentSize    = 32 << 20 // or so many bytes of models lie in a segment
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
		bytes += m.weight()
	}
	was := 0
	if b.old != nil && len(b.old.gen.Segments) > 0 {
		r := b.old.gen.Segments[0].Shards
		was = fleetscore.Shards / (int(r.Last-r.First) + 1)
	}
	ranges := fleetscore.SplitShards(segmentCount(int64(len(members)), bytes, was))
	results := make([]*made, len(ranges))
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
			bytes += members[n].weight()
			n++
		}
		mine := members[:n:n]
		members = members[n:]
		if len(mine) == 0 {
			continue
		}
		weight := min(bytes, heldAtOnce)
		if b.opt.Memory.held.Acquire(working, weight) != nil {
			break // the group or ctx knows why
		}
		group.Go(func() (err error) {
			defer b.opt.Memory.held.Release(weight)
			results[i], err = b.segment(working, r, mine, false)
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

// weight is how many bytes a member adds to its segment.
func (m *Member) weight() int64 {
	if m.shared {
		return 0
	}
	return m.SizeBytes
}

// sharedSegment makes the segment of the models that many have, keyed by their
// names, and gives their marks.
func (b *builder) sharedSegment(ctx context.Context, g *Generation, members []Member) ([]uint64, error) {
	b.shared = map[string]segmentRow{}
	var models []Member
	for _, m := range members {
		if _, twice := b.shared[m.Name]; m.shared && !twice {
			b.shared[m.Name] = segmentRow{}
			models = append(models, Member{Key: fleetscore.Key(m.Name), Name: m.Name, SizeBytes: m.SizeBytes, mark: m.mark})
		}
	}
	if len(models) == 0 {
		return nil, nil
	}
	slices.SortFunc(models, compareMembers)
	m, err := b.segment(ctx, fleetscore.AllShards, models, true)
	if err != nil {
		return nil, err
	}
	g.Shared = &m.Segment
	seg, _, err := openSegment(ctx, b.dst, m.Segment, false)
	if err != nil {
		return nil, err
	}
	for i := range seg.n {
		r := seg.row(i)
		b.shared[seg.name(i)] = segmentRow{name: seg.name(i), digest: r.digest(), size: int64(r.size()), flags: r.flags() | Shared, detail: seg.detail(i)}
	}
	return m.marks, nil
}

// was is what the old pack knows of a member.
type was struct {
	*segment
	row  int
	mark uint64
}

// oldMember finds a member in the old pack.
func (b *builder) oldMember(m Member) (was, bool) {
	if b.old == nil {
		return was{}, false
	}
	i, ok := b.old.Find(m.Key)
	if !ok {
		return was{}, false
	}
	s, r := b.old.row(i)
	return was{s, r, b.markAt(i)}, true
}

// oldShared finds a shared model in the old pack.
func (b *builder) oldShared(m Member) (was, bool) {
	if b.old == nil || b.old.shared == nil {
		return was{}, false
	}
	i, ok := b.old.shared.find(m.Key, m.Key.Hash())
	if !ok {
		return was{}, false
	}
	return was{b.old.shared, i, b.markAt(b.old.n + i)}, true
}

func (b *builder) markAt(i int) uint64 {
	if i >= len(b.marks) {
		return 0
	}
	return b.marks[i]
}

// segment makes the segment of the members, or finds that the old one still
// holds.
func (b *builder) segment(ctx context.Context, r fleetscore.ShardRange, members []Member, shared bool) (*made, error) {
	find := b.oldMember
	if shared {
		find = b.oldShared
	}
	m := &made{shardKeys: map[fleetscore.Shard]int64{}}
	before := make([]was, len(members)) // of those that are kept
	var changed []int
	var whole *segment // the old segment that holds all of them
	for i, mem := range members {
		w, ok := find(mem)
		if !ok || w.mark == 0 || w.mark != mem.mark || w.name(w.row) != mem.Name || (w.segment.row(w.row).flags()&Shared != 0) != mem.shared {
			changed = append(changed, i)
			continue
		}
		before[i] = w
		if i == 0 {
			whole = w.segment
		}
		if whole != w.segment {
			whole = nil
		}
	}
	b.progress(int64(len(members) - len(changed)))
	if len(changed) == 0 && whole != nil && whole.shards == r && whole.n == len(members) {
		m.Segment = whole.meta
		for _, mem := range members {
			m.add(mem)
		}
		return m, nil
	}
	rows := make([]segmentRow, len(members))
	opened, err := b.keep(ctx, rows, members, before)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	spilled := &spill{dir: b.opt.TempDir}
	defer spilled.Close() // what is in it was written to the store
	gone, err := b.readAll(ctx, rows, members, changed, spilled)
	if err != nil {
		return nil, err
	}
	if !shared {
		for _, i := range changed {
			b.compare(&rows[i], members[i])
		}
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

func (b *builder) progress(n int64) {
	done := b.done.Add(n)
	if b.opt.Progress != nil && n > 0 {
		b.opt.Progress(done, b.total)
	}
}

// commit makes the generation the current one.
func (b *builder) commit(ctx context.Context, g *Generation, marks []uint64) (*Change, error) {
	c := &Change{Generation: g, New: true, Read: b.read.Load(), Segments: int(b.written.Load())}
	c.Added, c.Changed = b.added.Load(), b.changed.Load()
	if b.old != nil {
		c.Difference.Generation = b.old.gen.ID
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
		g.Since, g.Created = c.Difference, b.opt.now().UTC()
	}
	// Written again if it is there, for Prune: it is needed from now on.
	if err := writeJSON(ctx, b.dst, generationName(g.ID), c.Generation); err != nil {
		return nil, err
	}
	if err := writeMarks(ctx, b.dst, g.ID, marks); err != nil {
		return nil, err
	}
	return c, writeJSON(ctx, b.dst, currentName, pointer{segmentVersion, g.ID})
}
