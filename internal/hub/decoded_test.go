package hub

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fleetscore/fleetscore"
)

// TestWrittenAndRead: a reader that follows the log gets messages as they were written, without reading
// the file; a later reader gets the same ones from the file. A reader that was interrupted goes on in the file
// behind the messages that it took without it.
func TestWrittenAndRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h, err := open(t.Context(), Config{Dir: dir, segmentBytes: 2000}, Deps{}, osDisk{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	p := h.partitions[0]
	batch := func(i int) *fleetscore.Readings {
		x := float64(i)
		return &fleetscore.Readings{Keys: []fleetscore.Key{"a\x1f1", "b\x1f2"}, KeyIndex: []uint32{0, 1, 0},
			Times: []fleetscore.Micros{1e15, 1e15 + 1, 2e15}, IDs: []string{"", "x", ""},
			Columns: []fleetscore.ReadingColumn{{Name: "v", Numbers: []float64{x, math.NaN(), x / 3}}, {Name: "z", Numbers: []float64{math.Copysign(0, -1), 0.1, 1e300}},
				{Name: "s", Strings: []string{"on", "", "off"}, Present: []bool{true, false, true}}}}
	}
	const n = 60
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	next := make(chan Message)
	ended := make(chan error, 1)
	go func() {
		ended <- h.Read(ctx, 0, 1, func(m Message) error {
			next <- m
			return nil
		})
	}()
	var followed []Message
	write := func(i int) {
		var r *fleetscore.Readings
		if i%7 != 0 { // every seventh message is a tick
			r = batch(i)
		}
		if _, err := h.Append(t.Context(), 0, Stamp{Source: "http", Arrived: fleetscore.Micros(i), Position: "p"}, r); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	followed = append(followed, <-next)
	for i := 1; i < n; i++ {
		write(i)
		if i == n/2 { // the memory is lost: the reader goes on in the file
			p.decoded.mu.Lock()
			p.decoded.messages, p.decoded.bytes = nil, 0
			p.decoded.mu.Unlock()
		}
		followed = append(followed, <-next)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(p.decoded.messages) > 0 || p.decoded.bytes != 0 {
		t.Errorf("%d messages are kept without a reader", len(p.decoded.messages))
	}
	done := errors.New("done")
	var read []Message
	err = h.Read(t.Context(), 0, 1, func(m Message) error {
		if read = append(read, m); len(read) == n {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(read, followed, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("what was read from the file differs from what was handed over (-file +handed):\n%s", diff)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*", "*"+segmentSuffix)); err != nil || len(files) < 2 {
		t.Errorf("the log has %d files, want some: %v", len(files), err)
	}
}

// TestMemoryOfKept: messages that are small in the log and large in memory, because most values are absent, are kept
// for a reader that stands still only as far as the bound of memory allows; those that were written, and those that were decoded.
func TestMemoryOfKept(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 64} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			t.Parallel()
			memoryOfKept(t, partitions, min(16<<20, 256<<20/partitions))
		})
	}
}

func memoryOfKept(t *testing.T, partitions, limit int) {
	h, err := open(t.Context(), Config{Dir: t.TempDir(), Partitions: partitions}, Deps{}, osDisk{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	const rows, columns, n = 4096, 32, 40 // 1 MB each
	r := &fleetscore.Readings{Keys: []fleetscore.Key{"a"}, KeyIndex: make([]uint32, rows), Times: make([]fleetscore.Micros, rows)}
	for c := range columns {
		numbers := make([]float64, rows)
		for i := range numbers {
			numbers[i] = math.NaN()
		}
		numbers[c] = 1
		r.Columns = append(r.Columns, fleetscore.ReadingColumn{Name: string(rune('A' + c)), Numbers: numbers})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	read := func(stop uint64) (stands chan struct{}) {
		stands = make(chan struct{})
		group.Go(func() {
			_ = h.Read(ctx, 0, 1, func(m Message) error { // ends with the context
				if m.Seq == stop {
					close(stands)
					<-ctx.Done()
				}
				return nil
			})
		})
		return stands
	}
	check := func(when string) {
		t.Helper()
		d := &h.partitions[0].decoded
		d.mu.Lock()
		defer d.mu.Unlock()
		if most := limit / (8 * rows * columns); len(d.messages) == 0 || len(d.messages) > most {
			t.Errorf("%s %d messages are kept, want %d at most", when, len(d.messages), most)
		}
	}
	first := read(1)
	for i := range n {
		if _, err := h.Append(t.Context(), 0, Stamp{Source: "http", Arrived: fleetscore.Micros(i)}, r); err != nil {
			t.Fatal(err)
		}
	}
	<-first
	check("of those that were written")
	d := &h.partitions[0].decoded
	d.mu.Lock()
	d.messages, d.bytes = nil, 0
	d.mu.Unlock()
	<-read(n)
	check("of those that were decoded")
}
