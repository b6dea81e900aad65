package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/sklearn"
)

// Pack is the models of a shard range of one generation. Its members stand in
// order of shard, then key, and have the numbers 0 to Len()−1.
//
// What Model, ModelAt and All give out may lie in memory that Close gives back;
// keys and names may be kept.
type Pack struct {
	gen      *Generation
	b        store.Bucket
	segments []part
	byShard  [fleetscore.Shards]int16 // the part of a shard; -1 for none
	shared   *segment
	mapped   [][]byte
	n        int
	close    sync.Once
}

// part is what a pack holds of a segment: rows first to first+n, which have the
// pack's numbers from at on.
type part struct {
	*segment
	first, n, at int
}

// maxHeldBytes is how many bytes of models a pack reads ahead where they don't
// lie in files of this machine; what is more is read model by model.
const maxHeldBytes = 2 << 30

// openers is how many segments are opened at once: it hides a cloud's latency.
const openers = 16

// OpenPack opens the models of the shards in a generation of a fleet of the
// store.
func OpenPack(ctx context.Context, b store.Bucket, fleetName string, id fleetscore.GenerationID, shards fleetscore.ShardRange) (*Pack, error) {
	b = PackFolder(b, fleetName)
	g, err := loadGeneration(ctx, b, id)
	if err != nil {
		return nil, err
	}
	return openPack(ctx, b, g, shards, maxHeldBytes)
}

// ExpectedKeys are the members of the shards in a generation of a fleet of the
// store, in their order.
func ExpectedKeys(ctx context.Context, b store.Bucket, fleetName string, id fleetscore.GenerationID, shards fleetscore.ShardRange) ([]fleetscore.Key, error) {
	b = PackFolder(b, fleetName)
	g, err := loadGeneration(ctx, b, id)
	if err != nil {
		return nil, err
	}
	p, err := openPack(ctx, b, g, shards, 0)
	if err != nil {
		return nil, err
	}
	return p.Keys(), p.Close()
}

