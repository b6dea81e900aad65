package simtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// mutant is a fault that is built into a run on purpose. The simulation is only worth
// something if it finds such faults, so a test switches each of them on and expects
// that one of the seeds of "make test" reports a broken promise. Each does at a seam
// what a defect of the room behind the seam would do.
type mutant string

const (
	sound mutant = "" // no fault

	overwritesCommits mutant = "a commit overwrites another one of the same version"
	commitsTwice      mutant = "a job that was committed isn't recognised by its entry in the table"
	losesOwnMark      mutant = "a commit whose answer was lost isn't recognised by its own mark"
	heartbeatRevives  mutant = "a lost node becomes ready by a heartbeat"
	coverageStays     mutant = "outcomes of an earlier job over the same interval stay"
	oldRowsReturn     mutant = "a job that was held up brings old rows back"
	answersUnsynced   mutant = "readings are acknowledged before the hub has them"
	ticksAhead        mutant = "ticks say more than the gateway knows"
	forgetsJobs       mutant = "maintenance doesn't ask what jobs still need"
	forgetsReaders    mutant = "maintenance deletes files without a time of grace"
	forgetsPosition   mutant = "the position in the log isn't committed with the rows"
	skipsRows         mutant = "a due time that gets no job takes its rows along"
	replacesHalf      mutant = "a job doesn't cover the rows of the job that it replaces"
	replacesNothing   mutant = "a job that is to be replaced goes on"
	startsBeside      mutant = "a schedule doesn't look at its jobs that haven't ended"
	forgetsPause      mutant = "a paused schedule goes on"
	forgetsDueTimes   mutant = "due times without a job have no outcome"
	hurriesBackfills  mutant = "backfills have a normal priority"
	forgetsCarried    mutant = "a rerun drops the outcomes of the sensors that it doesn't score"
	forgetsToken      mutant = "a server that leads no more isn't refused"
	countsNothing     mutant = "formulas don't see the tasks that wait"
	sparesSuspects    mutant = "a task that took nodes down isn't scored alone"
	startsEarly       mutant = "a job doesn't wait until its rows are complete"
	skipsReadings     mutant = "a server that begins to lead runs its query from the readings on that come then"
	mistakesKinds     mutant = "a node of low priority that is lost is kept as a dedicated one"
	chargesLosses     mutant = "an attempt that was lost with its node uses up a try"
	overlooksMachines mutant = "machines that exist aren't compared with the nodes"
	skipsLate         mutant = "a server that goes on after another one leaves out late readings that weren't committed"
	hidesRevisions    mutant = "a commit doesn't say which rows it revised"
	forgetsStates     mutant = "a query's state isn't found"
	keepsVanished     mutant = "predictions of rows that have vanished stay"
)

// mutants are all faults that must be found.
var mutants = []mutant{overwritesCommits, commitsTwice, losesOwnMark, heartbeatRevives, coverageStays, oldRowsReturn, answersUnsynced, ticksAhead, forgetsPosition, forgetsJobs, forgetsReaders,
	skipsRows, replacesHalf, replacesNothing, startsBeside, forgetsPause, forgetsDueTimes, hurriesBackfills, forgetsCarried, overlooksMachines, forgetsToken, countsNothing, sparesSuspects, startsEarly, skipsReadings, mistakesKinds, chargesLosses,
	skipsLate, hidesRevisions, forgetsStates, keepsVanished}

func isCommit(name fleetscore.BlobName) bool {
	return strings.Contains(string(name), "_delta_log/") && strings.HasSuffix(string(name), ".json")
}

func isCoverage(name fleetscore.BlobName) bool { return strings.Contains(string(name), "/_coverage/") }

func isState(name fleetscore.BlobName) bool {
	return strings.HasPrefix(string(name), catalog.QueryStateFolder(measured))
}

// put does to a write what the run's mutant does.
func (m mutant) put(name fleetscore.BlobName, data []byte, opt store.PutOptions) ([]byte, store.PutOptions) {
	if !isCommit(name) {
		return data, opt
	}
	switch m {
	case overwritesCommits:
		opt.IfAbsent = false
	case forgetsPosition:
		data = editCommit(data, func(line string) string {
			return unless(strings.HasPrefix(line, `{"txn":{"appId":"query/`) && strings.Contains(line, `/position"`), line)
		})
	case hidesRevisions:
		data = editCommit(data, func(line string) string {
			return strings.Replace(line, `"`+table.RevisedInfo+`"`, `"`+table.RevisedInfo+`_not"`, 1)
		})
	case coverageStays:
		if isCoverage(name) {
			data = editCommit(data, func(line string) string { return unless(strings.HasPrefix(line, `{"remove":`), line) })
		}
	}
	return data, opt
}

