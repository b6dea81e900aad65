package journal_test

import (
	"context"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/journal"
)

func open(t *testing.T) store.Bucket {
	t.Helper()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTakeOver: who took a journal over last writes; whoever had it before can't, and what it
// wanted to write is nowhere.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	b := open(t)
	if got, err := journal.Last[[]int](t.Context(), b, "j/"); got != nil || err != nil {
		t.Errorf("an empty journal: %v, %v", got, err)
	}
	first, state, err := journal.Take[[]int](t.Context(), b, "j/")
	if state != nil || err != nil {
		t.Fatalf("an empty journal: %v, %v", state, err)
	}
	for i := range 150 { // more than are kept
		if err := first.Put(t.Context(), []int{i}); err != nil {
			t.Fatal(err)
		}
	}
	second, state, err := journal.Take[[]int](t.Context(), b, "j/")
	if !slices.Equal(state, []int{149}) || err != nil {
		t.Fatalf("taken over: %v, %v", state, err)
	}
	for range 2 {
		if err := first.Put(t.Context(), []int{149}); !fleetscore.Conflict.Is(err) {
			t.Errorf("the writer before: %v, want kind conflict", err)
		}
	}
	if err := second.Put(t.Context(), []int{150}); err != nil {
		t.Error(err)
	}
	if got, err := journal.Last[[]int](t.Context(), b, "j/"); !slices.Equal(got, []int{150}) || err != nil {
		t.Errorf("at the end: %v, %v", got, err)
	}
	n := 0
	for range b.List(t.Context(), "j/", store.ListOptions{}) {
		n++
	}
	if n != 100 {
		t.Errorf("%d states are kept, want 100", n)
	}
}

// TestTakenAtOnce: of processes that take a journal at the same time, one writes.
func TestTakenAtOnce(t *testing.T) {
	t.Parallel()
	b := open(t)
	var mu sync.Mutex
	wrote := 0
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			j, _, err := journal.Take[int](t.Context(), b, "j/")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			switch err := j.Put(t.Context(), i+1); {
			case err == nil:
				wrote++
			case !fleetscore.Conflict.Is(err):
				t.Error(err)
			}
		})
	}
	all.Wait()
	got, err := journal.Last[int](t.Context(), b, "j/")
	if wrote == 0 || got == 0 || err != nil {
		t.Errorf("%d writers wrote, the last state is %d, %v", wrote, got, err)
	}
}

// unheard writes, and then loses the answer.
type unheard struct {
	store.Bucket
	lose bool
}

func (u *unheard) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt store.PutOptions) (store.Info, error) {
	info, err := u.Bucket.Put(ctx, name, body, opt)
	if u.lose && err == nil {
		u.lose, err = false, fleetscore.Errorf(fleetscore.Unavailable, "write", string(name), "the answer was lost")
	}
	return info, err
}

// TestLostAnswer: a state whose answer was lost is recognised when it is written again.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	u := &unheard{Bucket: open(t)}
	j, _, err := journal.Take[int](t.Context(), u, "j/")
	if err != nil {
		t.Fatal(err)
	}
	u.lose = true
	if err := j.Put(t.Context(), 1); !fleetscore.Unavailable.Is(err) {
		t.Fatalf("the answer wasn't lost: %v", err)
	}
	for _, state := range []int{1, 2} {
		if err := j.Put(t.Context(), state); err != nil {
			t.Errorf("state %d: %v", state, err)
		}
	}
	if got, err := journal.Last[int](t.Context(), u, "j/"); got != 2 || err != nil {
		t.Errorf("the last state is %d, %v", got, err)
	}
}
