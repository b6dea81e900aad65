package ledgertest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// testScales: samples come back by pool and time, old ones of every pool go, and only
// the newest evaluations are kept.
func testScales(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	sample := func(after time.Duration, n float64) autoscale.Sample {
		return autoscale.Sample{At: noon.Add(after), Values: map[string]float64{"$PendingTasks": n}}
	}
	add := func(pool string, s autoscale.Sample, keep time.Time) {
		t.Helper()
		if err := l.AddSample(ctx, pool, s, keep); err != nil {
			t.Fatal(err)
		}
	}
	add("gpu", sample(0, 9), time.Time{})
	add("cpu", sample(time.Minute, 2), time.Time{})
	add("cpu", sample(0, 1), time.Time{})
	add("cpu", sample(time.Minute, 3), time.Time{}) // the same time again: it replaces
	if d := cmp.Diff([]autoscale.Sample{sample(0, 1), sample(time.Minute, 3)}, must[[]autoscale.Sample](t)(l.Samples(ctx, "cpu", noon))); d != "" {
		t.Errorf("samples (-want +got):\n%s", d)
	}
	if got := must[[]autoscale.Sample](t)(l.Samples(ctx, "cpu", noon.Add(time.Second))); len(got) != 1 {
		t.Errorf("since a second later there are %v, want one", got)
	}
	add("cpu", sample(2*time.Minute, 4), noon.Add(time.Minute))
	if cpu, gpu := must[[]autoscale.Sample](t)(l.Samples(ctx, "cpu", time.Time{})), must[[]autoscale.Sample](t)(l.Samples(ctx, "gpu", time.Time{})); len(cpu) != 2 || len(gpu) != 0 {
		t.Errorf("kept are %v and %v, want two and none", cpu, gpu)
	}

	e := autoscale.Evaluation{At: noon, Formula: "f", Targets: map[string]int64{"$TargetDedicatedNodes": 2}, Option: "requeue", Nodes: 1,
		Variables: map[string]any{"x": 1.5, "v": []any{1.0, 2.0}, "s": "text"}, Service: map[string]float64{"$PendingTasks": 3}, Result: "r",
		Problem: &autoscale.EvaluationError{Code: "c", Line: 1, Column: 2, Message: "m", Hint: "h"}}
	for i := range ledger.KeptEvaluations + 2 {
		e.Nodes = i
		if err := l.AddEvaluation(ctx, "cpu", e); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]autoscale.Evaluation{e}, must[[]autoscale.Evaluation](t)(l.Evaluations(ctx, "cpu", 1))); d != "" {
		t.Errorf("newest evaluation (-want +got):\n%s", d)
	}
	all := must[[]autoscale.Evaluation](t)(l.Evaluations(ctx, "cpu", 2*ledger.KeptEvaluations))
	if len(all) != ledger.KeptEvaluations || all[len(all)-1].Nodes != 2 {
		t.Errorf("%d evaluations are kept, want %d without the two oldest", len(all), ledger.KeptEvaluations)
	}
	if got := must[[]autoscale.Evaluation](t)(l.Evaluations(ctx, "gpu", 9)); len(got) != 0 {
		t.Errorf("another pool has %v", got)
	}
}

// testCosts: what was measured last comes back, by pipeline.
func testCosts(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	put := func(pipeline string, m dispatch.Measured) {
		t.Helper()
		if err := l.PutCosts(ctx, pipeline, m); err != nil {
			t.Fatal(err)
		}
	}
	want := dispatch.Measured{Of: fleetscore.DigestOf([]byte("f")), Job: "p-2", Rows: 7, Shards: []dispatch.Cost{{Shard: 3, Keys: 2, Load: time.Second, Score: 1}}}
	put("p", dispatch.Measured{Job: "p-1"})
	put("p", want)
	put("other", dispatch.Measured{Job: "other-1"})
	if d := cmp.Diff(want, must[dispatch.Measured](t)(l.Costs(ctx, "p"))); d != "" {
		t.Errorf("costs (-want +got):\n%s", d)
	}
	if got := must[dispatch.Measured](t)(l.Costs(ctx, "new")); got.Job != "" {
		t.Errorf("a pipeline without jobs has costs: %+v", got)
	}
}