// get does to what is read what the run's mutant does.
func (m mutant) get(name fleetscore.BlobName, data []byte) []byte {
	if !isCommit(name) {
		return data
	}
	switch m {
	case commitsTwice:
		return editCommit(data, func(line string) string { return unless(jobOfTxn(line) != "", line) })
	case startsEarly: // datasets say that they are complete for a minute more than they are
		return editCommit(data, func(line string) string {
			before, n, ok := strings.Cut(line, `/complete_until","version":`)
			digits := len(n) - len(strings.TrimLeft(n, "0123456789"))
			until, err := strconv.ParseInt(n[:digits], 10, 64)
			if !ok || err != nil {
				return line
			}
			return fmt.Sprintf(`%s/complete_until","version":%d%s`, before, until+time.Minute.Microseconds(), n[digits:])
		})
	case losesOwnMark:
		return editCommit(data, func(line string) string {
			before, mark, _ := strings.Cut(line, `"`+markEntry+`":"`)
			_, after, ok := strings.Cut(mark, `"`)
			if !ok {
				return line
			}
			return before + `"` + markEntry + `":""` + after
		})
	}
	return data
}

// view does to what a decision about a schedule is taken from what the run's mutant does.
func (m mutant) view(v ledger.ScheduleView) ledger.ScheduleView {
	switch m {
	case startsBeside:
		v.Active = nil
	case forgetsPause:
		v.State.Paused = time.Time{}
	}
	return v
}

// decision does to a decision about a schedule what the run's mutant does.
func (m mutant) decision(v ledger.ScheduleView, d ledger.ScheduleDecision) ledger.ScheduleDecision {
	ran := func(o fleetscore.Occurrence) bool { return o.State == fleetscore.OccurrenceRan }
	switch {
	case m == skipsRows && d.Job == nil && len(d.Occurrences) > 0:
		d.State.NextFrom = d.State.LastDue
	case m == replacesHalf && len(d.Cancel) > 0:
		d.Job.Interval.From = v.State.NextFrom
	case m == replacesNothing:
		d.Cancel = nil
	case m == forgetsDueTimes:
		d.Occurrences = slices.DeleteFunc(d.Occurrences, func(o fleetscore.Occurrence) bool { return !ran(o) })
	case m == hurriesBackfills:
		for i := range d.Backfill {
			d.Backfill[i].Priority = fleetscore.PriorityNormal
		}
	case m == forgetsPause && len(d.Occurrences) > 0:
		d.State.Paused = v.State.Paused
	}
	return d
}

// reads tells whether the mutant changes what is read.
func (m mutant) reads() bool { return m == commitsTwice || m == losesOwnMark || m == startsEarly }

func unless(drop bool, line string) string {
	if drop {
		return ""
	}
	return line
}

// The entries of a commit's first line that are looked at here. docs/formats/delta.md
// describes them.
const (
	markEntry = "fleetscore.commit"
)

// editCommit changes the lines of a commit, drops those that become empty, and makes
// the commit's digest fit.
func editCommit(data []byte, edit func(line string) string) []byte {
	first, rest, _ := strings.Cut(string(data), "\n")
	var kept strings.Builder
	for line := range strings.Lines(rest) {
		if line = edit(strings.TrimSuffix(line, "\n")); line != "" {
			kept.WriteString(line + "\n")
		}
	}
	first = edit(first)
	before := fleetscore.DigestOf([]byte(rest)).String()
	return []byte(strings.Replace(first, before, fleetscore.DigestOf([]byte(kept.String())).String(), 1) + "\n" + kept.String())
}

// commitLines are the lines of a commit.
func commitLines(ctx context.Context, b store.Bucket, name fleetscore.BlobName) (out []string, err error) {
	data, err := store.ReadAll(ctx, b, name)
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(data) {
		out = append(out, string(bytes.TrimSpace(line)))
	}
	return out, nil
}

// jobOfTxn is the entry by which a commit says that it holds a job's results; empty
// if a line isn't such an entry.
func jobOfTxn(line string) string {
	var a struct {
		Txn struct {
			AppID string `json:"appId"`
		} `json:"txn"`
	}
	if !strings.HasPrefix(line, `{"txn":`) || json.Unmarshal([]byte(line), &a) != nil || !strings.HasPrefix(a.Txn.AppID, "job/") {
		return ""
	}
	return a.Txn.AppID
}
