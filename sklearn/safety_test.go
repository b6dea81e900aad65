package sklearn

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/fleetscore/fleetscore"
)

// fixtureFiles returns the files of every supported class, by name.
func fixtureFiles(t testing.TB) map[string][]byte {
	t.Helper()
	archives, err := filepath.Glob("testdata/parity/*.zip")
	random, err2 := filepath.Glob("testdata/random/*.zip")
	if err != nil || err2 != nil || len(archives) == 0 || len(random) == 0 {
		t.Fatal("no fixtures", err, err2)
	}
	return archived(t, append(archives, random...))
}

// archived returns the models in archives of fixtures, by folder, archive and name.
func archived(t testing.TB, archives []string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, a := range archives {
		z, err := zip.OpenReader(a)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		for _, f := range z.File {
			if strings.HasSuffix(f.Name, ".json") {
				continue
			}
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			out[filepath.Base(filepath.Dir(a))+"/"+strings.TrimSuffix(filepath.Base(a), ".zip")+"/"+f.Name] = data
		}
	}
	return out
}

// allocated returns how much memory f allocates in total, which is at least as much as
// it holds at any time.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// memoryPromise returns the memory that loading a file of a size may take, as the
// package comment promises.
func memoryPromise(size int) uint64 { return uint64(max(8<<20, 4*size)) + 64<<10 }

// TestMemory: loading takes no more memory than promised, for complete files and for
// files that are damaged anywhere. It runs alone, because it measures the whole
// process.
func TestMemory(t *testing.T) {
	files := fixtureFiles(t)
	rng := rand.New(rand.NewPCG(1, 2))
	changes := 12
	if testing.Short() {
		changes = 2
	}
	loaded, refused := 0, 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data := files[name]
		if ext := filepath.Ext(name); ext != ".pickle" && ext != ".joblib" {
			continue
		}
		for i := range changes {
			changed := slices.Clone(data)
			if i > 0 {
				damage(rng, changed)
			}
			var err error
			if got := allocated(func() { _, err = Load(changed) }); got > memoryPromise(len(data)) {
				t.Fatalf("%s, change %d: %d bytes are allocated for a file of %d", name, i, got, len(data))
			}
			switch {
			case err == nil:
				loaded++
			case i == 0:
				t.Fatalf("%s: %v", name, err)
			default:
				refused++
			}
		}
	}
	if loaded < 100 || refused < 100 {
		t.Errorf("%d loaded, %d refused: there are too few of one kind for a result", loaded, refused)
	}
}

// damage changes some bytes, among them lengths and counts.
func damage(rng *rand.Rand, data []byte) {
	for range 1 + rng.IntN(6) {
		at := rng.IntN(len(data))
		switch rng.IntN(4) {
		case 0:
			data[at] ^= 1 << rng.IntN(8)
		case 1:
			data[at] = byte(rng.IntN(256))
		case 2:
			data[at] = []byte{0, 1, 0x7f, 0x80, 0xff, '.', '(', 'R', 'b', 'h', 'q', 0x94, ']'}[rng.IntN(13)]
		default:
			from := rng.IntN(len(data))
			copy(data[at:min(at+8, len(data))], data[from:])
		}
	}
}

// linearModel returns the pickle of a LinearRegression with many coefficients.
func linearModel(n int) []byte {
	var b bytes.Buffer
	text := func(s string) { b.WriteString("\x8c" + string(rune(len(s))) + s) }
	b.WriteString("\x80\x04")
	text("sklearn.linear_model._base")
	text("LinearRegression")
	b.WriteString("\x93)\x81}(")
	text("coef_")
	text("numpy._core.multiarray")
	text("_reconstruct")
	b.WriteString("\x93")
	text("numpy")
	text("ndarray")
	b.WriteString("\x93K\x00\x85C\x01b\x87R(K\x01J" + string(binary.LittleEndian.AppendUint32(nil, uint32(n))) + "\x85")
	text("numpy")
	text("dtype")
	b.WriteString("\x93")
	text("f8")
	b.WriteString("\x89\x88\x87R(K\x03")
	text("<")
	b.WriteString("NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89\x8e" + string(binary.LittleEndian.AppendUint64(nil, uint64(8*n))))
	for i := range n {
		b.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(math.Sqrt(float64(i)))))
	}
	b.WriteString("tb")
	text("intercept_")
	b.WriteString("K\x01u" + "b.")
	return b.Bytes()
}