// testRejects: a message that comes again is one entry, pages go on where they ended, a message that came again isn't
// removed with what was read before, and only so many are kept.
func testRejects(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	entry := func(text string, after int) ledger.Rejected {
		return ledger.Rejected{Source: fleetscore.SourceMQTT, Topic: "t", From: "f", Owner: "o", Reason: "r" + text, Arrived: noon.Add(time.Duration(after) * time.Second), Text: []byte(text)}
	}
	var newest ledger.Rejected
	wide := ledger.RejectsBound{Count: 100, Bytes: 1 << 20}
	put := func(b ledger.RejectsBound, list ...ledger.Rejected) {
		t.Helper()
		if err := l.PutRejected(ctx, list, b); err != nil {
			t.Fatal(err)
		}
	}
	texts := func(before ledger.Rejected, limit int) (out string) {
		t.Helper()
		for _, r := range must[[]ledger.Rejected](t)(l.Rejected(ctx, before, limit)) {
			out += string(r.Text)
		}
		return out
	}
	put(wide, entry("a", 0), entry("b", 1), entry("c", 1))
	put(wide, entry("a", 2), entry("d", 3))
	list := must[[]ledger.Rejected](t)(l.Rejected(ctx, ledger.Rejected{}, 9))
	if all := texts(newest, 9); len(all) != 4 || all[:2] != "da" || texts(newest, 1) != "d" || texts(list[0], 1) != "a" || texts(list[2], 9) != all[3:] || texts(list[3], 9) != "" {
		t.Errorf("pages of %q", all)
	}
	want := entry("a", 2)
	want.ID, want.First, want.Times = list[1].ID, noon, 2
	if d := cmp.Diff(want, must[ledger.Rejected](t)(l.OneRejected(ctx, list[1].ID))); d != "" {
		t.Errorf("one (-want +got):\n%s", d)
	}
	if _, err := l.OneRejected(ctx, "no"); !fleetscore.NotFound.Is(err) {
		t.Errorf("none: %v", err)
	}
	put(wide, entry("a", 4))
	if n := must[int64](t)(l.RemoveRejected(ctx, list...)); n != 3 || texts(newest, 9) != "a" {
		t.Errorf("%d were removed, left is %q; the one that came again had to stay", n, texts(newest, 9))
	}
	put(wide, entry("x", 5), entry("y", 6), entry("z", 7))
	last := must[[]ledger.Rejected](t)(l.Rejected(ctx, newest, 2))[1]
	if n := must[int64](t)(l.RemoveRejected(ctx, last)); n != 1 || texts(last, 9) != "xa" {
		t.Errorf("after an entry that was removed meanwhile come %q, want xa", texts(last, 9))
	}
	put(wide, entry("y", 6))
	put(ledger.RejectsBound{Count: 3, Bytes: 1 << 20}, entry("w", 8))
	if got := texts(newest, 9); got != "wzy" {
		t.Errorf("of three that may stay there are %q", got)
	}
	count, bytes, err := l.CountRejected(ctx)
	if err != nil || count != 3 || bytes < 3*50 {
		t.Errorf("%d with %d bytes, %v", count, bytes, err)
	}
	put(ledger.RejectsBound{Count: 3, Bytes: bytes / 2})
	if got := texts(newest, 9); got != "w" {
		t.Errorf("of half of the bytes there are %q", got)
	}
	put(ledger.RejectsBound{Count: 3, Bytes: bytes, Before: noon.Add(9 * time.Second)})
	if got := texts(newest, 9); got != "" {
		t.Errorf("older than allowed are %q", got)
	}
}
