package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
)

// health remembers the last report of each part.
type health struct {
	mu    sync.Mutex // guards what follows
	parts map[string]string
}

func (h *health) Report(part, problem string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.parts == nil {
		h.parts = map[string]string{}
	}
	h.parts[part] = problem
}

func (h *health) Warn(part, text string) { h.Report(part, text) }

func (h *health) get(part string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.parts[part]
}

func openOn(t *testing.T, d *memDisk, partitions int) (*segmentLog, *health) {
	t.Helper()
	told := &health{}
	h, err := open(t.Context(), Config{Dir: "/hub", Partitions: partitions, segmentBytes: 500}, Deps{Health: told}, d)
	if err != nil {
		t.Fatal(err)
	}
	return h, told
}

// message makes a message with a number that no other message has.
func message(n int) *fleetscore.Readings {
	return &fleetscore.Readings{Keys: []fleetscore.Key{"a"}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{fleetscore.Micros(n)},
		Columns: []fleetscore.ReadingColumn{{Name: "Note", Strings: []string{strings.Repeat("x", 20+n%50)}}}}
}

func appendMessage(ctx context.Context, h Hub, partition, n int) (uint64, error) {
	return h.Append(ctx, partition, Stamp{Source: "http", Arrived: fleetscore.Micros(n)}, message(n))
}

func mustAppendMessage(t *testing.T, h Hub, partition, n int) uint64 {
	t.Helper()
	seq, err := appendMessage(t.Context(), h, partition, n)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

var errEnough = errors.New("enough")

// readTo reads the numbers of a partition's messages up to a sequence, by sequence.
func readTo(t *testing.T, h Hub, partition int, last uint64) map[uint64]int {
	t.Helper()
	got := map[uint64]int{}
	err := h.Read(t.Context(), partition, 0, func(m Message) error {
		if _, there := got[m.Seq]; there {
			t.Errorf("message %d came twice", m.Seq)
		}
		got[m.Seq] = int(m.Arrived)
		if m.Seq >= last {
			return errEnough
		}
		return nil
	})
	if err != errEnough {
		t.Fatalf("read: %v", err)
	}
	return got
}

// TestDiskFails: whichever operation fails, and for however long, an append fails at
// once with an error, the health reports the failure, and the next append succeeds as
// soon as the disk works again. Nothing acknowledged is lost, and no sequence is used
// twice.
func TestDiskFails(t *testing.T) {
	t.Parallel()
	for _, ops := range []string{"write", "sync", "create", "syncdir", "write sync create syncdir mkdir rename remove", "open read list write sync create"} {
		for _, cause := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS} {
			t.Run(ops+" "+cause.Error(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					d, fault := newMemDisk(), &failing{}
					d.hook = fault.hook
					h, told := openOn(t, d, 1)
					defer h.Close()
					acked := map[uint64]int{}
					n := 0
					for range 5 {
						n++
						acked[mustAppendMessage(t, h, 0, n)] = n
					}
					fault.set(ops, cause)
					start := time.Now()
					for failed := 0; failed < 40; n++ { // the first append may write into a segment with room, and then needs no new segment
						seq, err := appendMessage(t.Context(), h, 0, n+1000)
						if err == nil {
							acked[seq] = n + 1000
							continue
						}
						failed++
						want := fleetscore.Unavailable
						if cause == syscall.ENOSPC {
							want = fleetscore.Exhausted
						}
						if !want.Is(err) {
							t.Fatalf("append to a broken disk: %v, want kind %v", err, want)
						}
						if told.get("hub") == "" {
							t.Fatal("the health says nothing")
						}
						time.Sleep(time.Second) // of the fake clock: 40 s in all
					}
					if d := time.Since(start); d > 42*time.Second {
						t.Errorf("40 failures took %s beside the pauses of 40 s", d)
					}
					fault.set("", nil)
					for range 5 {
						n++
						acked[mustAppendMessage(t, h, 0, n)] = n
					}
					if told.get("hub") != "" {
						t.Errorf("the disk works again, the health says %q", told.get("hub"))
					}
					last := slices.Max(slices.Collect(maps.Keys(acked)))
					if got := readTo(t, h, 0, last); !maps.Equal(got, acked) {
						t.Errorf("read %v, want %v", got, acked)
					}
					if err := h.Close(); err != nil {
						t.Fatal(err)
					}
					for range 20 { // all acknowledged messages are durable too
						again, _ := openOn(t, d.cut(rand.New(rand.NewPCG(1, 2))), 1)
						if got := readTo(t, again, 0, last); !maps.Equal(got, acked) {
							t.Errorf("after a power cut: read %v, want %v", got, acked)
						}
						if s, _ := again.Stats(t.Context()); len(s[0].Damage) > 0 {
							t.Errorf("damage where there is none: %+v", s[0].Damage)
						}
						again.Close()
					}
				})
			})
		}
	}
}

