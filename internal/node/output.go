package node

import (
	"sync"

	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// Output keeps what a node writes into its own log until the server has it. The zero
// value is ready; it is a writer for a log handler, safe for concurrent use.
type Output struct {
	mu     sync.Mutex // guards what follows
	text   []byte     // not acknowledged yet
	offset int64      // of its first byte
}

// Bounds of what is kept for a server that is away, and of what is sent at once.
const (
	maxUnsent = 1 << 20
	maxPiece  = 64 << 10
)

// Write takes lines. If too many wait, the oldest are lost.
func (o *Output) Write(lines []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, lines...)
	if over := len(o.text) - maxUnsent; over > 0 {
		o.text, o.offset = append([]byte(nil), o.text[over:]...), o.offset+int64(over)
	}
	return len(lines), nil
}

// next is the piece to send; nil if there is nothing.
func (o *Output) next() *dispatch.LogChunk {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.text) == 0 {
		return nil
	}
	return &dispatch.LogChunk{Stream: "stderr", Offset: o.offset, Data: append([]byte(nil), o.text[:min(len(o.text), maxPiece)]...)}
}

// sent forgets a piece that the server has.
func (o *Output) sent(c *dispatch.LogChunk) {
	if c == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := c.Offset + int64(len(c.Data)) - o.offset; n > 0 { // less if lines were lost meanwhile
		o.text, o.offset = o.text[n:], o.offset+n
	}
}
