package aggregator

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/query/stream"
)

// TestReplayEqualsLaboratory: a replay makes the rows of an interval that the laboratory makes
// when nothing is late, of two partitions with the same readings of different keys, and of messages
// in which the readings lie in any order.
func TestReplayEqualsLaboratory(t *testing.T) {
	t.Parallel()
	simple := wholeQueries[0]
	simple.name, simple.sql = "simple", "SELECT System.Timestamp() AS TS, Device, SUM(Value) AS A, COUNT(*) AS B INTO d FROM hub TIMESTAMP BY TS WHERE Value > 1 GROUP BY Device, HoppingWindow(second, 10, 5)"
	for _, q := range slices.Concat(wholeQueries, groupQueries, []wholeQuery{simple}) {
		t.Run(q.name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				log := logOf(t)
				plans, err := query.Parse(q.sql, []string{"Device"})
				if err != nil {
					t.Fatal(err)
				}
				from := 990*second + fleetscore.Micros(rapid.IntRange(0, 60).Draw(t, "from"))*second
				to := from + fleetscore.Micros(rapid.IntRange(1, 60).Draw(t, "seconds"))*second
				r := Replay{Name: "q", Plan: plans[0], Key: []string{"Device"}, Interval: fleetscore.Interval{From: from.Time(), To: to.Time()}, References: versions{}}
				half := func(key fleetscore.Key) History {
					return func(_ context.Context, _ fleetscore.Micros, fn func(hub.Message) error) error {
						for _, m := range log {
							if !m.Tick {
								m.Readings = only(m.Readings, key)
							}
							if err := fn(m); err != nil {
								return err
							}
						}
						return nil
					}
				}
				got, err := r.Run(t.Context(), []History{half("a"), half("b")})
				if err != nil {
					t.Fatal(err)
				}
				var want []string
				sql := strings.Replace(q.sql, "limits.Device = hub.Device", "limits.Device = hub.Device"+q.lab, 1)
				for _, line := range laboratory(t, sql, log, stream.Policy{Late: 1000 * time.Hour, Disorder: 1000 * time.Hour, Early: maxEarly, Drop: true}) {
					text, _, _ := strings.Cut(line, " ")
					if at, err := time.Parse(time.RFC3339Nano, text); err != nil {
						t.Fatal(err)
					} else if r.Interval.Contains(at) {
						want = append(want, line)
					}
				}
				slices.Sort(want)
				rows := listed(got.Rows)
				slices.Sort(rows)
				if d := gocmp.Diff(want, rows); d != "" {
					t.Fatalf("rows (-laboratory +replay):\n%s", d)
				}
			})
		})
	}
}

// only are the readings of one key.
func only(r *fleetscore.Readings, key fleetscore.Key) *fleetscore.Readings {
	out := &fleetscore.Readings{Keys: []fleetscore.Key{key}, Columns: []fleetscore.ReadingColumn{{Name: "Value"}}}
	for i, k := range r.KeyIndex {
		if r.Keys[k] == key {
			out.KeyIndex, out.Times = append(out.KeyIndex, 0), append(out.Times, r.Times[i])
			out.Columns[0].Numbers = append(out.Columns[0].Numbers, r.Columns[0].Numbers[i])
		}
	}
	return out
}

// TestReplayOfHub: a replay reads of a hub no more than it needs, counts repeats once, and
// refuses what needs more memory than it may use.
func TestReplayOfHub(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	begin(t, h)
	for i := range fleetscore.Micros(60) {
		s := sent{"d", (100 + i) * minute, (100 + i) * minute, 1}
		send(t, h, s, s)
	}
	plans, err := query.Parse(config.Query.SQL, []string{"Device"})
	if err != nil {
		t.Fatal(err)
	}
	inOrder, err := query.ParseInOrder(config.Query.SQL, []string{"Device"})
	if err != nil {
		t.Fatal(err)
	}
	for name, plan := range map[string]*query.Plan{"in windows": plans[0], "in order": inOrder[0]} {
		r := Replay{Name: "q", Plan: plan, Key: []string{"Device"}, Interval: fleetscore.Interval{From: (120 * minute).Time(), To: (130 * minute).Time()}}
		read := 0
		of := HistoryOf(h, 0, 1)
		counted := func(ctx context.Context, after fleetscore.Micros, fn func(hub.Message) error) error {
			return of(ctx, after, func(m hub.Message) error { read++; return fn(m) })
		}
		got, err := r.Run(t.Context(), []History{counted})
		if err != nil || got.Rows.Len() != 10 || got.Readings != 11 || got.Repeats != 11 { // one might be in the first window
			t.Errorf("%s: %v: %d rows of %d readings with %d repeats, want 10, 11 and 11", name, err, got.Rows.Len(), got.Readings, got.Repeats)
		}
		if read > 2*(60-20+6) {
			t.Errorf("%s: %d messages were read", name, read)
		}
		r.MaxHeldBytes = 500
		if _, err := r.Run(t.Context(), []History{of}); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), "memory") {
			t.Errorf("%s: with little memory: %v", name, err)
		}
	}
}

// TestReplayOfSessions: where a session is cut depends on where the first of a chain of sessions began, however long before the interval, so that
// all readings before it are read. If these need too much memory, a shorter interval doesn't help, and isn't advised.
func TestReplayOfSessions(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	begin(t, h)
	for s := fleetscore.Micros(6003); s <= 6180; s += 3 {
		send(t, h, sent{"d", s * second, s * second, 1})
	}
	plans, err := query.Parse("SELECT System.Timestamp() AS TS, Device, COUNT(*) AS N INTO d FROM hub TIMESTAMP BY TS GROUP BY Device, SessionWindow(second, 5, 10) OVER (PARTITION BY Device)", []string{"Device"})
	if err != nil {
		t.Fatal(err)
	}
	r := Replay{Name: "q", Plan: plans[0], Key: []string{"Device"}, Interval: fleetscore.Interval{From: (6155 * second).Time(), To: (6175 * second).Time()}}
	got, err := r.Run(t.Context(), []History{HistoryOf(h, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff([]fleetscore.Micros{6160 * second}, got.Rows.Times); d != "" { // cut at 6020, 6040 and so on
		t.Errorf("rows (-want +got):\n%s", d)
	}
	r.MaxHeldBytes = 500
	if _, err := r.Run(t.Context(), []History{HistoryOf(h, 0, 1)}); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), "memory") || strings.Contains(err.Error(), "shorter") {
		t.Errorf("with little memory: %v", err)
	}
}
