package fleet

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/testkit"
	"github.com/fleetscore/fleetscore/sklearn"
)

// variants makes files of models that differ in one number of the same trained
// model.
func variants(t testing.TB) func(i int) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testkit.Root(t), "sklearn", "testdata", "1.9.1", "one.p5.pickle"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := sklearn.Load(data)
	if err != nil {
		t.Fatal(err)
	}
	record, err := m.AppendRecord(nil)
	if err != nil {
		t.Fatal(err)
	}
	for at := len(record) - 8; at >= 24; at -= 8 {
		number := record[at : at+8]
		if v := math.Float64frombits(binary.LittleEndian.Uint64(number)); bytes.Count(data, number) != 1 || math.Abs(v) < 1e-3 || math.Abs(v) > 1e3 {
			continue
		}
		hole := bytes.Index(data, number)
		return func(i int) []byte {
			out := bytes.Clone(data)
			binary.LittleEndian.PutUint64(out[hole:], binary.LittleEndian.Uint64(number)+uint64(i))
			return out
		}
	}
	t.Fatal("no number of the record stands in the file")
	return nil
}

var tmpl, _ = ParseTemplate("model_{Device}_{Tag}", keyNames)

var spec = Spec{Fleet: "f", KeyNames: keyNames, Model: tmpl}