// compressors are joblib's compressions that Go can write.
var compressors = map[string]func(io.Writer) io.WriteCloser{
	"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"zlib": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
	"lz4":  func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) },
	"xz": func(w io.Writer) io.WriteCloser {
		x, err := xz.WriterConfig{DictCap: 1 << 16}.NewWriter(w)
		if err != nil {
			panic(err)
		}
		return x
	},
	"lzma": func(w io.Writer) io.WriteCloser {
		x, err := lzma.WriterConfig{DictCap: 1 << 16}.NewWriter(w)
		if err != nil {
			panic(err)
		}
		return x
	},
}

func compressed(t testing.TB, name string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := compressors[name](&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestMemoryOfCompression: a large compressed model takes memory by the size of its
// content.
func TestMemoryOfCompression(t *testing.T) {
	plain := linearModel(500_000)
	for name := range compressors {
		file := compressed(t, name, plain)
		var m *Model
		var err error
		got := allocated(func() { m, err = Load(file) })
		if err != nil || m.NumFeatures() != 500_000 {
			t.Fatalf("%s: %v", name, err)
		}
		if most := uint64(4*len(plain) + 12<<20); got > most {
			t.Errorf("%s: %d bytes are allocated for %d unpacked ones; %d are allowed", name, got, len(plain), most)
		}
	}
}

// TestBombs: content that is far larger than its file is refused before memory is
// allocated. A dictionary size that a file asks for without need is ignored.
func TestBombs(t *testing.T) {
	zeros := make([]byte, 64<<20)
	bombs := map[string][]byte{}
	for name := range compressors {
		bombs[name] = compressed(t, name, zeros)
	}
	var z bytes.Buffer
	w := zip.NewWriter(&z)
	for _, name := range []string{"schema.json", "1.npy"} {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	bombs["zip"] = z.Bytes()
	for name, bomb := range bombs {
		var err error
		if got := allocated(func() { _, err = Load(bomb) }); got > 64<<20 || !fleetscore.Invalid.Is(err) {
			t.Errorf("%s of %d bytes: %d bytes are allocated, %v", name, len(bomb), got, err)
		}
	}

	plain := linearModel(10)
	greedy := compressed(t, "xz", plain)
	greedy[16] = 37 // the dictionary size in the block's header: 1.5 GiB
	binary.LittleEndian.PutUint32(greedy[20:], crc32.ChecksumIEEE(greedy[12:20]))
	greedy2 := compressed(t, "lzma", plain)
	binary.LittleEndian.PutUint32(greedy2[1:], 1<<31)
	for _, file := range [][]byte{greedy, greedy2} {
		var err error
		if got := allocated(func() { _, err = Load(file) }); got > 1<<20 || err != nil {
			t.Errorf("a dictionary of gigabytes: %d bytes are allocated, %v", got, err)
		}
	}
}

// TestManifold: files whose parts refer to each other, so that they describe far more
// than their size, are refused early.
func TestManifold(t *testing.T) {
	t.Parallel()
	class := func(module, name string) string {
		return "\x8c" + string(rune(len(module))) + module + "\x8c" + string(rune(len(name))) + name + "\x93)\x81}("
	}
	pipeline, union := class("sklearn.pipeline", "Pipeline")+"\x8c\x05steps", class("sklearn.pipeline", "FeatureUnion")+"\x8c\x10transformer_list"
	inner := class("sklearn.preprocessing._data", "Normalizer") + "\x8c\x04norm\x8c\x02l2ub"
	for _, outer := range []string{pipeline, union} {
		// Each level contains the level below 30 times.
		s := inner + "q\x00"
		for level := range 9 {
			s += "0" + outer + "](" + strings.Repeat(fmt.Sprintf("\x8c\x01ah%c\x86", level), 30) + "eubq" + string(rune(level+1))
		}
		file := "\x80\x04" + s + "."
		var err error
		if got := allocated(func() { _, err = Load([]byte(file)) }); got > 64<<20 || !fleetscore.Invalid.Is(err) {
			t.Errorf("%d bytes are allocated, %v", got, err)
		}
	}
	// A hundred thousand columns, selected by as many names.
	var list strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&list, "\x8c\x28%040d", i)
	}
	names := "](" + list.String() + "e"
	file := "\x80\x04" + class("sklearn.compose._column_transformer", "ColumnTransformer") + "\x8c\x0en_features_in_J" + string(binary.LittleEndian.AppendUint32(nil, 100_000)) +
		"\x8c\x11feature_names_in_" + names + "\x8c\x0dtransformers_](\x8c\x01a\x8c\x0bpassthrough" + names + "\x87eub."
	if m, err := Load([]byte(file)); err != nil || m.NumFeatures() != 100_000 {
		t.Error(err)
	}
}
