package dispatch

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
)

// TestHarmOf: a model gets into quarantine after harm in some jobs in a row, however often
// each is counted; a job that scored the sensor ends the row, and a new model begins
// another one.
func TestHarmOf(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	old, fresh := fleetscore.DigestOf([]byte("old")), fleetscore.DigestOf([]byte("new"))
	var have []fleetscore.Harm
	count := func(job fleetscore.JobID, after int, scored bool, found ...fleetscore.Harm) (changes int) {
		put, remove := HarmOf(have, found, func(fleetscore.Key) bool { return scored }, job, after, noon)
		for _, h := range remove {
			if h.Key == "a" && h.Pipeline == "p" {
				have = nil
			}
		}
		if len(put) > 0 {
			have = put
		}
		return len(put) + len(remove)
	}
	harm := func(m fleetscore.Digest) fleetscore.Harm {
		return fleetscore.Harm{Pipeline: "p", Key: "a", Model: m, Reason: "it crashed"}
	}
	for _, step := range []struct {
		job         fleetscore.JobID
		scored      bool
		found       []fleetscore.Harm
		changes     int
		jobs        int
		quarantined bool
	}{
		{"j1", false, []fleetscore.Harm{harm(old)}, 1, 1, false},
		{"j1", false, []fleetscore.Harm{harm(old)}, 0, 1, false}, // the commit was repeated
		{"j2", false, []fleetscore.Harm{harm(old)}, 1, 2, false},
		{"j1", false, []fleetscore.Harm{harm(old)}, 0, 2, false}, // and after another job's
		{"j3", false, nil, 0, 2, false},                          // no rows of the sensor
		{"j4", true, nil, 1, 0, false},                           // it went well
		{"j5", false, []fleetscore.Harm{harm(old)}, 1, 1, false},
		{"j6", false, []fleetscore.Harm{harm(fresh)}, 1, 1, false}, // another model
		{"j7", false, []fleetscore.Harm{harm(fresh)}, 1, 2, false},
		{"j8", false, []fleetscore.Harm{harm(fresh)}, 1, 3, true},
		{"j9", false, nil, 0, 3, true}, // it isn't scored
		{"j10", true, nil, 1, 0, false},
	} {
		changes := count(step.job, 0, step.scored, step.found...)
		jobs, quarantined := 0, false
		if len(have) > 0 {
			jobs, quarantined = len(have[0].Jobs), have[0].Quarantined != nil
		}
		if changes != step.changes || jobs != step.jobs || quarantined != step.quarantined {
			t.Errorf("after %s: %d changes, %d jobs, quarantined %v; want %+v", step.job, changes, jobs, quarantined, step)
		}
	}
	put, _ := HarmOf(nil, []fleetscore.Harm{harm(old)}, nil, "j", 1, noon)
	want := []fleetscore.Harm{{Pipeline: "p", Key: "a", Model: old, Reason: "it crashed", Jobs: []fleetscore.JobID{"j"}, First: noon, Last: noon, Quarantined: &noon}}
	if d := cmp.Diff(want, put); d != "" {
		t.Errorf("after one job, as configured (-want +got):\n%s", d)
	}
}