// TestOldFilesStay: when old files can't be removed, the log says so once and then at growing distances, nothing
// of what is there is lost, and the files go as soon as the disk lets them.
func TestOldFilesStay(t *testing.T) {
	t.Parallel()
	for _, ops := range []string{"remove", "create write sync", "remove create write sync"} {
		t.Run(ops, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d, fault := newMemDisk(), &failing{}
				d.hook = fault.hook
				var told strings.Builder // by one goroutine at a time
				trouble := new(lifecycle.Outages).Trouble(slog.New(slog.NewTextHandler(&told, nil)))
				h, err := open(t.Context(), Config{Dir: "/hub", Retention: time.Hour, segmentBytes: 500}, Deps{Trouble: func() Trouble { return &trouble }}, d)
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				first := func() uint64 {
					s, err := h.Stats(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					return s[0].First
				}
				for n := range 20 {
					if _, err := h.Append(t.Context(), 0, Stamp{Source: "http", Arrived: fleetscore.MicrosOf(time.Now())}, message(n)); err != nil {
						t.Fatal(err)
					}
				}
				fault.set(ops, syscall.EIO)
				time.Sleep(24 * time.Hour)
				if got := first(); got != 1 {
					t.Fatalf("the log begins with message %d", got)
				}
				if got := len(readTo(t, h, 0, 20)); got != 20 {
					t.Errorf("%d of 20 messages can be read", got)
				}
				if n := strings.Count(told.String(), "can't be removed yet"); n < 2 || n > 10 {
					t.Errorf("a day without a removal is told %d times:\n%s", n, told.String())
				}
				fault.set("", nil)
				time.Sleep(2 * time.Minute)
				if got := first(); got != 21 {
					t.Errorf("the log begins with message %d though the disk works again", got)
				}
				if n := strings.Count(told.String(), "can be removed again"); n != 1 {
					t.Errorf("the end is told %d times:\n%s", n, told.String())
				}
			})
		})
	}
}

// TestDiskHangs: while a write doesn't end, the first append fails after seconds,
// later appends fail at once, and the log closes in time. When the disk goes on, the
// log goes on too.
func TestDiskHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		h, _ := openOn(t, d, 2)
		mustAppendMessage(t, h, 0, 1)
		release := make(chan struct{})
		hang := func(op, name string) error {
			if op == "sync" && strings.Contains(name, "p000") {
				<-release
			}
			return nil
		}
		d.mu.Lock()
		d.hook = hang
		d.mu.Unlock()
		for i, want := range []time.Duration{answerLimit, 0, 0} {
			start := time.Now()
			if _, err := appendMessage(t.Context(), h, 0, 2); !fleetscore.Unavailable.Is(err) || time.Since(start) != want {
				t.Errorf("append %d: %v after %s, want unavailable after %s", i, err, time.Since(start), want)
			}
		}
		mustAppendMessage(t, h, 1, 7) // the other partition's file works
		close(release)
		synctest.Wait()
		seq := mustAppendMessage(t, h, 0, 3)
		if got := readTo(t, h, 0, seq); got[1] != 1 || got[seq] != 3 {
			t.Errorf("read %v", got)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestPowerCuts cuts the power before and after every single operation of a run with
// appends, new segments, failed syncs, closings and openings. Every message that was
// acknowledged before the cut is there unchanged, and no damage is reported.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			d := newMemDisk()
			var mu sync.Mutex // guards what follows
			acked := [2]map[uint64]int{{}, {}}
			cuts, failNext := 0, false
			check := func() {
				cuts++
				again, told := openOn(t, d.cut(rnd), 2)
				defer again.Close()
				for p := range 2 {
					want := acked[p]
					last := uint64(mustAppendMessage(t, again, p, 9999))
					got := readTo(t, again, p, last)
					for seq, n := range want {
						if got[seq] != n {
							t.Errorf("cut %d: partition %d message %d is %d, want %d; read %v", cuts, p, seq, got[seq], n, got)
						}
					}
				}
				if text := told.get("hub log"); text != "" {
					t.Errorf("cut %d: damage where there is none: %s", cuts, text)
				}
			}
			d.hook = func(op, name string) error {
				mu.Lock()
				defer mu.Unlock()
				switch op {
				case "read", "open", "list", "free":
					return nil
				}
				check()
				if op == "sync" && failNext && !strings.HasSuffix(name, markName) {
					failNext = false
					return errDevice
				}
				return nil
			}
			n := 0
			for range 3 {
				h, err := open(t.Context(), Config{Dir: "/hub", Partitions: 2, segmentBytes: 500}, Deps{}, d)
				if err != nil {
					t.Fatal(err)
				}
				for range 12 {
					n++
					p := rnd.IntN(2)
					mu.Lock()
					failNext = rnd.IntN(5) == 0
					mu.Unlock()
					seq, err := appendMessage(t.Context(), h, p, n)
					mu.Lock()
					if err == nil {
						acked[p][seq] = n
					}
					failNext = false
					mu.Unlock()
				}
				if err := h.Close(); err != nil {
					t.Fatal(err)
				}
			}
			mu.Lock()
			check()
			mu.Unlock()
			if cuts < 100 || len(acked[0]) == 0 || len(acked[1]) == 0 {
				t.Errorf("only %d cuts, %d and %d messages", cuts, len(acked[0]), len(acked[1]))
			}
		})
	}
}

