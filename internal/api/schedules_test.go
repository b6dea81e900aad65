package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// TestDueTimesThatWait: a schedule shows the due times that have come and wait, and the next one
// after them.
func TestDueTimesThatWait(t *testing.T) {
	t.Parallel()
	var l ledger.Ledger
	ask := asks(t, func(opened ledger.Ledger) Deps { l = opened; return Deps{Ledger: l} })
	at := func(hour int) time.Time { return time.Date(2026, 11, 23, hour, 0, 0, 0, time.UTC) }
	cfg := fleetscore.Config{Pipelines: map[string]fleetscore.PipelineConfig{"p": {Schedule: fleetscore.ScheduleConfig{Cron: "0 * * * *", Overlap: fleetscore.OverlapQueueAll}}}}
	if _, err := l.PutConfig(t.Context(), at(0), "text", cfg); err != nil {
		t.Fatal(err)
	}
	put := func(s ledger.ScheduleState) {
		t.Helper()
		if _, err := l.DecideSchedule(t.Context(), "p", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
			s.Pipeline, s.Created = "p", at(0)
			return ledger.ScheduleDecision{State: s}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		state   ledger.ScheduleState
		waiting []time.Time
		next    time.Time
	}{
		{ledger.ScheduleState{LastDue: at(9)}, nil, at(10)},
		{ledger.ScheduleState{LastDue: at(9), Queued: at(11)}, []time.Time{at(10), at(11)}, at(12)},
		{ledger.ScheduleState{LastDue: at(9), CatchUp: at(10), Queued: at(12)}, []time.Time{at(10), at(11), at(12)}, at(13)},
		{ledger.ScheduleState{LastDue: at(9), CatchUp: at(11), Queued: at(8)}, []time.Time{at(10), at(11)}, at(12)},
	} {
		put(c.state)
		w := ask(http.MethodGet, "/schedules", "")
		var got List[Schedule]
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Items) != 1 {
			t.Fatalf("%s: %v", w.Body, err)
		}
		if s := got.Items[0]; !slices.EqualFunc(s.Waiting, c.waiting, time.Time.Equal) || s.NextDue == nil || !s.NextDue.Equal(c.next) {
			t.Errorf("%+v: waiting %v, next %v; want %v and %v", c.state, s.Waiting, s.NextDue, c.waiting, c.next)
		}
	}
}
