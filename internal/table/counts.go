package table

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/fleetscore/fleetscore"
)

// SetAside counts the readings of an interval of event time that are in no row of
// a dataset, or not twice. A commit of a query holds such a list, under the name
// SetAsideInfo in its commitInfo, of what it met since the commit before.
type SetAside struct {
	From    fleetscore.Micros `json:"from_us"` // exclusive
	To      fleetscore.Micros `json:"to_us"`   // inclusive
	Late    int64             `json:"late"`    // their window was over
	Ahead   int64             `json:"ahead"`   // their time lay too far after their arrival
	Repeats int64             `json:"repeats"` // they were counted before
}

// SetAsideInfo is the entry's name.
const SetAsideInfo = "fleetscore.set_aside"

// commitSlack is how long before its data arrived a commit may say that it was
// made: clocks of servers differ.
const commitSlack = time.Hour

// SetAside adds up what the commits say of readings whose time lies in the
// interval. Counts of a cut that the interval covers in part are taken as a whole.
// It reads the commits since the interval's begin, so it is meant for recent
// intervals; what lies in commits that were removed (a day after a checkpoint replaced them) isn't counted.
func (d *Delta) SetAside(ctx context.Context, iv fleetscore.Interval) (SetAside, error) {
	snap, err := d.Snapshot(ctx)
	out := SetAside{From: fleetscore.MicrosOf(iv.From), To: fleetscore.MicrosOf(iv.To)}
	if err != nil {
		return out, err
	}
	for version := snap.Version; version >= 0; version-- {
		data, err := d.readCommit(ctx, commitName(version))
		if fleetscore.NotFound.Is(err) {
			break
		} else if err != nil {
			return out, err
		}
		made, list := setAsideOf(data)
		if !made.IsZero() && made.Before(iv.From.Add(-commitSlack)) {
			break
		}
		for _, s := range list {
			if s.To > out.From && s.From < out.To {
				out.Late, out.Ahead, out.Repeats = out.Late+s.Late, out.Ahead+s.Ahead, out.Repeats+s.Repeats
			}
		}
	}
	return out, nil
}

// setAsideOf finds the list of a commit, and when it was made. Other writers may
// put anything into commitInfo, so what can't be read is no list of ours.
func setAsideOf(data []byte) (made time.Time, list []SetAside) {
	for line := range bytes.SplitSeq(data, []byte{'\n'}) {
		if !bytes.Contains(line, []byte(`"commitInfo"`)) {
			continue
		}
		var a struct {
			CommitInfo *struct {
				Timestamp int64      `json:"timestamp"`
				SetAside  []SetAside `json:"fleetscore.set_aside"`
			} `json:"commitInfo"`
		}
		if json.Unmarshal(line, &a) == nil && a.CommitInfo != nil && a.CommitInfo.Timestamp > 0 {
			return time.UnixMilli(a.CommitInfo.Timestamp), a.CommitInfo.SetAside
		}
	}
	return made, nil
}
