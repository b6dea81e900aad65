package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

// syncs is a hub that counts the appends of readings: each is a sync.
type syncs struct {
	*hubtest.Memory
	n atomic.Int64
}

func (s *syncs) Append(ctx context.Context, p int, stamp hub.Stamp, r ...*fleetscore.Readings) (uint64, error) {
	if len(r) > 0 && r[0].Len() > 0 {
		s.n.Add(1)
	}
	return s.Memory.Append(ctx, p, stamp, r...)
}

// TestMixedColumns: lines whose columns change between numbers and texts, one after
// the other, become few messages, and every value stays unchanged.
func TestMixedColumns(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	g := start(t, h, Config{})
	var body strings.Builder
	var want []string
	const n = 20000
	for i := range n {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&body, `{"TS":%d,"Device":"a","Tag":"x","V":%d,"W":"w"}`+"\n", 1795428000000+i, i)
			want = append(want, fmt.Sprintf(`V=%d W="w"`, i))
		case 1:
			fmt.Fprintf(&body, `{"TS":%d,"Device":"a","Tag":"x","V":"v%d","W":%d}`+"\n", 1795428000000+i, i, i)
			want = append(want, fmt.Sprintf(`V="v%d" W=%d`, i, i))
		default:
			fmt.Fprintf(&body, `{"TS":%d,"Device":"a","Tag":"x"}`+"\n", 1795428000000+i)
			want = append(want, "")
		}
	}
	if status, p := post(g, "application/x-ndjson", body.String()); status != 200 || p.Accepted != n {
		t.Fatalf("got %d, %+v", status, p)
	}
	messages := 0
	for _, m := range h.Messages(0) {
		if !m.Tick {
			messages++
		}
	}
	if most := body.Len()/maxBatchBytes + 1; messages > most {
		t.Errorf("%d bytes became %d messages, want %d at most", body.Len(), messages, most)
	}
	got := stored(h)
	if len(got) != n {
		t.Fatalf("%d readings are stored, want %d", len(got), n)
	}
	for i, line := range got {
		words := strings.Fields(line)[2:]
		slices.Sort(words)
		if text := strings.Join(words, " "); text != want[i] {
			t.Fatalf("reading %d is %q, want %q", i, text, want[i])
		}
	}
}

// TestManyColumns: a body with many columns, of which each reading uses a few, takes
// little more memory than its text, and few syncs.
func TestManyColumns(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]func(i int) string{
		"a new column a line": func(i int) string { return fmt.Sprintf(`"c%d":%d`, i, i) },
		"500 new columns a line": func(i int) string {
			var b strings.Builder
			for j := range 500 {
				fmt.Fprintf(&b, `"%d":1,`, i*500+j)
			}
			return strings.TrimSuffix(b.String(), ",")
		},
		"500 of 4,000 a line": func(i int) string {
			var b strings.Builder
			for j := range 500 {
				fmt.Fprintf(&b, `"%d":1,`, (i%8)*500+j)
			}
			return strings.TrimSuffix(b.String(), ",")
		},
		"another one of 1,000": func(i int) string { return fmt.Sprintf(`"c%d":"t"`, i*7%1000) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var body strings.Builder
			n := 0
			for ; body.Len() < 2<<20; n++ {
				fmt.Fprintf(&body, `{"TS":%d,"Device":"a","Tag":"x",%s}`+"\n", 1795428000000+n, line(n))
			}
			h := &syncs{Memory: hubtest.New(1)}
			g := start(t, h, Config{})
			p := newParser(g.cfg, newShared(&g.partition, 1))
			size := int64(0)
			for _, b := range p.lines([]byte(body.String()), time.Unix(1795428000, 0)).batches[0] {
				size += b.size()
			}
			if most := int64(12 * body.Len()); size > most {
				t.Errorf("a body of %d bytes takes %d once parsed, want %d at most", body.Len(), size, most)
			}
			status, answer := post(g, "application/x-ndjson", body.String())
			switch {
			case answer.Accepted+answer.Rejected != n || (status == 400) != (answer.Rejected > 0):
				t.Fatalf("got %d, %d accepted and %d rejected of %d", status, answer.Accepted, answer.Rejected, n)
			case answer.Rejected > 0 && !strings.Contains(answer.Lines[0].Reason, "more than 4096 different columns"):
				t.Errorf("a line is refused because %q", answer.Lines[0].Reason)
			case strings.HasPrefix(name, "another") && answer.Rejected > 0:
				t.Errorf("%d lines of 1,000 columns are refused", answer.Rejected)
			}
			if got := len(stored(h.Memory)); got != answer.Accepted {
				t.Errorf("%d readings are stored, want %d", got, answer.Accepted)
			}
			// What a reader of the log must unpack follows from the text as well.
			cells := 0
			for _, m := range h.Messages(0) {
				if !m.Tick {
					cells += m.Readings.Len() * len(m.Readings.Columns)
				}
			}
			if most := 5 * body.Len(); cells > most {
				t.Errorf("a body of %d bytes takes %d cells in the log, want %d at most", body.Len(), cells, most)
			}
			if n := h.n.Load(); n > 12 {
				t.Errorf("a body of %d bytes took %d syncs", body.Len(), n)
			}
		})
	}
}

// TestBatchAgainstTwin: whatever the readings' columns and however batches are
// joined, each reading keeps its values.
func TestBatchAgainstTwin(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		shared := newShared(new([fleetscore.Shards]int), 1)
		newBatch := func() *batch { return shared.batch(shared.current.Load()) }
		whole, part := newBatch(), newBatch()
		var want []string
		for range rnd.IntN(60) {
			r := &reading{key: fmt.Appendf(nil, "k%d", rnd.IntN(4)), time: fleetscore.Micros(rnd.IntN(1000)), bytes: 10}
			if rnd.IntN(3) == 0 {
				r.id = fmt.Sprint("id", rnd.IntN(9))
			}
			for _, name := range []string{"a", "b", "c"} {
				switch rnd.IntN(4) {
				case 0:
					r.cells = append(r.cells, cell{name: name, number: float64(rnd.IntN(9))})
				case 1:
					r.cells = append(r.cells, cell{name: name, isText: true, text: fmt.Sprint(rnd.IntN(9))})
				}
			}
			want = append(want, fmt.Sprint(string(r.key), r.time, r.id, r.cells))
			r.place, _ = shared.current.Load().find(r.key, uint32(rnd.IntN(4)))
			part.add(r)
			if rnd.IntN(10) == 0 {
				whole.join(part)
				shared.release(part)
				part = newBatch()
			}
		}
		whole.join(part)
		readings := whole.finish(&numbering{})
		for i, text := range want {
			var cells []cell
			for _, name := range []string{"a", "b", "c"} {
				for _, c := range readings.Columns {
					switch {
					case c.Name != name:
					case c.Strings != nil && (c.Present == nil || c.Present[i]):
						cells = append(cells, cell{name: name, isText: true, text: c.Strings[i]})
					case c.Strings == nil && c.Numbers[i] == c.Numbers[i]:
						cells = append(cells, cell{name: name, number: c.Numbers[i]})
					}
				}
			}
			id := ""
			if readings.IDs != nil {
				id = readings.IDs[i]
			}
			if got := fmt.Sprint(string(readings.Keys[readings.KeyIndex[i]]), readings.Times[i], id, cells); got != text {
				t.Fatalf("seed %d: reading %d is %s, want %s", seed, i, got, text)
			}
		}
	}
}
