package ipc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow/memory"
)

// The library takes memory for as many columns as a schema says it has, before it looks for them. So the
// schema of a damaged file could take all memory of the machine. The functions here compare the
// numbers with the bytes that there are. A schema is a table of FlatBuffers, as format/Schema.fbs,
// Message.fbs and File.fbs of Apache Arrow describe it.

// Places of a table's fields in its list of offsets.
const (
	messageHeader  = 8
	footerSchema   = 6
	schemaFields   = 6
	schemaMetadata = 8
	fieldChildren  = 14
	fieldMetadata  = 16
)

var errSchema = errors.New("its schema has more columns than bytes")

// fbTable is a table at a place of a buffer. Its methods panic if an offset leads out of the buffer; Read recovers that.
type fbTable struct {
	b  []byte
	at int
}

func root(b []byte) fbTable { return fbTable{b, int(binary.LittleEndian.Uint32(b))} }

// field is the place of a field's offset to what it holds; 0 if the table doesn't have it.
func (t fbTable) field(slot int) int {
	list := t.at - int(int32(binary.LittleEndian.Uint32(t.b[t.at:])))
	if slot >= int(binary.LittleEndian.Uint16(t.b[list:])) {
		return 0
	}
	if off := int(binary.LittleEndian.Uint16(t.b[list+slot:])); off > 0 {
		return t.at + off
	}
	return 0
}

func (t fbTable) follow(at int) int { return at + int(binary.LittleEndian.Uint32(t.b[at:])) }

// table is the table that a field holds; false if it holds none.
func (t fbTable) table(slot int) (fbTable, bool) {
	at := t.field(slot)
	if at == 0 {
		return fbTable{}, false
	}
	return fbTable{t.b, t.follow(at)}, true
}

// list is where a list's offsets begin, and how many there are.
func (t fbTable) list(slot int) (at, n int) {
	if f := t.field(slot); f > 0 {
		at = t.follow(f)
		return at + 4, int(binary.LittleEndian.Uint32(t.b[at:]))
	}
	return 0, 0
}

// columns checks the columns of a schema, or the children of a column, and what is said about them. left is how many
// columns there can be yet.
func (t fbTable) columns(slot, metadata int, left *int) error {
	if _, n := t.list(metadata); n > len(t.b)/4 {
		return errSchema
	}
	at, n := t.list(slot)
	if *left -= n; *left < 0 {
		return errSchema
	}
	for i := range n {
		child := fbTable{t.b, t.follow(at + 4*i)}
		if err := child.columns(fieldChildren, fieldMetadata, left); err != nil {
			return err
		}
	}
	return nil
}

// checkSchema checks the schema in a table.
func checkSchema(t fbTable, slot int) error {
	s, ok := t.table(slot)
	if !ok {
		return nil // the library says so
	}
	left := len(t.b) / 4 // each has an offset of four bytes at least
	return s.columns(schemaFields, schemaMetadata, &left)
}

// checkStream checks the first message of a stream, and returns the stream from its beginning.
func checkStream(r io.Reader) (io.Reader, error) {
	var head bytes.Buffer
	size := func() (int64, error) {
		n := head.Len()
		_, err := io.CopyN(&head, r, 4)
		if err != nil {
			return 0, err
		}
		return int64(int32(binary.LittleEndian.Uint32(head.Bytes()[n:]))), nil
	}
	n, err := size()
	if err == nil && n == -1 { // before the size, since version 0.15
		n, err = size()
	}
	from := head.Len()
	if err == nil && n > 0 {
		_, err = io.CopyN(&head, r, n)
	}
	if err != nil || n <= 4 {
		return io.MultiReader(bytes.NewReader(head.Bytes()), r), nil // the library says what is wrong
	}
	return io.MultiReader(bytes.NewReader(head.Bytes()), r), checkSchema(root(head.Bytes()[from:]), messageHeader)
}

// checkFile checks the footer of a file.
func checkFile(b []byte) error {
	end := len(b) - len(FileMagic) - 4
	if end < 0 {
		return nil // the library says what is wrong
	}
	n := int(int32(binary.LittleEndian.Uint32(b[end:])))
	if n <= 4 || n > end {
		return nil
	}
	return checkSchema(root(b[end-n:end]), footerSchema)
}

// A file may take this much memory, and so many times its size: compression makes columns that repeat
// themselves very small.
const (
	freeBytes   = 1 << 30
	timesLarger = 1000
)

// granting is a stream; each byte that is read from it allows its allocator more memory.
type granting struct {
	r      io.Reader
	memory *allocator
}

func (g granting) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	g.memory.left.Add(timesLarger * int64(n))
	return n, err
}

// allocator bounds the memory that the library takes for buffers, because it trusts the lengths that a file names.
type allocator struct{ left atomic.Int64 }

func bounded(sizeBytes int64) *allocator {
	a := &allocator{}
	a.left.Store(freeBytes + timesLarger*max(sizeBytes, 0))
	return a
}

func (a *allocator) take(n int) {
	if a.left.Add(-int64(n)) < 0 {
		panic("it takes much more memory than its size makes likely") // Read recovers it
	}
}

func (a *allocator) Allocate(size int) []byte {
	a.take(size)
	return memory.DefaultAllocator.Allocate(size)
}

func (a *allocator) Reallocate(size int, b []byte) []byte {
	a.take(size - len(b))
	return memory.DefaultAllocator.Reallocate(size, b)
}

func (a *allocator) Free(b []byte) {
	a.left.Add(int64(len(b)))
	memory.DefaultAllocator.Free(b)
}
