package table

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/fleetscore/fleetscore"
)

const (
	chunkBytes     = 2 << 20  // what a goroutine reads and parses at once: small enough for the cache
	maxRecordBytes = 64 << 20 // of one record; a quote that is never closed ends here
	maxExamples    = 1000     // bad rows kept with their reasons; all are counted
)

// lineFormat is how lines of text become rows. One value reads one file; begin is
// called first, by one goroutine, then parse by several.
type lineFormat interface {
	// begin looks at a file's first bytes, which hold whole records and no byte
	// order mark, and reports where the rows begin and on which line. The first file of several decides
	// the value columns where none are named.
	begin(data []byte) (skip, line int, err error)
	// boundary is where the last whole record of data ends; 0 if none does.
	boundary(data []byte) int
	// parse adds the rows of whole records to p.
	parse(data []byte, p *parsed)
}

// parsed is the rows of one chunk.
type parsed struct {
	table  *keyTable
	opt    ReadOptions
	key    []byte    // scratch
	last   *keyEntry // of the row before
	times  []fleetscore.Micros
	keys   []uint32
	values [][]float64

	layout Layout // of its first row, with the most digits of all
	seen   bool   // layout is set
	count  int64  // records, bad ones and those outside the interval included
	lines  int    // line breaks
	bad    []badRow
	badAll int64
	fatal  *badRow // one that hides others

	timeText []byte // the row before's, as most rows repeat it
	timeAt   fleetscore.Micros
	timeIn   bool // it is wanted
}

type badRow struct {
	line               int // within the chunk, from 0
	column, value, why string
}

func (p *parsed) reset() {
	p.times, p.keys = p.times[:0], p.keys[:0]
	for i := range p.values {
		p.values[i] = p.values[i][:0]
	}
	p.seen, p.count, p.lines, p.bad, p.badAll, p.fatal = false, 0, 0, nil, 0, nil
	p.timeText = p.timeText[:0]
}

func (p *parsed) reject(line int, column string, value []byte, why string) {
	if p.badAll++; len(p.bad) < maxExamples {
		if len(value) > 64 {
			value = value[:64]
		}
		p.bad = append(p.bad, badRow{line, column, string(value), why})
	}
}

// sawLayout notes how a time was written.
func (p *parsed) sawLayout(l Layout) {
	if !p.seen {
		p.layout, p.seen = l, true
	}
	p.layout.Fraction = max(p.layout.Fraction, l.Fraction)
}

// lineReader reads files in chunks, which goroutines take in turn, parse at the
// same time, and hand in in the files' order.
type lineReader struct {
	ctx    context.Context
	schema Schema
	opt    ReadOptions
	table  *keyTable

	reading sync.Mutex // guards the files and what follows
	chunk   int        // bytes
	files   []Source
	file    io.ReadCloser
	format  lineFormat
	name    string
	carry   []byte // the begin of the next chunk
	seq     int    // of the next chunk
	total   int64  // bytes of all files, where known
	broken  bool   // an error ended the reading

	handing sync.Mutex // guards the result and what follows
	turn    *sync.Cond
	next    int // the chunk whose turn it is
	line    int // of its first record
	in      *Input
	err     error
	stopped atomic.Bool

	copying sync.RWMutex // held to read while rows are copied into in, to write while in grows
}

type chunk struct {
	seq   int
	line  int // of the first record, for a file's first chunk; else 0
	name  string
	f     lineFormat
	data  []byte
	buf   []byte // what data lies in, used again
	bytes int64
}

