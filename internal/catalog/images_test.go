package catalog

import (
	"context"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
)

// TestImageNotes: what image results were made with is known as long as they are kept, and of
// jobs that haven't ended; then maintenance forgets it.
func TestImageNotes(t *testing.T) {
	t.Parallel()
	c := New(openTemp(t))
	now := time.Now()
	cited := func() (names string) {
		t.Helper()
		notes, err := c.ImageNotes(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		for _, image := range []string{"box@old", "box@new", "box@lost"} {
			if n, ok := notes[image]; ok {
				names += " " + image + " by " + string(n.Job)
			}
		}
		return names
	}
	first, second := results(t, c, "first", 1, 0, 7), results(t, c, "second", 2, 7, 20)
	for image, r := range map[string]Results{"box@old": first, "box@new": second} {
		if err := c.NoteImage(t.Context(), "p", ImageNote{Job: r.Job, Image: image, Interval: r.Interval}); err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	lost := fleetscore.Interval{From: (600 * quarter).Time(), To: (601 * quarter).Time()} // its results never became visible
	if err := c.NoteImage(t.Context(), "p", ImageNote{Job: "lost-1", Image: "box@lost", Interval: lost}); err != nil {
		t.Fatal(err)
	}
	if got := cited(); got != " box@old by first box@new by second box@lost by lost-1" {
		t.Errorf("at first:%s", got)
	}
	active := InUse{Jobs: map[fleetscore.JobID]bool{"lost-1": true}}
	maintain := func(rows time.Duration) (deleted int) {
		t.Helper()
		done, err := c.Maintain(t.Context(), now, Upkeep{Use: func(context.Context) (InUse, error) { return active, nil }, Pipelines: map[string]time.Duration{"p": rows}})
		if err != nil || len(done) != 2 || done[0].Problem+done[1].Problem != "" {
			t.Fatalf("%+v, %v", done, err)
		}
		names, _, err := c.imageNotes(t.Context(), "p", now.Add(-2*grace), nil)
		if err != nil {
			t.Fatal(err)
		}
		return 3 - len(names)
	}
	now = now.Add(grace + time.Minute)
	if n := maintain(0); n != 0 {
		t.Errorf("%d notes are gone whose results are kept", n)
	}
	active.Jobs = nil
	if n := maintain(0); n != 1 {
		t.Errorf("%d notes are gone, want that of the job without results", n)
	}
	if got := cited(); got != " box@old by first box@new by second" {
		t.Errorf("later:%s", got)
	}
	old := now.Sub((410 * quarter).Time()) // between both jobs
	if n := maintain(old); n != 2 {
		t.Errorf("%d notes are gone, want that of the first job too", n)
	}
	if got := cited(); got != " box@new by second" {
		t.Errorf("after the retention:%s", got)
	}
}