// openPack reads at most held bytes of bodies into memory.
func openPack(ctx context.Context, b store.Bucket, g *Generation, shards fleetscore.ShardRange, held int64) (*Pack, error) {
	p := &Pack{gen: g, b: b}
	for i := range p.byShard {
		p.byShard[i] = -1
	}
	wanted := make([]*segment, len(g.Segments))
	opened := make([][]byte, len(g.Segments)+1)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(openers)
	open := func(s Segment, to **segment, mapped *[]byte) {
		keep := s.SizeBytes <= held
		if keep {
			held -= s.SizeBytes
		}
		group.Go(func() (err error) {
			*to, *mapped, err = openSegment(ctx, b, s, keep)
			return err
		})
	}
	for i, s := range g.Segments {
		if s.Shards.Overlaps(shards) {
			open(s, &wanted[i], &opened[i])
		}
	}
	if g.Shared != nil {
		open(*g.Shared, &p.shared, &opened[len(g.Segments)])
	}
	err := group.Wait()
	for _, m := range opened {
		if m != nil {
			p.mapped = append(p.mapped, m)
		}
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	for _, s := range wanted {
		if s != nil {
			p.add(s, shards)
		}
	}
	return p, nil
}

// add puts a segment's rows of the shards behind those that are there.
func (p *Pack) add(s *segment, shards fleetscore.ShardRange) {
	first, last := 0, s.n
	if s.shards.First < shards.First {
		first = s.lowerBound(int(shards.First))
	}
	if s.shards.Last > shards.Last {
		last = s.lowerBound(int(shards.Last) + 1)
	}
	for shard := max(s.shards.First, shards.First); ; shard++ {
		p.byShard[shard] = int16(len(p.segments))
		if shard == min(s.shards.Last, shards.Last) {
			break
		}
	}
	p.segments = append(p.segments, part{s, first, last - first, p.n})
	p.n += last - first
}

// lowerBound is the first row of the shard or of a later one.
func (s *segment) lowerBound(shard int) int {
	lo, hi := 0, s.n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if int(s.key(mid).Shard()) < shard {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// openSegment reads a segment's index, and maps or reads its bodies if they are
// to be held.
func openSegment(ctx context.Context, b store.Bucket, s Segment, hold bool) (*segment, []byte, error) {
	name := segmentName(s.Digest)
	length := int64(-1)
	if !hold {
		length = s.IndexBytes
	}
	in, err := b.Get(ctx, name, 0, length)
	if err != nil {
		return nil, nil, err
	}
	defer in.Close()
	index := make([]byte, s.IndexBytes)
	if _, err := io.ReadFull(in, index); err != nil {
		return nil, nil, short(name, err)
	}
	seg, err := parseSegment(string(name), index)
	if err == nil && seg.size != s.SizeBytes {
		err = corrupt(string(name), "it has %d bytes, the generation says %d", seg.size, s.SizeBytes)
	}
	if err != nil {
		return nil, nil, err
	}
	seg.meta = s
	if !hold {
		return seg, nil, nil
	}
	if st, ok := in.(statter); ok {
		if i, err := st.Stat(); err != nil || i.Size() != seg.size {
			return nil, nil, short(name, io.ErrUnexpectedEOF)
		}
	}
	if mapped, ok := mapFile(in, seg.size); ok {
		seg.bodies = mapped[len(index):]
		return seg, mapped, nil
	}
	seg.bodies = make([]byte, seg.size-int64(len(index)))
	if _, err := io.ReadFull(in, seg.bodies); err != nil {
		return nil, nil, short(name, err)
	}
	return seg, nil, nil
}

// statter is a blob that is a file of this machine.
type statter interface{ Stat() (fs.FileInfo, error) }

func short(name fleetscore.BlobName, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return corrupt(string(name), "it is shorter than the generation says")
	}
	return fleetscore.Wrap("read pack", string(name), err)
}

// Close gives memory back; models that were given out must not be used after.
func (p *Pack) Close() (err error) {
	p.close.Do(func() {
		for _, m := range p.mapped {
			err = errors.Join(err, unmap(m))
		}
	})
	return err
}

// Generation is what the pack was opened from.
func (p *Pack) Generation() *Generation { return p.gen }

// Len is the number of members: the expected keys of the shards.
func (p *Pack) Len() int { return p.n }

// Keys are the members' keys in their order. It makes a new slice, not new keys.
func (p *Pack) Keys() []fleetscore.Key {
	out := make([]fleetscore.Key, 0, p.n)
	for _, s := range p.segments {
		for i := range s.n {
			out = append(out, s.key(s.first+i))
		}
	}
	return out
}

// Find is the number of a member; false if the key is not expected.
func (p *Pack) Find(k fleetscore.Key) (int, bool) {
	hash := k.Hash()
	at := p.byShard[hash>>56]
	if at < 0 {
		return 0, false
	}
	s := &p.segments[at]
	i, ok := s.find(k, hash)
	if i -= s.first; !ok || i < 0 || i >= s.n {
		return 0, false
	}
	return s.at + i, true
}

// at finds the segment and row of a member.
func (p *Pack) row(i int) (*segment, int) {
	n, found := slices.BinarySearchFunc(p.segments, i, func(s part, i int) int { return s.at - i })
	if !found {
		n--
	}
	for p.segments[n].n == 0 { // several parts begin at i; all but one are empty
		n++
	}
	s := &p.segments[n]
	return s.segment, s.first + i - s.at
}

// Key is a member's key.
func (p *Pack) Key(i int) fleetscore.Key {
	s, r := p.row(i)
	return s.key(r)
}

// Model gives a key's model: a native record, at an address that is a multiple
// of 8, and the digest of the file it was made from. It must not be changed, and
// not be used after Close. Kind NotFound if the key is not expected or has no
// model, Invalid if the model can't be scored natively; the digest is known then
// too.
//
// It allocates nothing where the pack lies in files of this machine or was small
// enough to be read whole.
func (p *Pack) Model(ctx context.Context, k fleetscore.Key) ([]byte, fleetscore.Digest, error) {
	hash := k.Hash()
	if at := p.byShard[hash>>56]; at >= 0 {
		s := p.segments[at].segment
		if i, ok := s.find(k, hash); ok {
			return p.model(ctx, s, i)
		}
	}
	return nil, fleetscore.Digest{}, noModel(k)
}

// ModelAt is Model for a member's number.
func (p *Pack) ModelAt(ctx context.Context, i int) ([]byte, fleetscore.Digest, error) {
	s, r := p.row(i)
	return p.model(ctx, s, r)
}

func (p *Pack) model(ctx context.Context, s *segment, i int) ([]byte, fleetscore.Digest, error) {
	r := s.row(i)
	flags := r.flags()
	if flags&Native == 0 {
		return nil, r.digest(), refusal(s, i)
	}
	s, i, err := p.place(s, i)
	if err != nil {
		return nil, r.digest(), err
	}
	b := s.body(i)
	if b == nil {
		b, err = p.read(ctx, s, i)
	}
	return s.record(i, b), r.digest(), err
}

// refusal says why a member has no native model.
func refusal(s *segment, i int) error {
	if s.row(i).flags()&NoModel != 0 {
		return noModel(s.key(i))
	}
	why, _, _ := strings.Cut(s.detail(i), detailSeparator)
	if s.row(i).flags()&HoldsCode != 0 {
		return fleetscore.Errorf(fleetscore.Invalid, "read model", s.name(i), "%w", holdsCode(why))
	}
	return fleetscore.Errorf(fleetscore.Invalid, "read model", s.name(i), "%s", why)
}

// holdsCode is why a file was refused that would run code. errors.As finds the refusal in
// it that package sklearn gave when the file was read.
type holdsCode string

func (h holdsCode) Error() string { return string(h) }

// As serves errors.As.
func (h holdsCode) As(target any) bool {
	r, ok := target.(**sklearn.Refusal)
	if ok {
		*r = &sklearn.Refusal{Reason: sklearn.HoldsCode}
	}
	return ok
}

// place is where the body of a row lies: in its segment or in the shared one.
func (p *Pack) place(s *segment, i int) (*segment, int, error) {
	r := s.row(i)
	if r.flags()&Shared == 0 {
		return s, i, nil
	}
	if p.shared != nil {
		name := fleetscore.Key(s.name(i))
		if j, ok := p.shared.find(name, name.Hash()); ok && p.shared.row(j).digest() == r.digest() {
			return p.shared, j, nil
		}
	}
	return nil, 0, corrupt(s.file, "model %s is not in the shared segment", s.name(i))
}

// read reads a body that isn't in memory.
func (p *Pack) read(ctx context.Context, s *segment, i int) ([]byte, error) {
	r := s.row(i)
	in, err := p.b.Get(ctx, fleetscore.BlobName(s.file), int64(r.offset()), int64(r.bytes()))
	if err != nil {
		return nil, err
	}
	defer in.Close()
	data := make([]byte, r.bytes())
	if _, err := io.ReadFull(in, data); err != nil {
		return nil, short(fleetscore.BlobName(s.file), err)
	}
	return data, nil
}

// Original gives the file of a member as it was uploaded, and its name. Packs hold it of
// models that can't be scored natively, and of all where Spec.Originals asked for that; kind
// Invalid, with the reason, if the pack doesn't hold it. Model's rules hold.
func (p *Pack) Original(ctx context.Context, k fleetscore.Key) ([]byte, string, fleetscore.Digest, error) {
	i, ok := p.Find(k)
	if !ok {
		return nil, "", fleetscore.Digest{}, noModel(k)
	}
	s, i := p.row(i)
	digest, name := s.row(i).digest(), s.name(i)
	switch flags := s.row(i).flags(); {
	case flags&Original != 0:
	case flags&Native != 0:
		return nil, name, digest, fleetscore.Errorf(fleetscore.Invalid, "read model", name, "the pack holds its native record alone").
			WithHint("pack the fleet again with the files as they are; a server does so by itself for pipelines with runtime python")
	default:
		return nil, name, digest, refusal(s, i)
	}
	s, i, err := p.place(s, i)
	if err != nil {
		return nil, name, digest, err
	}
	data := s.body(i)
	if data == nil {
		if data, err = p.read(ctx, s, i); err != nil {
			return nil, name, digest, err
		}
	}
	data = data[len(s.record(i, data)):]
	if size := s.row(i).size(); uint64(len(data)) >= size {
		data = data[:size]
	}
	if fleetscore.DigestOf(data) != digest {
		return nil, name, digest, corrupt(s.file, "the bytes of %s don't match their digest", name)
	}
	return data, name, digest, nil
}

// record is the part of a row's body that is a native record: all of it, or what stands
// before the file.
func (s *segment) record(i int, body []byte) []byte {
	r := s.row(i)
	switch flags := r.flags(); {
	case flags&Native == 0:
		return nil
	case flags&Original == 0:
		return body
	}
	n := len(body) - int((r.size()+7)&^7)
	return body[:max(0, n):max(0, n)]
}

// Entry is a member as a pack knows it.
type Entry struct {
	Key       fleetscore.Key
	Name      string            // the model's file; empty if there is none
	Digest    fleetscore.Digest // of that file
	SizeBytes int64             // of that file
	Flags     Flags
	Detail    string // of a native model its estimators, releases and features, else why it isn't native
	Made      string // the releases that the file of a model names that isn't native
	Record    []byte // the native record, as Model gives it; nil if there is none in memory
}

// with reads what compile wrote of a model.
func (e Entry) with(detail string) Entry {
	if e.Detail = detail; e.Flags&Native == 0 {
		e.Detail, e.Made, _ = strings.Cut(detail, detailSeparator)
	}
	return e
}

// All yields the members in their order, by number.
func (p *Pack) All() iter.Seq2[int, Entry] {
	return func(yield func(int, Entry) bool) {
		for _, s := range p.segments {
			for i := range s.n {
				if !yield(s.at+i, p.entry(s.segment, s.first+i)) {
					return
				}
			}
		}
	}
}

// At is a member by its number.
func (p *Pack) At(i int) Entry { return p.entry(p.row(i)) }

func (p *Pack) entry(s *segment, i int) Entry {
	r := s.row(i)
	e := Entry{Key: s.key(i), Name: s.name(i), Digest: r.digest(), SizeBytes: int64(r.size()), Flags: r.flags()}.with(s.detail(i))
	if e.Flags&Native != 0 {
		if in, j, err := p.place(s, i); err == nil {
			e.Record = in.record(j, in.body(j))
		}
	}
	return e
}

// Source is the models of a fleet, wherever they lie: *Folder or *Pack. It is
// safe for concurrent use.
type Source interface {
	// Len is the number of expected keys.
	Len() int
	// Keys are the expected keys, by shard and key.
	Keys() []fleetscore.Key
	// Model gives a key's model: a file as it is or a native record, and the
	// file's digest. Kind NotFound if the key has none. The bytes must not be
	// changed, nor be used after Close.
	Model(ctx context.Context, k fleetscore.Key) ([]byte, fleetscore.Digest, error)
	// Close gives memory back.
	Close() error
}

// Open opens the models in a folder: a pack, if Sync made one there, else files
// as the spec says. A pack must have the spec's key columns.
func Open(ctx context.Context, b store.Bucket, spec Spec) (Source, error) {
	g, err := PackIn(ctx, b)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return ScanSpec(ctx, b, spec)
	}
	if want := spec.KeyNames; !slices.Equal(g.KeyNames, want) {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "open pack", g.Fleet, "its key columns are %s, not %s", strings.Join(g.KeyNames, ", "), strings.Join(want, ", ")).
			WithHint("name the columns in the pack's order, or pack the models again")
	}
	return openPack(ctx, b, g, fleetscore.AllShards, maxHeldBytes)
}

// PackIn is the current generation of the pack in a folder, nil if it holds none.
func PackIn(ctx context.Context, b store.Bucket) (*Generation, error) {
	data, err := store.ReadAll(ctx, b, currentName)
	if fleetscore.NotFound.Is(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var p pointer
	if json.Unmarshal(data, &p) != nil || p.Pack == 0 {
		return nil, nil // somebody's file
	}
	return current(ctx, b)
}