func dir(t testing.TB) *store.Dir {
	t.Helper()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// models is a folder of n models, model_0_0 to model_0_6, model_1_0, ….
func models(t testing.TB, n int) store.Bucket {
	t.Helper()
	b, vary := dir(t), variants(t)
	for i := range n {
		put(t, b, fmt.Sprintf("model_%d_%d", i/7, i%7), vary(i))
	}
	return b
}

func put(t testing.TB, b store.Bucket, name string, data []byte) {
	t.Helper()
	if err := store.WriteAll(context.Background(), b, fleetscore.BlobName(name), data, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func syncTo(t testing.TB, src, dst store.Bucket) *Change {
	t.Helper()
	c, err := Sync(context.Background(), src, dst, spec, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, dst store.Bucket, g *Generation, shards fleetscore.ShardRange, held int64) *Pack {
	t.Helper()
	p, err := openPack(context.Background(), dst, g, shards, held)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// remote is a bucket whose blobs are no files of this machine.
type remote struct{ store.Bucket }

func (r remote) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	in, err := r.Bucket.Get(ctx, name, offset, length)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{in, in}, nil
}

// TestPackHoldsFolder: whatever ranges of shards a pack is opened for and however
// it is read, it holds the folder's keys with the records that their files give.
func TestPackHoldsFolder(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	const n = 300
	src, dst := models(t, n), dir(t)
	c := syncTo(t, src, dst)
	if c.Generation.Members != n || c.Read != n || c.Added != n || !c.New {
		t.Fatalf("got %+v", c)
	}
	vary := variants(t)
	for _, how := range []struct {
		name string
		b    store.Bucket
		held int64
	}{{"mapped", dst, maxHeldBytes}, {"read", remote{dst}, maxHeldBytes}, {"by range", remote{dst}, 0}} {
		for _, parts := range []int{1, 5, 256} {
			seen := 0
			for _, r := range fleetscore.SplitShards(parts) {
				p := open(t, how.b, c.Generation, r, how.held)
				keys := p.Keys()
				if len(keys) != p.Len() || !slices.IsSortedFunc(keys, func(a, b fleetscore.Key) int { return compareMembers(Member{Key: a}, Member{Key: b}) }) {
					t.Fatalf("%s: %d keys of %d, or not in order", how.name, len(keys), p.Len())
				}
				for i, k := range keys {
					data, digest, err := p.Model(ctx, k)
					var dev, tag int
					if _, e := fmt.Sscan(strings.ReplaceAll(k.String(), "/", " "), &dev, &tag); e != nil {
						t.Fatal(e)
					}
					file := vary(dev*7 + tag)
					m, _ := sklearn.Load(file)
					want, _ := m.AppendRecord(nil)
					if err != nil || digest != fleetscore.DigestOf(file) || !bytes.Equal(data, want) || !r.Contains(k.Shard()) {
						t.Fatalf("%s, %s: %d bytes, %v, %v", how.name, k, len(data), digest, err)
					}
					if uintptr(unsafe.Pointer(&data[0]))%8 != 0 {
						t.Fatalf("%s, %s: not aligned", how.name, k)
					}
					if j, ok := p.Find(k); !ok || j != i || p.Key(i) != k || p.At(i).Digest != digest || p.At(i).Name != fmt.Sprintf("model_%d_%d", dev, tag) {
						t.Fatalf("%s: member %d is %+v, found at %d, %v", how.name, i, p.At(i), j, ok)
					}
				}
				at := 0
				for i, e := range p.All() {
					if i != at || e.Key != keys[i] || e.Flags != Native || e.SizeBytes != int64(len(vary(0))) || !strings.HasPrefix(e.Detail, "StandardScaler → OneClassSVM"+detailSeparator+"1.9") {
						t.Fatalf("%s: %d is %+v", how.name, i, e)
					}
					at++
				}
				seen += at
				if _, _, err := p.Model(ctx, "9\x1fx"); !fleetscore.NotFound.Is(err) {
					t.Errorf("unknown key: got %v, want not found", err)
				}
			}
			if seen != n {
				t.Errorf("%s: %d ranges hold %d models, want %d", how.name, parts, seen, n)
			}
		}
	}
}

func TestModelAllocatesNothing(t *testing.T) {
	dst := dir(t)
	p := open(t, dst, syncTo(t, models(t, 50), dst).Generation, fleetscore.AllShards, maxHeldBytes)
	keys := p.Keys()
	var records sklearn.RecordReader
	i := 0
	if n := testing.AllocsPerRun(100, func() {
		i++
		data, _, err := p.Model(context.Background(), keys[i%len(keys)])
		if err == nil {
			_, err = records.Read(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestSyncReadsChanges: only files that changed are read, only segments that
// changed are written, and what a file says counts, not its time.
func TestSyncReadsChanges(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	src, dst := models(t, 100), dir(t)
	put(t, src, "README.md", []byte("hello"))
	if _, err := current(ctx, dst); !fleetscore.NotFound.Is(err) {
		t.Errorf("before: got %v, want not found", err)
	}
	first := syncTo(t, src, dst)
	if g := first.Generation; g.Members != 100 || !slices.Equal(g.Ignored, []string{"README.md"}) {
		t.Fatalf("first: %+v", g)
	}
	vary := variants(t)
	for _, step := range []struct {
		what                          string
		change                        func()
		isNew                         bool
		read, added, changed, removed int64
	}{
		{"nothing", func() {}, false, 0, 0, 0, 0},
		{"touched", func() { put(t, src, "model_3_3", vary(24)) }, false, 1, 0, 0, 0},
		{"nothing after that", func() {}, false, 0, 0, 0, 0},
		{"other content", func() { put(t, src, "model_0_0", vary(1000)) }, true, 1, 0, 1, 0},
		{"a new one", func() { put(t, src, "model_99_0", vary(1001)) }, true, 1, 1, 0, 0},
		{"one goes", func() { _ = src.Delete(ctx, "model_3_3") }, true, 0, 0, 0, 1},
		{"another name", func() { _ = src.Delete(ctx, "model_4_4"); put(t, src, "model_4_4.pkl", vary(32)) }, true, 1, 0, 0, 0},
		{"one that can't be scored", func() { put(t, src, "model_5_5", []byte("no model")) }, true, 1, 0, 1, 0},
		{"nothing at last", func() {}, false, 0, 0, 0, 0},
	} {
		before, _ := current(ctx, dst)
		step.change()
		c := syncTo(t, src, dst)
		if c.New != step.isNew || c.Read != step.read || c.Added != step.added || c.Changed != step.changed || c.Removed != step.removed || (before.ID != c.Generation.ID) != step.isNew {
			t.Errorf("%s: %+v", step.what, c)
		}
		if c.New && (c.Generation.Since != c.Difference || c.Difference.Generation != before.ID) {
			t.Errorf("%s: the generation says %+v, the sync %+v", step.what, c.Generation.Since, c.Difference)
		}
		if now, err := current(ctx, dst); err != nil || now.ID != c.Generation.ID {
			t.Errorf("%s: current is %v, %v", step.what, now, err)
		}
	}
	p := open(t, dst, first.Generation, fleetscore.AllShards, maxHeldBytes) // as it was
	if _, digest, err := p.Model(ctx, "0\x1f0"); err != nil || digest != fleetscore.DigestOf(vary(0)) || p.Len() != 100 {
		t.Errorf("the first generation changed: %v, %v, %d members", digest, err, p.Len())
	}
}

// TestSyncWritesChangedSegments: segments without a change are shared.
func TestSyncWritesChangedSegments(t *testing.T) {
	t.Parallel()
	const n = 3 * segmentMembers // several segments
	src, dst := dir(t), dir(t)
	vary := variants(t)
	for i := range n { // straight into the folder: a synced write each would take long
		if err := os.WriteFile(filepath.Join(strings.TrimPrefix(src.URL(), "file://"), fmt.Sprintf("model_%d_%d", i/7, i%7)), vary(i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	first := syncTo(t, src, dst)
	put(t, src, "model_0_0", vary(n))
	second := syncTo(t, src, dst)
	all := len(first.Generation.Segments)
	same := 0
	for i, s := range second.Generation.Segments {
		if s == first.Generation.Segments[i] {
			same++
		}
	}
	if all < 2 || first.Segments != all || second.Segments != 1 || same != all-1 || second.Read != 1 {
		t.Errorf("%d segments, %d written first and %d then, %d the same, %d files read", all, first.Segments, second.Segments, same, second.Read)
	}
}

// TestBadModels: a file that can't be used costs its own sensor, and the pack
// says why. It keeps the file, unless Python would run code to read it.
func TestBadModels(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	src, dst := models(t, 3), dir(t)
	put(t, src, "model_0_1", []byte("\x80\x04cos\nsystem\n."))
	other := "\x80\x04cxgboost.sklearn\nXGBClassifier\n)\x81}b."
	put(t, src, "model_0_2", []byte(other))
	p := open(t, dst, syncTo(t, src, dst).Generation, fleetscore.AllShards, maxHeldBytes)
	if _, _, err := p.Model(ctx, "0\x1f0"); err != nil {
		t.Error(err)
	}
	_, digest, err := p.Model(ctx, "0\x1f1")
	if !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), "model_0_1") || !strings.Contains(err.Error(), "os.system") {
		t.Errorf("got %v, want the class named", err)
	}
	if digest != fleetscore.DigestOf([]byte("\x80\x04cos\nsystem\n.")) {
		t.Error("the digest is not the file's")
	}
	if data, _, _, err := p.Original(ctx, "0\x1f1"); !fleetscore.NotFound.Is(err) && !fleetscore.Invalid.Is(err) || data != nil {
		t.Errorf("what would have run code is kept: %q, %v", data, err)
	}
	if refusal := (&sklearn.Refusal{}); !errors.As(err, &refusal) || refusal.Reason != sklearn.HoldsCode {
		t.Errorf("the error doesn't say that the file holds code: %v", err)
	}
	if data, _, _, err := p.Original(ctx, "0\x1f2"); err != nil || string(data) != other {
		t.Errorf("original: %q, %v", data, err)
	}
	if _, _, _, err := p.Original(ctx, "0\x1f0"); !fleetscore.Invalid.Is(err) {
		t.Errorf("original of a native model: %v", err)
	}
}

// TestSyncFaults lets each write fail in turn, before and after it was carried
// out: the old generation stays current and whole, and the next Sync succeeds.
func TestSyncFaults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	vary := variants(t)
	for _, when := range []string{"put", "put done"} {
		for nth := 1; ; nth++ {
			src, inner := models(t, 20), dir(t)
			first := syncTo(t, src, inner).Generation
			put(t, src, "model_9_9", vary(100))
			puts := 0
			faulty := &storetest.Faulty{Bucket: inner, Fail: func(op string, name fleetscore.BlobName) error {
				if op == when {
					if puts++; puts == nth {
						return fleetscore.Errorf(fleetscore.Unavailable, op, string(name), "injected")
					}
				}
				return nil
			}}
			if _, err := Sync(ctx, src, faulty, spec, Options{}); err == nil {
				if nth < 4 { // segment, generation, marks, pointer
					t.Fatalf("the fault of %s %d never struck", when, nth)
				}
				break
			}
			cur, err := current(ctx, inner)
			if err != nil || (cur.ID != first.ID) != (when == "put done" && nth == 4) {
				t.Fatalf("after fault %d of %s: current is %v, %v; first was %s", nth, when, cur, err, first.ID)
			}
			if p := open(t, inner, cur, fleetscore.AllShards, maxHeldBytes); p.Len() < 20 {
				t.Fatalf("after fault %d of %s: %d members", nth, when, p.Len())
			}
			if c := syncTo(t, src, inner); c.Generation.Members != 21 {
				t.Fatalf("after fault %d of %s: %+v", nth, when, c)
			}
		}
	}
}

// TestDamagedPack: a damaged pack is noticed, and made anew by the next Sync.
func TestDamagedPack(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	src, dst := models(t, 10), dir(t)
	g := syncTo(t, src, dst).Generation
	name := segmentName(g.Segments[0].Digest)
	whole, err := store.ReadAll(ctx, dst, name)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(whole); at += 97 {
		changed := bytes.Clone(whole)
		changed[at] ^= 0x55
		put(t, dst, string(name), changed)
		p, err := openPack(ctx, dst, g, fleetscore.AllShards, maxHeldBytes)
		if err == nil {
			for _, k := range p.Keys() { // damage of a body is the record's to notice
				data, _, e := p.Model(ctx, k)
				_, e2 := new(sklearn.RecordReader).Read(data)
				err = errors.Join(err, e, e2)
			}
			p.Close()
		}
		if at >= 8 && at < 12 || at >= 54 && at < 64 {
			continue // spare bytes
		}
		if !fleetscore.Corrupt.Is(err) && !strings.Contains(fmt.Sprint(err), "read record") {
			t.Fatalf("byte %d of %d changed: %v", at, len(whole), err)
		}
	}
	index := bytes.Clone(whole)
	index[70] ^= 1
	for _, damaged := range [][]byte{nil, whole[:10], whole[:63], whole[:64], whole[:1000], whole[:len(whole)-1], index} {
		put(t, dst, string(name), damaged)
		if _, err := openPack(ctx, dst, g, fleetscore.AllShards, maxHeldBytes); !fleetscore.Corrupt.Is(err) {
			t.Errorf("%d bytes: %v", len(damaged), err)
		}
		syncTo(t, src, dst)
		if p := open(t, dst, g, fleetscore.AllShards, maxHeldBytes); p.Len() != 10 {
			t.Errorf("%d members", p.Len())
		}
	}
}

// TestPrune: what is current, new or in use stays whole, the rest goes.
func TestPrune(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	src, dst, vary := models(t, 20), dir(t), variants(t)
	var gens []*Generation
	for i := range 8 {
		put(t, src, "model_0_0", vary(1000+i))
		gens = append(gens, syncTo(t, src, dst).Generation)
	}
	files := func() int {
		n := 0
		for _, area := range []string{generationArea, marksArea, segmentArea} {
			l, err := listArea(ctx, dst, area)
			if err != nil {
				t.Fatal(err)
			}
			n += len(l)
		}
		return n
	}
	inUse := func(id fleetscore.GenerationID) bool { return id == gens[1].ID }
	if n, err := Prune(ctx, dst, time.Now(), inUse); n != 0 || err != nil {
		t.Errorf("young ones: %d deleted, %v", n, err)
	}
	before, later := files(), time.Now().Add(2*time.Hour)
	if n, err := Prune(ctx, dst, later, inUse); n != 3*4 || err != nil || files() != before-n {
		t.Errorf("%d of %d deleted, %v", n, before, err)
	}
	for i, g := range gens {
		p, err := openPack(ctx, dst, g, fleetscore.AllShards, maxHeldBytes)
		if kept := i == 1 || i >= 5; kept != (err == nil) {
			t.Errorf("generation %d: %v", i, err)
		}
		if err == nil {
			p.Close()
		}
	}
	put(t, src, "model_0_0", vary(1000)) // as it was in one that is gone
	if c := syncTo(t, src, dst); c.Generation.ID != gens[0].ID || !c.New {
		t.Errorf("%+v", c)
	}
	if p := open(t, dst, gens[0], fleetscore.AllShards, maxHeldBytes); p.Len() != 20 {
		t.Error("the generation that came back is not whole")
	}
	if n, err := Prune(ctx, dir(t), later, inUse); n != 0 || err != nil {
		t.Errorf("nothing there: %d, %v", n, err)
	}
}

// TestPruneFaults lets each deletion fail in turn: what is kept stays whole, and
// the next Prune goes on.
func TestPruneFaults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	vary := variants(t)
	later := time.Now().Add(2 * time.Hour)
	none := func(fleetscore.GenerationID) bool { return false }
	for nth := 1; ; nth++ {
		src, dst := models(t, 5), dir(t)
		var last *Generation
		for i := range 5 {
			put(t, src, "model_0_0", vary(1000+i))
			last = syncTo(t, src, dst).Generation
		}
		deletes := 0
		faulty := &storetest.Faulty{Bucket: dst, Fail: func(op string, name fleetscore.BlobName) error {
			if op == "delete" {
				if deletes++; deletes == nth {
					return fleetscore.Errorf(fleetscore.Unavailable, op, string(name), "injected")
				}
			}
			return nil
		}}
		n, err := Prune(ctx, faulty, later, none)
		if err == nil {
			if n != 6 || nth != 7 {
				t.Errorf("%d deleted, fault %d never struck", n, nth)
			}
			return
		}
		if m, err := Prune(ctx, dst, later, none); err != nil || n+m != 6 {
			t.Errorf("after fault %d: %d and then %d deleted, %v", nth, n, m, err)
		}
		if p := open(t, dst, last, fleetscore.AllShards, maxHeldBytes); p.Len() != 5 {
			t.Errorf("after fault %d: %d members", nth, p.Len())
		}
	}
}

func FuzzSegment(f *testing.F) {
	rows := []segmentRow{{key: "a\x1fb", name: "n", flags: Native, body: inMemory(make([]byte, 24)), detail: "d"}, {key: "c\x1fd", name: "m", flags: Original, body: inMemory([]byte("xyz"))}}
	index, _, err := encodeSegment(fleetscore.AllShards, rows)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(index)
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		if n, err := parseHeader("f", data); err == nil && n == int64(len(data)) {
			sealIndex(data)
		}
		s, err := parseSegment("f", data)
		if err != nil {
			return
		}
		for i := range s.n {
			if _, _, d := s.key(i), s.name(i), s.detail(i); len(d) > len(data) {
				t.Error("a text is longer than the file")
			}
			s.find(s.key(i), s.key(i).Hash())
		}
		s.find("zz", fleetscore.Key("zz").Hash())
	})
}

func BenchmarkPackModel(b *testing.B) {
	const n = 200_000
	rows := make([]segmentRow, n)
	for i := range rows {
		k, _ := fleetscore.NewKey(fmt.Sprint(i/10), fmt.Sprint(i%10))
		rows[i] = segmentRow{key: k, name: "m", flags: Native, body: inMemory(make([]byte, 24)), digest: fleetscore.DigestOf(fmt.Append(nil, i))}
	}
	slices.SortFunc(rows, func(a, b segmentRow) int { return compareMembers(Member{Key: a.key}, Member{Key: b.key}) })
	dst := dir(b)
	bld := &builder{dst: dst}
	g := &Generation{}
	s, err := bld.write(b.Context(), fleetscore.AllShards, rows)
	if err != nil {
		b.Fatal(err)
	}
	g.Segments = append(g.Segments, s)
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			open(b, dst, g, fleetscore.AllShards, maxHeldBytes).Close()
		}
	})
	p := open(b, dst, g, fleetscore.AllShards, maxHeldBytes)
	keys := p.Keys()
	b.Run("in order", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			_, _, _ = p.Model(context.Background(), keys[i%n])
			i++
		}
	})
	rand.Shuffle(n, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	b.Run("at random", func(b *testing.B) {
		i := 0
		for b.Loop() {
			_, _, _ = p.Model(context.Background(), keys[i%n])
			i++
		}
	})
}

// sealIndex makes the checksum of a changed index match.
func sealIndex(index []byte) {
	binary.LittleEndian.PutUint32(index[8:], crc32.Checksum(index[16:], castagnoli))
}

// TestOriginals: a pack that keeps the files gives the record and the file of each model,
// also of one that would run code, and is made anew when a fleet begins to keep them.
func TestOriginals(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	src, dst := models(t, 3), dir(t)
	code := []byte("\x80\x04cos\nsystem\n.")
	put(t, src, "model_0_1", code)
	put(t, src, "model_0_2", []byte("tree\nversion=v4\n"))
	spec := spec
	sync := func() *Change {
		c, err := Sync(ctx, src, dst, spec, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	was := open(t, dst, sync().Generation, fleetscore.AllShards, maxHeldBytes)
	record, _, err := was.Model(ctx, "0\x1f0")
	if err != nil {
		t.Fatal(err)
	}
	spec.Originals = true
	c := sync()
	if !c.New || c.Read != 3 {
		t.Errorf("%d files were read, new: %v; want 3 for another generation", c.Read, c.New)
	}
	if again := sync(); again.New || again.Read != 0 {
		t.Errorf("without a change %d files were read", again.Read)
	}
	p := open(t, dst, c.Generation, fleetscore.AllShards, maxHeldBytes)
	if got, _, err := p.Model(ctx, "0\x1f0"); err != nil || !bytes.Equal(got, record) {
		t.Errorf("the record has %d bytes, %v, want the %d of the other pack", len(got), err, len(record))
	}
	for _, name := range []string{"model_0_0", "model_0_1", "model_0_2"} {
		want, err := store.ReadAll(ctx, src, fleetscore.BlobName(name))
		if err != nil {
			t.Fatal(err)
		}
		k, _ := tmpl.Match(name)
		if got, as, _, err := p.Original(ctx, k); err != nil || as != name || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %s, %v, want %d", name, len(got), as, err, len(want))
		}
	}
}
