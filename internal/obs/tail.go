package obs

import (
	"strings"
	"sync"
)

// Tail keeps the end of what a program writes, for messages about it. The zero value is
// ready; it is safe for concurrent use.
type Tail struct {
	mu   sync.Mutex // guards what follows
	text []byte
}

const tailBytes = 8 << 10

// Write implements io.Writer.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if n := len(t.text) - tailBytes; n > 0 {
		t.text = append(t.text[:0], t.text[n:]...)
	}
	return len(p), nil
}

// LastLine is the last line that isn't empty; empty if there is none.
func (t *Tail) LastLine() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(string(t.text))
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}
