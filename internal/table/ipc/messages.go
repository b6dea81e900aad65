package ipc

import (
	"encoding/binary"
	"errors"
	"io"
	"math"

	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// messages gives the messages of a stream that lies in memory. Their content isn't copied, which the library would do.
type messages struct {
	rest []byte
	last *ipc.Message
}

var errCut = errors.New("it ends within a message")

// messageBody is the place of the length of a message's body in its list of offsets, as format/Message.fbs describes it.
const messageBody = 10

// Message gives the next message, which is valid until the one after it. io.EOF says that there is none.
func (m *messages) Message() (*ipc.Message, error) {
	m.Release()
	n, err := m.number()
	if err == nil && n == math.MaxUint32 { // before the size, since version 0.15
		n, err = m.number()
	}
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	head, err := m.cut(uint64(n))
	if err != nil {
		return nil, err
	}
	size := uint64(0)
	if t := root(head); t.field(messageBody) > 0 {
		size = binary.LittleEndian.Uint64(head[t.field(messageBody):])
	}
	body, err := m.cut(size)
	if err != nil {
		return nil, err
	}
	m.last = ipc.NewMessage(memory.NewBufferBytes(head), memory.NewBufferBytes(body))
	return m.last, nil
}

func (m *messages) number() (uint32, error) {
	b, err := m.cut(4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (m *messages) cut(n uint64) ([]byte, error) {
	if n > uint64(len(m.rest)) {
		return nil, errCut
	}
	b := m.rest[:n:n]
	m.rest = m.rest[n:]
	return b, nil
}

// Release forgets the last message.
func (m *messages) Release() {
	if m.last != nil {
		m.last.Release()
		m.last = nil
	}
}

// Retain does nothing: only one reader has the messages.
func (m *messages) Retain() {}