// readLines reads all files into rows.
func readLines(ctx context.Context, files []Source, s Schema, opt ReadOptions) (*Input, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if len(s.Values) == 0 {
		s.Values = nil // the first file decides
	}
	r := &lineReader{ctx: ctx, schema: s, opt: opt, table: newKeyTable(), files: files,
		in: &Input{Rows: &fleetscore.Rows{TimeName: s.Time, KeyNames: s.Key}}}
	r.turn = sync.NewCond(&r.handing)
	for _, f := range files {
		r.total += f.SizeBytes
	}
	if r.chunk = opt.chunkBytes; r.chunk == 0 {
		r.chunk = chunkBytes
	}
	workers := opt.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	if r.total > 0 {
		workers = min(workers, int(r.total/int64(r.chunk))+1)
	}
	stop := context.AfterFunc(ctx, func() { r.fail(ctx.Err()) })
	var wg sync.WaitGroup
	for range workers {
		wg.Go(r.work)
	}
	wg.Wait()
	stop()
	if r.file != nil {
		r.file.Close()
	}
	if r.err != nil {
		return r.in, r.err
	}
	r.in.Rows.ValueNames = r.schema.Values
	if len(r.in.Rows.Values) == 0 {
		r.in.Rows.Values = make([][]float64, len(r.schema.Values))
	}
	r.in.Rows.Keys = r.table.keys()
	return r.in, r.in.judge(opt)
}

// fail ends the reading; the first error stays.
func (r *lineReader) fail(err error) {
	r.handing.Lock()
	defer r.handing.Unlock()
	if r.err == nil {
		r.err = err
	}
	r.stopped.Store(true)
	r.turn.Broadcast()
}

func (r *lineReader) work() {
	p := &parsed{table: r.table, opt: r.opt}
	var c chunk
	for !r.stopped.Load() {
		ok, err := r.take(&c)
		if err != nil {
			r.wait(c.seq) // an earlier row may be at fault, too: that is the one to name
			r.fail(err)
			return
		}
		if !ok {
			return
		}
		p.reset()
		if n := len(r.schema.Values); len(p.values) != n {
			p.values = make([][]float64, n)
		}
		c.f.parse(c.data, p)
		r.hand(&c, p)
	}
}

// take reads the next chunk; false after the last, and after an error.
func (r *lineReader) take(c *chunk) (ok bool, err error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	c.seq = r.seq
	if r.broken {
		return false, nil
	}
	defer func() { r.broken = err != nil }()
	c.line = 0
	fresh := false
	for r.file == nil {
		if len(r.files) == 0 {
			return false, nil
		}
		src := &r.files[0]
		f, err := src.Open(r.ctx)
		if err != nil {
			return false, err
		}
		r.name, r.file, fresh = src.Name, f, true
		r.files = r.files[1:]
		r.format = src.lines(&r.schema, r.opt)
	}
	size := r.chunk + len(r.carry)
	buf := append(c.buf[:0], r.carry...)
	c.bytes = 0
	for {
		buf = slices.Grow(buf, max(0, size+padding-len(buf)))
		n, err := io.ReadFull(r.file, buf[len(buf):size])
		buf = buf[:len(buf)+n]
		c.bytes += int64(n)
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return false, fleetscore.Wrap("read", r.name, err)
		}
		begin, end := 0, len(buf)
		if fresh && bytes.HasPrefix(buf, []byte(byteOrderMark)) {
			begin = len(byteOrderMark)
		}
		if ended {
			err := r.file.Close()
			r.file, r.carry = nil, r.carry[:0]
			if err != nil {
				return false, fleetscore.Wrap("read", r.name, err)
			}
		} else if end = begin + r.format.boundary(buf[begin:]); end > begin && !(fresh && blank(buf[begin:end])) {
			r.carry = append(r.carry[:0], buf[end:]...)
		} else if size *= 2; size > maxRecordBytes {
			return false, fleetscore.Errorf(fleetscore.Invalid, "read", r.name, "a record is longer than %d MiB", maxRecordBytes>>20).
				WithHint("look for a quote that is never closed")
		} else {
			continue
		}
		c.buf, c.data, c.name, c.f = buf, buf[begin:end], r.name, r.format
		break
	}
	if fresh {
		skip, line, err := r.format.begin(c.data)
		if err != nil {
			return false, err
		}
		c.data, c.line = c.data[skip:], line
	}
	r.seq++
	return true, nil
}

// blank reports whether there is no record in data: the header is still to come.
func blank(data []byte) bool { return len(bytes.Trim(data, "\r\n")) == 0 }

const byteOrderMark = "\xef\xbb\xbf"

// padding is how many bytes behind a chunk may be read, whatever they are.
const padding = 16

