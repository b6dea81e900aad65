// Package sound opens Parquet files of which nobody knows whether they are damaged. The library
// takes memory for as many bytes, values and columns as a file says it has, before it looks for them; Open
// compares these numbers with the bytes that there are. It reads the footer and the header of each page, not
// what is in the pages: their checksums, which our files have, protect that.
//
// The package has no state, so all of it may be used concurrently.
package sound

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// A file may take this much memory, and so many times its size: compression makes columns that repeat
// themselves very small.
const (
	freeBytes   = 1 << 30
	timesLarger = 1000
	valueBytes  = 8 // that a value takes at least
)

const footerEnd = 8 // bytes of the footer's length and of the mark at a file's end

var errLarge = errors.New("it takes much more memory than its size makes likely")

// Open opens a file. Errors say what is wrong with it, not which file it is. The library may still panic at what it
// reads of a damaged file later.
func Open(data []byte) (file *parquet.File, err error) {
	defer func() { // the library panics at some damaged files
		if p := recover(); p != nil {
			file, err = nil, fmt.Errorf("%v", p)
		}
	}()
	if n := len(data) - footerEnd; n >= 0 {
		size := int64(binary.LittleEndian.Uint32(data[n:]))
		if size > int64(n) {
			return nil, fmt.Errorf("its footer has %d bytes, and the file %d", size, len(data))
		}
		if _, err := structure(data[n-int(size):n], 0); err != nil {
			return nil, fmt.Errorf("its footer: %w", err)
		}
	}
	file, err = parquet.OpenFile(bytes.NewReader(data), int64(len(data)), parquet.SkipBloomFilters(true), parquet.SkipPageIndex(true))
	if err != nil {
		return nil, err
	}
	left, rows := freeBytes+timesLarger*int64(len(data)), int64(0)
	for _, group := range file.Metadata().RowGroups {
		rows += group.NumRows
		for _, c := range group.Columns {
			if err := pages(data, c.MetaData, group.NumRows, &left); err != nil {
				return nil, fmt.Errorf("column %v: %w", c.MetaData.PathInSchema, err)
			}
		}
	}
	if have := file.NumRows(); have != rows {
		return nil, fmt.Errorf("it is said to have %d rows, and its parts have %d", have, rows)
	}
	return file, nil
}

// pages checks the headers of a column's pages. left is the memory that what they hold may take yet.
func pages(data []byte, c format.ColumnMetaData, rows int64, left *int64) error {
	from := c.DataPageOffset
	if c.DictionaryPageOffset != 0 {
		from = c.DictionaryPageOffset // as the library takes it
	}
	size := int64(len(data))
	if from < 0 || from > size || c.TotalCompressedSize < 0 || c.TotalCompressedSize > size-from {
		return fmt.Errorf("its pages are said to be the %d bytes from byte %d on, and the file has %d", c.TotalCompressedSize, from, size)
	}
	there := int64(0)
	for rest := data[from : from+c.TotalCompressedSize]; len(rest) > 0; {
		n, err := structure(rest, 0)
		if err != nil {
			return fmt.Errorf("the header of a page: %w", err)
		}
		var h format.PageHeader
		if err := thrift.Unmarshal(new(thrift.CompactProtocol), rest[:n], &h); err != nil {
			return fmt.Errorf("the header of a page: %w", err)
		}
		rest = rest[n:]
		if h.CompressedPageSize < 0 || int(h.CompressedPageSize) > len(rest) {
			return fmt.Errorf("a page is said to have %d bytes, and %d are left of the column", h.CompressedPageSize, len(rest))
		}
		values, different := max(h.DataPageHeader.V.NumValues, h.DataPageHeaderV2.V.NumValues), h.DictionaryPageHeader.V.NumValues
		if values < 0 || different < 0 || h.UncompressedPageSize < 0 || different > h.UncompressedPageSize {
			return errors.New("the numbers in the header of a page are impossible")
		}
		there += int64(values)
		if *left -= int64(h.UncompressedPageSize) + valueBytes*int64(values); *left < 0 {
			return errLarge
		}
		rest = rest[h.CompressedPageSize:]
	}
	if rows < 0 || rows > there || c.NumValues != there {
		return fmt.Errorf("it is said to have %d values in %d rows, and its pages have %d", c.NumValues, rows, there)
	}
	return nil
}

