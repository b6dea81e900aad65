package fileserver

import (
	"encoding/binary"
	"errors"
)

// errShort says that a message ends before the value that it should hold.
var errShort = errors.New("the message ends too early")

// decoder reads the values of a message (RFC 4506). After an error all values are zero.
// It never reserves more memory than the message has bytes.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n > len(d.rest) {
		d.err = errShort
		return nil
	}
	out := d.rest[:n]
	d.rest = d.rest[n:]
	return out
}

func (d *decoder) uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// opaque reads bytes of variable length, at most most.
func (d *decoder) opaque(most uint32) []byte {
	n := d.uint32()
	if n > most {
		d.err = errors.New("a value is longer than the protocol allows")
		return nil
	}
	out := d.take(int(n))
	d.take(padding(int(n)))
	return out
}

func padding(n int) int { return (4 - n%4) % 4 }

// encoder appends values to a message.
type encoder struct{ b []byte }

func (e *encoder) uint32(v uint32) { e.b = binary.BigEndian.AppendUint32(e.b, v) }
func (e *encoder) uint64(v uint64) { e.b = binary.BigEndian.AppendUint64(e.b, v) }

func (e *encoder) bool(v bool) {
	if v {
		e.uint32(1)
	} else {
		e.uint32(0)
	}
}

func (e *encoder) opaque(v []byte) {
	e.uint32(uint32(len(v)))
	e.b = append(e.b, v...)
	e.b = append(e.b, make([]byte, padding(len(v)))...)
}