// written makes a log of two partitions with several segments, written during three
// openings.
func written(t *testing.T) (d *memDisk, want [2]map[uint64]int) {
	d, want = newMemDisk(), [2]map[uint64]int{{}, {}}
	n := 0
	for range 3 {
		h, _ := openOn(t, d, 2)
		for range 8 {
			for p := range 2 {
				n++
				want[p][mustAppendMessage(t, h, p, n)] = n
			}
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return d, want
}

// hurt opens a damaged log and returns how many messages of each partition are lost.
// It checks that each lost message is reported, that the other messages are
// unchanged, and that no sequence is used again.
func hurt(t *testing.T, what string, d *memDisk, want [2]map[uint64]int) (lost [2]int, told *health) {
	t.Helper()
	h, told := openOn(t, d, 2)
	defer h.Close()
	for p := range 2 {
		last := slices.Max(slices.Collect(maps.Keys(want[p])))
		next := mustAppendMessage(t, h, p, 5000)
		if next <= last {
			t.Errorf("%s: sequence %d is used again", what, next)
		}
		got := readTo(t, h, p, next)
		stats, err := h.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for seq, n := range want[p] {
			if got[seq] == n {
				continue
			}
			lost[p]++
			if got[seq] != 0 {
				t.Errorf("%s: partition %d message %d is %d, want %d", what, p, seq, got[seq], n)
			}
			said := slices.ContainsFunc(stats[p].Damage, func(x Damage) bool { return x.First <= seq && seq <= x.Last })
			if !said || told.get("hub log") == "" {
				t.Errorf("%s: partition %d message %d is lost and not reported: %+v", what, p, seq, stats[p].Damage)
			}
		}
		if s := stats[p]; int(s.Messages) != len(got) {
			t.Errorf("%s: partition %d has %d messages by its stats, %d were read", what, p, s.Messages, len(got))
		}
	}
	return lost, told
}

// TestFlippedBits flips a bit in every byte of every file. Each flip loses at most
// one message, and every lost message is reported.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	d, want := written(t)
	flips, losses := 0, 0
	for name, f := range d.files() {
		for i := range f.data {
			hit := d.clone()
			hit.files()[name].data[i] ^= 1 << (i % 8)
			what := fmt.Sprintf("%s, byte %d of %d", name, i, len(f.data))
			lost, _ := hurt(t, what, hit, want)
			if n := lost[0] + lost[1]; n > 1 || n > 0 && !strings.HasSuffix(name, segmentSuffix) {
				t.Errorf("%s: %v messages are lost", what, lost)
			} else {
				losses += n
			}
			flips++
		}
	}
	if flips < 3000 || losses < flips/2 {
		t.Errorf("%d flips hit %d messages", flips, losses)
	}
}

// TestTruncated cuts every file short, at every byte, and removes it. Only the
// messages in the cut part are lost.
func TestTruncated(t *testing.T) {
	t.Parallel()
	d, want := written(t)
	for name, f := range d.files() {
		for size := -1; size < len(f.data); size++ {
			hit := d.clone()
			what := fmt.Sprintf("%s cut to %d of %d", name, size, len(f.data))
			if size < 0 {
				delete(hit.dirs[filepath.Dir(name)].names, filepath.Base(name))
				what = name + " removed"
			} else {
				file := hit.files()[name]
				file.data = file.data[:size]
			}
			lost, _ := hurt(t, what, hit, want)
			here := 0
			if strings.HasSuffix(name, segmentSuffix) {
				here = recordsAfter(f.data, size)
			}
			if n := lost[0] + lost[1]; n != here {
				t.Errorf("%s: %v messages are lost, the cut part held %d", what, lost, here)
			}
		}
	}
}

// recordsAfter counts the records that end after a size.
func recordsAfter(segment []byte, size int) (n int) {
	c := &cursor{f: &memHandle{d: newMemDisk(), f: &memFile{data: segment}}, offset: segmentHeader, end: int64(len(segment))}
	for {
		if _, err := c.next(); err != nil {
			return n
		}
		if c.offset > int64(size) {
			n++
		}
	}
}

// TestFolderLost: the loss of a partition's folder, or of all its segments, is
// reported, and the log goes on.
func TestFolderLost(t *testing.T) {
	t.Parallel()
	d, _ := written(t)
	gone := d.clone()
	delete(gone.dirs, "/hub/p001")
	delete(gone.dirs["/hub"].names, "p001")
	h, told := openOn(t, gone, 2)
	defer h.Close()
	if !strings.Contains(told.get("hub log"), "p001 is gone") {
		t.Errorf("the health says %q", told.get("hub log"))
	}
	if seq := mustAppendMessage(t, h, 1, 1); seq != 1 {
		t.Errorf("the first message has sequence %d", seq)
	}

	empty := d.clone()
	for name := range empty.files() {
		if strings.HasPrefix(name, "/hub/p001/") && strings.HasSuffix(name, segmentSuffix) {
			delete(empty.dirs["/hub/p001"].names, filepath.Base(name))
		}
	}
	h2, told := openOn(t, empty, 2)
	defer h2.Close()
	if seq := mustAppendMessage(t, h2, 1, 1); seq != 25 || !strings.Contains(told.get("hub log"), "messages 1 to 24 are lost") {
		t.Errorf("the first message has sequence %d, want 25; the health says %q", seq, told.get("hub log"))
	}
}

// TestForgedRecord: a text that looks like a record is not taken for a record, even
// if damage makes the log search for the next record inside a message.
func TestForgedRecord(t *testing.T) {
	t.Parallel()
	d := newMemDisk()
	h, _ := openOn(t, d, 1)
	forged := Encode(make([]byte, recordHeader), Stamp{Source: "http"}, message(666))
	fillRecordHeader(forged, 2, 12345)
	r := message(1)
	r.Columns[0].Strings[0] = string(forged)
	if _, err := h.Append(t.Context(), 0, Stamp{Source: "http", Arrived: 1}, r); err != nil {
		t.Fatal(err)
	}
	mustAppendMessage(t, h, 0, 2)
	h.Close()
	name := "/hub/p000/" + segmentName(1)
	d.files()[name].data[segmentHeader] ^= 1 // the header of the first record
	again, _ := openOn(t, d, 1)
	defer again.Close()
	if got := readTo(t, again, 0, 2); len(got) != 1 || got[2] != 2 {
		t.Errorf("read %v, want message 2 alone", got)
	}
}

// TestDiskFull: the hub leaves some room on the disk, warns before that room is
// reached, and goes on when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	d := &roomDisk{memDisk: newMemDisk(), left: lowBytes}
	told := &health{}
	h, err := open(t.Context(), Config{Dir: "/hub"}, Deps{Health: told}, d)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	mustAppendMessage(t, h, 0, 1)
	if told.get("hub disk") != "" {
		t.Errorf("there is a warning about a disk with room: %s", told.get("hub disk"))
	}
	d.left = lowBytes - 1
	mustAppendMessage(t, h, 0, 1)
	if !strings.Contains(told.get("hub disk"), "less than 1024 MB are left") {
		t.Errorf("the health says %q of a disk that is nearly full", told.get("hub disk"))
	}
	d.left = reserveBytes - 1
	if _, err := appendMessage(t.Context(), h, 0, 2); !fleetscore.Exhausted.Is(err) || told.get("hub") == "" {
		t.Errorf("append to a full disk: %v, health %q; want kind exhausted", err, told.get("hub"))
	}
	d.left = lowBytes
	if seq := mustAppendMessage(t, h, 0, 3); seq != 3 || told.get("hub") != "" || told.get("hub disk") != "" {
		t.Errorf("once there is room: %d, %q, %q", seq, told.get("hub"), told.get("hub disk"))
	}
}

type roomDisk struct {
	*memDisk
	left uint64
}

func (d *roomDisk) free(string) (uint64, error) { return d.left, nil }