// maxDepth is how deep structures may lie in each other; those of the format are less deep.
const maxDepth = 32

// Types of fields in the compact protocol of Apache Thrift.
const (
	typeTrue   = 1
	typeFalse  = 2
	typeByte   = 3
	typeInt64  = 6 // and the shorter ones before
	typeDouble = 7
	typeBinary = 8
	typeList   = 9
	typeSet    = 10
	typeMap    = 11
	typeStruct = 12
)

var errShort = errors.New("it is cut short, or a length in it is wrong")

// structure is how many bytes a structure of Thrift takes. Each text and each list in it is compared with the bytes
// that are left: an element has one at least.
func structure(b []byte, depth int) (n int, err error) {
	if depth > maxDepth {
		return 0, errors.New("it is too deep")
	}
	for {
		if n >= len(b) {
			return 0, errShort
		}
		head := b[n]
		n++
		if head&0xf == 0 {
			return n, nil // the end of the structure
		}
		if head>>4 == 0 { // the field's number follows
			if n, err = skipVarint(b, n); err != nil {
				return 0, err
			}
		}
		if t := head & 0xf; t == typeTrue || t == typeFalse {
			continue // the field's type is its value
		}
		if n, err = skip(b, n, head&0xf, depth); err != nil {
			return 0, err
		}
	}
}

// skip returns where a value ends that begins at n.
func skip(b []byte, n int, kind byte, depth int) (int, error) {
	switch {
	case kind == typeTrue || kind == typeFalse || kind == typeByte:
		n++
	case kind <= typeInt64:
		return skipVarint(b, n)
	case kind == typeDouble:
		n += 8
	case kind == typeBinary:
		size, at := binary.Uvarint(b[n:])
		if at <= 0 || size > uint64(len(b)-n-at) {
			return 0, errShort
		}
		n += at + int(size)
	case kind == typeList || kind == typeSet:
		return skipList(b, n, depth)
	case kind == typeMap:
		return skipMap(b, n, depth)
	case kind == typeStruct:
		size, err := structure(b[n:], depth+1)
		return n + size, err
	default:
		return 0, fmt.Errorf("there is no type %d", kind)
	}
	if n > len(b) {
		return 0, errShort
	}
	return n, nil
}

func skipVarint(b []byte, n int) (int, error) {
	_, at := binary.Uvarint(b[n:])
	if at <= 0 {
		return 0, errShort
	}
	return n + at, nil
}

func skipList(b []byte, n, depth int) (int, error) {
	if n >= len(b) {
		return 0, errShort
	}
	kind, size := b[n]&0xf, uint64(b[n]>>4)
	n++
	if size == 0xf {
		at := 0
		if size, at = binary.Uvarint(b[n:]); at <= 0 {
			return 0, errShort
		}
		n += at
	}
	return skipMany(b, n, size, depth, kind)
}

func skipMap(b []byte, n, depth int) (int, error) {
	size, at := binary.Uvarint(b[n:])
	if at <= 0 {
		return 0, errShort
	}
	if n += at; size == 0 {
		return n, nil
	}
	if n >= len(b) {
		return 0, errShort
	}
	return skipMany(b, n+1, size, depth, b[n]>>4, b[n]&0xf)
}

// skipMany returns where so many values end, each of the types one after the other.
func skipMany(b []byte, n int, size uint64, depth int, kinds ...byte) (int, error) {
	if size > uint64(len(b)-n) || depth > maxDepth {
		return 0, errShort
	}
	var err error
	for range size {
		for _, kind := range kinds {
			if n, err = skip(b, n, kind, depth+1); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}
