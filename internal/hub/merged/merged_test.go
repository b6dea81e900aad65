package merged

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logOf is a hub with ticks of some arrivals in each partition.
func logOf(t *testing.T, partitions ...[]fleetscore.Micros) hub.Hub {
	t.Helper()
	h := hubtest.New(len(partitions))
	for p, list := range partitions {
		for _, at := range list {
			if _, err := h.Append(t.Context(), p, hub.Stamp{Source: "http", Arrived: at}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	return h
}

// TestRange: messages come in the order of their arrivals, equal ones in the order of the partitions, and from and to the
// sequences that are asked for.
func TestRange(t *testing.T) {
	t.Parallel()
	h := logOf(t, []fleetscore.Micros{10, 20, 30}, []fleetscore.Micros{20, 20, 25, 99}, nil)
	for _, tt := range []struct {
		from, to []uint64
		want     []string
	}{
		{[]uint64{0, 0, 0}, []uint64{3, 4, 0}, []string{"0/1", "0/2", "1/1", "1/2", "1/3", "0/3", "1/4"}},
		{[]uint64{2, 2, 1}, []uint64{3, 3, 0}, []string{"0/2", "1/2", "1/3", "0/3"}},
		{[]uint64{4, 1, 1}, []uint64{3, 1, 0}, []string{"1/1"}},
	} {
		var got []string
		if err := Range(t.Context(), h, tt.from, tt.to, func(m hub.Message) error {
			got = append(got, fmt.Sprintf("%d/%d", m.Partition, m.Seq))
			return nil
		}); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("from %v to %v: got %v, %v; want %v", tt.from, tt.to, got, err, tt.want)
		}
	}
}

// TestRead: no message is handed on before every partition has one.
func TestRead(t *testing.T) {
	t.Parallel()
	h := logOf(t, []fleetscore.Micros{10, 20}, []fleetscore.Micros{15})
	got := make(chan hub.Message)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Read(ctx, h, []uint64{0, 0}, func(m hub.Message) error { got <- m; return nil })
	}()
	for _, want := range []fleetscore.Micros{10, 15} {
		if m := <-got; m.Arrived != want {
			t.Errorf("got %d, want %d", m.Arrived, want)
		}
	}
	if _, err := h.Append(t.Context(), 1, hub.Stamp{Source: "http", Arrived: 17}, nil); err != nil { // 20 must have waited for it
		t.Fatal(err)
	}
	if m := <-got; m.Arrived != 17 {
		t.Errorf("got %d, want 17", m.Arrived)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// broken is a hub of which one partition can't be read.
type broken struct{ hub.Hub }

var errBroken = errors.New("the disk is broken")

func (b broken) Read(ctx context.Context, partition int, from uint64, fn func(hub.Message) error) error {
	if partition == 1 {
		return errBroken
	}
	return b.Hub.Read(ctx, partition, from, fn)
}

// TestErrors: an error of the function, or of a partition, ends the reading and is returned.
func TestErrors(t *testing.T) {
	t.Parallel()
	h := logOf(t, []fleetscore.Micros{10, 20}, []fleetscore.Micros{15})
	mine := errors.New("mine")
	for _, want := range []error{mine, hub.ErrEnough} {
		err := Read(t.Context(), h, []uint64{0, 0}, func(hub.Message) error { return want })
		if want == hub.ErrEnough {
			want = nil
		}
		if err != want {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if err := Read(t.Context(), broken{h}, []uint64{0, 0}, func(hub.Message) error { return nil }); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want %v", err, errBroken)
	}
}
