package dispatch

import (
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// quarantineAfter is in how many jobs in a row a model may do harm by default before it gets
// into quarantine.
const quarantineAfter = 3

// HarmOf says what becomes of the records of the models that did harm in a pipeline when a job of it ends.
// found is the harm that its tasks report; scored tells whether the job scored a sensor.
// A model that did harm in a number of jobs in a row gets into quarantine. Its record
// goes once the sensor was scored, with this model or with another one. A job that is
// counted twice changes nothing. after is the number; 0 means 3.
func HarmOf(have, found []fleetscore.Harm, scored func(fleetscore.Key) bool, job fleetscore.JobID, after int, now time.Time) (put, remove []fleetscore.Harm) {
	now = now.UTC()
	if after <= 0 {
		after = quarantineAfter
	}
	known := map[fleetscore.Key]fleetscore.Harm{}
	for _, h := range have {
		known[h.Key] = h
	}
	harmed := map[fleetscore.Key]bool{}
	for _, f := range found {
		harmed[f.Key] = true
		h, ok := known[f.Key]
		if !ok || h.Model != f.Model {
			h = fleetscore.Harm{Pipeline: f.Pipeline, Key: f.Key, Model: f.Model, First: now}
		}
		if slices.Contains(h.Jobs, job) {
			continue
		}
		h.Jobs = append(slices.Clone(h.Jobs), job)
		h.Reason, h.Last = f.Reason, now
		if len(h.Jobs) >= after && h.Quarantined == nil {
			h.Quarantined = &now
		}
		put = append(put, h)
	}
	for _, h := range have {
		if !harmed[h.Key] && scored(h.Key) {
			remove = append(remove, h)
		}
	}
	return put, remove
}
