package sound

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
)

type row struct {
	Time   int64             `parquet:"Time,delta"`
	Device string            `parquet:"Device,dict"`
	Value  *float64          `parquet:"Value,optional"`
	Note   *string           `parquet:"Note,optional"`
	More   map[string]string `parquet:"More,optional"`
}

func sample(t testing.TB, n int, options ...parquet.WriterOption) []byte {
	t.Helper()
	rows := make([]row, n)
	for i := range rows {
		x, s := float64(i), strings.Repeat("n", i%7)
		rows[i] = row{Time: int64(i), Device: string(rune('a' + i%3)), Value: &x, Note: &s, More: map[string]string{"k": s}}
		if i%3 == 0 {
			rows[i].Value, rows[i].More = nil, nil
		}
	}
	var out bytes.Buffer
	if err := parquet.Write(&out, rows, options...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// all reads what the library reads of a file, and returns how many rows there are.
func all(data []byte) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("panic")
		}
	}()
	file, err := Open(data)
	if err != nil {
		return 0, err
	}
	in := parquet.NewReader(file)
	defer in.Close()
	buf := make([]parquet.Row, 64)
	for {
		got, err := in.ReadRows(buf)
		n += got
		if errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

// taken is how much memory a reading of a file takes.
func taken(data []byte) (bytes uint64, err error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = all(data)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}

func TestSound(t *testing.T) {
	for name, data := range map[string][]byte{"plain": sample(t, 1000), "zstd": sample(t, 1000, parquet.Compression(&parquet.Zstd)),
		"small pages": sample(t, 5000, parquet.PageBufferSize(256)), "version 1": sample(t, 1000, parquet.DataPageVersion(1)), "empty": sample(t, 0)} {
		n, err := all(data)
		if want := map[string]int{"small pages": 5000, "empty": 0}; err != nil || n != 1000 && n != want[name] {
			t.Errorf("%s: %d rows, %v", name, n, err)
		}
	}
}

// TestDamaged: whichever byte of a file is wrong, reading it doesn't take memory without bound. The test isn't
// parallel, because it measures the memory that the process takes.
func TestDamaged(t *testing.T) {
	const most = 64 << 20
	for name, data := range map[string][]byte{"version 1": sample(t, 40, parquet.DataPageVersion(1)), "zstd": sample(t, 40, parquet.Compression(&parquet.Zstd))} {
		worst := uint64(0)
		for i := range data {
			for _, by := range []byte{0x40, 0x80, 0xff} {
				bad := bytes.Clone(data)
				bad[i] ^= by
				n, err := taken(bad)
				if worst = max(worst, n); n > most {
					t.Errorf("%s: byte %d of %d changed by %#x takes %d MB, %v", name, i, len(data), by, n>>20, err)
				}
			}
		}
		t.Logf("%s: a file of %d bytes takes %d KB at most", name, len(data), worst>>10)
	}
}

// TestLies: what a file says of itself is compared with its bytes before memory is taken for it.
func TestLies(t *testing.T) {
	good := sample(t, 40)
	footer := func(b []byte) []byte { // a file with that footer
		out := append([]byte("PAR1"), b...)
		return append(binary.LittleEndian.AppendUint32(out, uint32(len(b))), "PAR1"...)
	}
	long := bytes.Clone(good)
	binary.LittleEndian.PutUint32(long[len(long)-8:], 4_000_000_000)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"a footer of 4 GB":          {long, "its footer has 4000000000 bytes"},
		"2 billion columns":         {footer([]byte("\x15\x02\x19\xfc\xff\xff\xff\xff\x07\x00")), "a length in it is wrong"},
		"a name of 2 GB":            {footer([]byte("\x15\x02\x19\x1c\x48\xff\xff\xff\xff\x07x\x00\x00")), "a length in it is wrong"},
		"structures without an end": {footer(bytes.Repeat([]byte("\x1c"), 100_000)), "it is too deep"},
		"lists in lists":            {footer(append([]byte("\x19"), bytes.Repeat([]byte("\x19"), 100_000)...)), "a length in it is wrong"},
		"a map without a size":      {footer([]byte(strings.Repeat("\x11", 10) + "\x1b" + strings.Repeat("\xff", 10) + "\x02\x00")), "a length in it is wrong"},
		"no footer":                 {footer(nil), "cut short"},
		"something else":            {[]byte("hello"), ""},
		"nothing":                   {nil, ""},
	} {
		n, err := taken(c.data)
		if err == nil || !strings.Contains(err.Error(), c.want) || n > 16<<20 {
			t.Errorf("%s: %v, with %d KB; want %q", name, err, n>>10, c.want)
		}
	}
}

// FuzzOpen: a file that is damaged at a place gives an error or its rows.
func FuzzOpen(f *testing.F) {
	good := sample(f, 3, parquet.DataPageVersion(1))
	for i := range good {
		if i%29 == 0 {
			f.Add(good, i, byte(0xff))
		}
	}
	f.Add([]byte("PAR1\x15\x02\x19\xfc\xff\xff\xff\xff\x07\x00\x0a\x00\x00\x00PAR1"), 0, byte(0))
	f.Fuzz(func(_ *testing.T, data []byte, at int, by byte) {
		data = bytes.Clone(data)
		if at >= 0 && at < len(data) {
			data[at] ^= by
		}
		_, _ = all(data) // it returns, without all memory
	})
}
