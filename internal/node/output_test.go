package node

import (
	"strings"
	"testing"
)

// TestOutput: what a node writes is sent piece by piece, and again until the server has
// it; while the server is away, the newest lines are kept.
func TestOutput(t *testing.T) {
	t.Parallel()
	var none *Output
	var o Output
	if none.next() != nil || o.next() != nil {
		t.Error("there is something to send before anything was written")
	}
	write := func(text string) {
		t.Helper()
		if n, err := o.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	write("one\n")
	first := o.next()
	write("two\n")
	if again := o.next(); first.Offset != 0 || string(first.Data) != "one\n" || string(again.Data) != "one\ntwo\n" {
		t.Errorf("pieces %+v, then %+v", first, again)
	}
	o.sent(first)
	if c := o.next(); c.Offset != 4 || string(c.Data) != "two\n" {
		t.Errorf("after the first piece: %+v", c)
	}
	write(strings.Repeat("x", maxUnsent))
	late := o.next()
	if late.Offset != 8 || len(late.Data) != maxPiece {
		t.Errorf("while the server is away: %d bytes from %d on", len(late.Data), late.Offset)
	}
	write("lost\n")
	o.sent(late) // five of its bytes are lost meanwhile
	if c := o.next(); c.Offset != 8+maxPiece {
		t.Errorf("the next piece begins at %d", c.Offset)
	}
	for c := o.next(); c != nil; c = o.next() {
		o.sent(c)
	}
}
