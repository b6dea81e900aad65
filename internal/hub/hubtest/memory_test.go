package hubtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	t.Parallel()
	hubtest.Run(t, func(*testing.T) hub.Hub { return hubtest.New(3) })
}

func TestMemoryExpire(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	for range 5 {
		if _, err := h.Append(t.Context(), 0, hubtest.At(0), nil); err != nil {
			t.Fatal(err)
		}
	}
	h.Expire(0, 4)
	got, err := hubtest.ReadN(t.Context(), h, 0, 1, 2)
	if err != nil || got[0].Seq != 4 {
		t.Errorf("first message is %+v (%v), want sequence 4", got, err)
	}
}