// wait waits until all chunks before seq are handed in.
func (r *lineReader) wait(seq int) {
	r.handing.Lock()
	for r.next != seq && r.err == nil {
		r.turn.Wait()
	}
	r.handing.Unlock()
}

// hand waits for a chunk's turn, then adds its rows to the result.
func (r *lineReader) hand(c *chunk, p *parsed) {
	r.wait(c.seq)
	r.handing.Lock()
	if r.err != nil {
		r.handing.Unlock()
		return
	}
	if c.line > 0 {
		r.line = c.line
	}
	line := r.line
	r.in.note(c.name, line, p)
	r.line += p.lines
	bad := p.fatal
	if p.badAll > 0 && r.opt.BadRows == 0 {
		bad = &p.bad[0]
	}
	if bad != nil {
		r.err = Reject{c.name, line + bad.line, bad.column, bad.value, bad.why}.error()
		r.stopped.Store(true)
		r.turn.Broadcast()
		r.handing.Unlock()
		return
	}
	at, rows := r.in.Rows.Len(), r.in.Rows
	r.grow(len(p.times), c.bytes)
	// The lengths grow in turn, the copies are made at the same time.
	rows.Times = rows.Times[:at+len(p.times)]
	rows.KeyIndex = rows.KeyIndex[:at+len(p.times)]
	for i := range rows.Values {
		rows.Values[i] = rows.Values[i][:at+len(p.times)]
	}
	r.copying.RLock()
	times, keys := rows.Times[at:], rows.KeyIndex[at:]
	r.next++
	r.turn.Broadcast()
	columns := slices.Clone(rows.Values)
	r.handing.Unlock()

	copy(times, p.times)
	copy(keys, p.keys)
	for i := range columns {
		copy(columns[i][at:], p.values[i])
	}
	r.copying.RUnlock()
	if r.opt.Progress != nil {
		r.opt.Progress.Add(c.bytes)
	}
}

// grow makes room for n more rows, at first for as many as the files promise.
func (r *lineReader) grow(n int, bytes int64) {
	rows := r.in.Rows
	if rows.Values == nil {
		rows.Values = make([][]float64, len(r.schema.Values))
	}
	at := len(rows.Times)
	if at+n <= cap(rows.Times) {
		return
	}
	want := at + n
	if at == 0 && bytes > 0 && r.total > bytes {
		want = int(float64(n)*float64(r.total)/float64(bytes)*1.03) + 1024
	} else if at > 0 {
		want += at / 4
	}
	r.copying.Lock()
	defer r.copying.Unlock()
	rows.Times = enlarge(rows.Times, want)
	rows.KeyIndex = enlarge(rows.KeyIndex, want)
	for i := range rows.Values {
		rows.Values[i] = enlarge(rows.Values[i], want)
	}
}

func enlarge[T any](s []T, n int) []T {
	out := make([]T, len(s), n)
	copy(out, s)
	return out
}

// Input is rows as they were read from files, in the files' order.
type Input struct {
	Rows     *fleetscore.Rows
	Layout   Layout // how the first row's time was written, with the most digits of all
	Records  int64  // how many records the files have
	Rejected int64  // how many of them are malformed
	Rejects  []Reject
	started  bool
}

// Reject is a malformed row.
type Reject struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column string `json:"column,omitempty"`
	Value  string `json:"value,omitempty"`
	Reason string `json:"reason"`
}

func (r Reject) error() *fleetscore.Error {
	return badValue(r.File, r.Line, r.Column, r.Value, r.Reason)
}

// note adds what a chunk has besides rows.
func (in *Input) note(name string, line int, p *parsed) {
	in.Records += p.count
	in.Rejected += p.badAll
	for _, b := range p.bad {
		if len(in.Rejects) < maxExamples {
			in.Rejects = append(in.Rejects, Reject{name, line + b.line, b.column, b.value, b.why})
		}
	}
	if p.seen {
		if !in.started {
			in.Layout, in.started = p.layout, true
		}
		in.Layout = in.Layout.merge(p.layout)
	}
}

