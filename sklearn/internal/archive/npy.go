package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
)

// npy is an array in NumPy's format (numpy.lib.format): magic bytes, a version, the
// length of a header, the header as a Python dict in a fixed form, and the content.
type npy struct {
	descr   string // a type such as "<f8", or "" for an array with fields
	fields  []npyField
	size    int // bytes of an element with fields
	fortran bool
	shape   []int
	data    []byte
}

type npyField struct {
	name, descr string
	offset      int
}

var errNpy = errors.New("an array in the archive is damaged")

func parseNpy(b []byte) (npy, error) {
	var a npy
	if len(b) < 12 || !bytes.HasPrefix(b, []byte("\x93NUMPY")) {
		return a, errNpy
	}
	start, n := 10, int(binary.LittleEndian.Uint16(b[8:]))
	if b[6] > 1 {
		start, n = 12, int(binary.LittleEndian.Uint32(b[8:]))
	}
	if n < 0 || n > len(b)-start || n > 1<<16 {
		return a, errNpy
	}
	a.data = b[start+n:]
	return a, a.header(string(b[start : start+n]))
}

// header reads "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }".
func (a *npy) header(h string) error {
	descr, ok := after(h, "'descr':")
	order, ok2 := after(h, "'fortran_order':")
	shape, ok3 := after(h, "'shape':")
	if !ok || !ok2 || !ok3 {
		return errNpy
	}
	a.fortran = strings.HasPrefix(order, "True")
	list, _, ok := strings.Cut(strings.TrimPrefix(shape, "("), ")")
	if !ok || !strings.HasPrefix(shape, "(") {
		return errNpy
	}
	for d := range strings.SplitSeq(list, ",") {
		if d = strings.TrimSuffix(strings.TrimSpace(d), "L"); d == "" {
			continue
		}
		n, err := strconv.Atoi(d)
		if err != nil || n < 0 || len(a.shape) == 8 {
			return errNpy
		}
		a.shape = append(a.shape, n)
	}
	if strings.HasPrefix(descr, "'") {
		a.descr, _, ok = strings.Cut(descr[1:], "'")
		if !ok {
			return errNpy
		}
		return nil
	}
	list, _, ok = strings.Cut(strings.TrimPrefix(descr, "["), "]")
	if !ok {
		return errNpy
	}
	return a.record(list)
}

// record reads "('left_child', '<i8'), (”, '|V7'), …".
func (a *npy) record(list string) error {
	for f := range strings.SplitSeq(list, "(") {
		if f = strings.TrimSpace(f); f == "" {
			continue
		}
		f, _, ok := strings.Cut(f, ")")
		name, descr, ok2 := strings.Cut(f, ",")
		name, descr = strings.Trim(name, " '"), strings.Trim(descr, " ',")
		if !ok || !ok2 || len(descr) < 2 {
			return errNpy
		}
		size, err := strconv.Atoi(descr[2:])
		if err != nil || size < 1 || size > 1<<10 || len(a.fields) > 64 {
			return errNpy
		}
		if name != "" { // a field without a name is padding
			a.fields = append(a.fields, npyField{name, descr, a.size})
		}
		a.size += size
	}
	return nil
}

func after(s, key string) (string, bool) {
	_, rest, ok := strings.Cut(s, key)
	return strings.TrimSpace(rest), ok
}
