package hub_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

const childDir = "FLEETSCORE_TEST_HUB_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(appendForEver(dir))
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, dir string, partitions int) hub.Hub {
	t.Helper()
	h, err := hub.Open(t.Context(), hub.Config{Dir: dir, Partitions: partitions}, hub.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func TestLog(t *testing.T) {
	t.Parallel()
	hubtest.Run(t, func(t *testing.T) hub.Hub { return open(t, t.TempDir(), 3) })
}

func TestReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range uint64(3) {
		h := open(t, dir, 2)
		if seq, err := h.Append(t.Context(), 1, hubtest.At(fleetscore.Micros(round)), hubtest.Batch(int(round), 5)); err != nil || seq != round+1 {
			t.Fatalf("append gave %d, %v; want %d", seq, err, round+1)
		}
		got, err := hubtest.ReadN(t.Context(), h, 1, 0, int(round)+1)
		if err != nil || len(got) != int(round)+1 {
			t.Fatalf("read %d messages, %v; want %d", len(got), err, round+1)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPartitionsFixed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, partitions := range []int{4, 2} { // an empty hub may change
		if err := open(t, dir, partitions).Close(); err != nil {
			t.Fatal(err)
		}
	}
	h := open(t, dir, 2)
	if _, err := h.Append(t.Context(), 0, hubtest.At(0), nil); err != nil {
		t.Fatal(err)
	}
	h.Close()
	_, err := hub.Open(t.Context(), hub.Config{Dir: dir, Partitions: 3}, hub.Deps{})
	if !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), "set hub.partitions back to 2") {
		t.Errorf("got %v, want a conflict that says to set hub.partitions back to 2", err)
	}
	open(t, dir, 2) // the failed attempt released the lock
}

func TestFolderInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir, 1)
	_, err := hub.Open(t.Context(), hub.Config{Dir: dir}, hub.Deps{})
	if want := fmt.Sprintf("process %d has it open", os.Getpid()); !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want a conflict with %q", err, want)
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), 1)
	r := hubtest.Batch(0, 1)
	r.Columns[1].Strings[0] = strings.Repeat("x", hub.MaxMessageBytes)
	r.Columns[1].Present = nil
	if _, err := h.Append(t.Context(), 0, hubtest.At(0), r); !fleetscore.Invalid.Is(err) {
		t.Errorf("got %v, want kind invalid", err)
	}
	r.Columns[1].Strings[0] = strings.Repeat("x", hub.MaxMessageBytes-1000)
	if _, err := h.Append(t.Context(), 0, hubtest.At(0), r); err != nil {
		t.Errorf("just below the limit: %v", err)
	}
	if _, err := hubtest.ReadN(t.Context(), h, 0, 0, 1); err != nil {
		t.Errorf("read it back: %v", err)
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	h, err := hub.Open(t.Context(), hub.Config{Dir: t.TempDir(), Retention: time.Second}, hub.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.Append(t.Context(), 0, hubtest.At(0), nil); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		stats, err := h.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if stats[0].Messages == 0 {
			if stats[0].First != 2 || stats[0].Last != 1 {
				t.Errorf("an expired partition has the stats %+v", stats[0])
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the message was not dropped")
		}
		time.Sleep(50 * time.Millisecond) // the engine drops by its own clock and gives no signal
	}
	if _, err := h.Append(t.Context(), 0, hubtest.At(5), nil); err != nil {
		t.Fatal(err)
	}
	got, err := hubtest.ReadN(t.Context(), h, 0, 1, 1)
	if err != nil || got[0].Seq != 2 {
		t.Errorf("read from 1 gave %+v, %v; want sequence 2", got, err)
	}
}

// TestKill kills a process that appends, at random moments, and checks that every
// acknowledged message is there.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acked := map[uint64]bool{}
	var highest uint64
	for round := range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n, stop := 0, 1+rand.IntN(300); lines.Scan(); n++ {
			var seq uint64
			if _, err := fmt.Sscanf(lines.Text(), "acked %d.", &seq); err == nil && strings.HasSuffix(lines.Text(), ".") {
				acked[seq] = true
				highest = max(highest, seq)
			}
			if n == stop {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed

		h := open(t, dir, 1)
		var want uint64 = 1
		got, err := hubtest.ReadN(t.Context(), h, 0, 0, int(highest))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for _, m := range got {
			if m.Seq != want {
				t.Fatalf("round %d: sequence %d where %d was expected; acknowledged: %v", round, m.Seq, want, acked[want])
			}
			if m.Readings.Len() != 20+int(m.Arrived)%1000 {
				t.Errorf("round %d: message %d holds %d readings", round, m.Seq, m.Readings.Len())
			}
			want++
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acked) == 0 {
		t.Fatal("nothing was acknowledged")
	}
	t.Logf("%d acknowledged messages survived 4 kills", len(acked))
}

// appendForEver is the child process of TestKill.
func appendForEver(dir string) int {
	ctx := context.Background()
	h, err := hub.Open(ctx, hub.Config{Dir: dir}, hub.Deps{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := range 100000 {
		seq, err := h.Append(ctx, 0, hubtest.At(fleetscore.Micros(i)), hubtest.Batch(i, 20+i%1000))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Printf("acked %d.\n", seq)
	}
	return 0
}

func openBench(b *testing.B, dir string, partitions int) hub.Hub {
	b.Helper()
	h, err := hub.Open(b.Context(), hub.Config{Dir: dir, Partitions: partitions}, hub.Deps{})
	if err != nil {
		b.Fatal(err)
	}
	return h
}

// TestReadersShareMessages: two readers of a partition get the same decoded readings, as long as they
// are near each other, and right ones whatever they do.
func TestReadersShareMessages(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), 1)
	const first, n, far = 3, 40, 400 // messages: before there are readers; that both read at once; that one reads much later
	write := func(from, to int) {
		var batches []*fleetscore.Readings
		for i := from; i < to; i++ {
			batches = append(batches, hubtest.Batch(i, 2000))
		}
		if _, err := h.Append(t.Context(), 0, hubtest.At(fleetscore.Micros(from)), batches...); err != nil {
			t.Fatal(err)
		}
	}
	type got struct {
		seq uint64
		r   *fleetscore.Readings
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read := func(until uint64, wait <-chan struct{}) <-chan got {
		out := make(chan got, first+n+far)
		go func() {
			defer close(out)
			_ = h.Read(ctx, 0, 1, func(m hub.Message) error { // its error is that the context ended
				out <- got{m.Seq, m.Readings}
				if m.Seq == until {
					<-wait
				}
				return nil
			})
		}()
		return out
	}
	write(0, first)
	released := make(chan struct{})
	a, b := read(0, nil), read(first+n, released)
	var one, other []got
	for range first { // both readers have begun
		one, other = append(one, <-a), append(other, <-b)
	}
	write(first, first+n)
	for range n {
		one, other = append(one, <-a), append(other, <-b)
	}
	for i := first; i < first+n; i++ {
		if one[i].r != other[i].r {
			t.Errorf("message %d was decoded twice", one[i].seq)
		}
	}
	write(first+n, first+n+far)
	for range far {
		one = append(one, <-a)
	}
	close(released)
	for range far {
		other = append(other, <-b)
	}
	for i := range one {
		if one[i].seq != uint64(i+1) || other[i].seq != one[i].seq {
			t.Fatalf("messages %d and %d came, want %d", one[i].seq, other[i].seq, i+1)
		}
		want := hub.Encode(nil, hubtest.At(0), hubtest.Batch(i, 2000))
		if !bytes.Equal(hub.Encode(nil, hubtest.At(0), one[i].r), want) || !bytes.Equal(hub.Encode(nil, hubtest.At(0), other[i].r), want) {
			t.Fatalf("message %d isn't the one that was written", one[i].seq)
		}
	}
	cancel()
	for range a { // until the readers have ended
	}
	for range b {
	}
}