// judge refuses an input with more malformed rows than are tolerated.
func (in *Input) judge(opt ReadOptions) error {
	if opt.BadRows.Allows(in.Rejected, in.Records) {
		return nil
	}
	first := in.Rejects[0]
	return fleetscore.Errorf(fleetscore.Invalid, "read", first.File, "%d of %d rows are malformed, more than the %s that are tolerated; the first is on line %d: %s",
		in.Rejected, in.Records, opt.BadRows, first.Line, first.why())
}

func (r Reject) why() string {
	if r.Column == "" {
		return r.Reason
	}
	return fmt.Sprintf("column %s: %q is %s", r.Column, r.Value, r.Reason)
}

// keyTable numbers keys, shared by the goroutines that parse a file. Finding a
// known key takes no lock. Rows mostly come in the same order of sensors again
// and again, so each key remembers which one followed it last, and the guess is
// tried before the hash is.
type keyTable struct {
	seed  maphash.Seed
	slots atomic.Pointer[[]atomic.Pointer[keyEntry]] // open addressing, a power of two, at most half full

	mu    sync.Mutex // guards what follows, and all insertion
	count uint32
	slabs [][]keyEntry // entries in the order of their numbers
	text  []byte       // where the next keys' text goes; never moved once referred to
}

type keyEntry struct {
	key  string
	id   uint32
	next atomic.Pointer[keyEntry] // the key of the row that followed, when last seen
}

const keySlab = 1024 // entries allocated at once

func newKeyTable() *keyTable {
	t := &keyTable{seed: maphash.MakeSeed()}
	slots := make([]atomic.Pointer[keyEntry], 1024)
	t.slots.Store(&slots)
	return t
}

// find returns the entry of a key, which follows the row of last (nil at first).
func (t *keyTable) find(key []byte, last *keyEntry) *keyEntry {
	if last != nil {
		if e := last.next.Load(); e != nil && e.key == string(key) {
			return e
		}
	}
	h := maphash.Bytes(t.seed, key)
	e := probe(*t.slots.Load(), h, key)
	if e == nil {
		e = t.insert(h, key)
	}
	if last != nil {
		last.next.Store(e)
	}
	return e
}

func probe(slots []atomic.Pointer[keyEntry], h uint64, key []byte) *keyEntry {
	mask := uint64(len(slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		e := slots[i].Load()
		if e == nil || e.key == string(key) {
			return e
		}
	}
}

// insert adds a key, unless another goroutine did meanwhile.
func (t *keyTable) insert(h uint64, key []byte) *keyEntry {
	t.mu.Lock()
	defer t.mu.Unlock()
	slots := *t.slots.Load()
	if e := probe(slots, h, key); e != nil {
		return e
	}
	if int(t.count) >= len(slots)/2 {
		grown := make([]atomic.Pointer[keyEntry], 2*len(slots))
		for i := range slots {
			if e := slots[i].Load(); e != nil {
				place(grown, maphash.String(t.seed, e.key), e)
			}
		}
		slots = grown
		t.slots.Store(&grown)
	}
	n := int(t.count)
	if n%keySlab == 0 {
		t.slabs = append(t.slabs, make([]keyEntry, keySlab))
	}
	e := &t.slabs[n/keySlab][n%keySlab]
	e.key, e.id = t.keep(key), t.count
	t.count++
	place(slots, h, e)
	return e
}

func place(slots []atomic.Pointer[keyEntry], h uint64, e *keyEntry) {
	mask := uint64(len(slots) - 1)
	i := h & mask
	for slots[i].Load() != nil {
		i = (i + 1) & mask
	}
	slots[i].Store(e)
}

// keep copies a key's text into memory that is shared by many keys.
func (t *keyTable) keep(key []byte) string {
	if len(key) > cap(t.text)-len(t.text) {
		t.text = make([]byte, 0, max(64<<10, len(key)))
	}
	at := len(t.text)
	t.text = append(t.text, key...)
	return unsafe.String(&t.text[at], len(key))
}

// keys are all keys in the order of their numbers.
func (t *keyTable) keys() []fleetscore.Key {
	out := make([]fleetscore.Key, t.count)
	for i := range out {
		out[i] = fleetscore.Key(t.slabs[i/keySlab][i%keySlab].key)
	}
	return out
}
