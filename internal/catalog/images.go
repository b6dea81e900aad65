package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// ImageNote is in containers of which image a job made its results. It is kept as long as
// they are, longer than the ledger may know the job.
type ImageNote struct {
	Job      fleetscore.JobID    `json:"job"`
	Image    string              `json:"image"`          // by its digest
	More     []string            `json:"more,omitempty"` // others that its tasks ran in, by their digests
	Interval fleetscore.Interval `json:"interval"`
}

// NoteImage keeps the image of a job whose results are about to be made visible.
func (c *Catalog) NoteImage(ctx context.Context, pipeline string, n ImageNote) error {
	text, err := json.Marshal(n)
	if err != nil {
		return fleetscore.Wrap("note image", string(n.Job), err)
	}
	// The name holds the end of the interval, so that maintenance needn't read the note.
	name := fmt.Sprintf("%s%d-%s.json", PredictionsFolder(pipeline)+imagesName, int64(fleetscore.MicrosOf(n.Interval.To)), n.Job)
	return store.WriteAll(ctx, c.store, fleetscore.BlobName(name), append(text, '\n'), store.PutOptions{})
}

// ImageNotes are the notes of all jobs whose results are kept, by image the last one.
func (c *Catalog) ImageNotes(ctx context.Context, now time.Time) (map[string]ImageNote, error) {
	pipelines, err := c.folders(ctx, predictionsArea)
	if err != nil {
		return nil, err
	}
	out := map[string]ImageNote{}
	for _, p := range pipelines {
		names, _, err := c.imageNotes(ctx, p, now, nil)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, err := store.ReadAll(ctx, c.store, name)
			if fleetscore.NotFound.Is(err) {
				continue // maintenance has just removed it
			} else if err != nil {
				return nil, err
			}
			var n ImageNote
			if err := json.Unmarshal(text, &n); err != nil {
				return nil, fleetscore.Errorf(fleetscore.Corrupt, "read note of image", string(name), "%w", err)
			}
			for _, image := range append(n.More, n.Image) {
				out[image] = n
			}
		}
	}
	return out, nil
}

// imageNotes lists the notes of a pipeline: those whose results are kept or may still become
// visible, and the others. snap is the coverage; nil means that it is read if there are notes.
func (c *Catalog) imageNotes(ctx context.Context, pipeline string, now time.Time, snap *table.Snapshot) (kept, old []fleetscore.BlobName, err error) {
	prefix := PredictionsFolder(pipeline) + imagesName
	for info, err := range c.store.List(ctx, prefix, store.ListOptions{}) {
		if err != nil {
			return nil, nil, err
		}
		if snap == nil {
			if snap, err = c.Coverage(pipeline).Snapshot(ctx); fleetscore.NotFound.Is(err) {
				snap = &table.Snapshot{}
			} else if err != nil {
				return nil, nil, err
			}
		}
		var to fleetscore.Micros
		if _, err := fmt.Sscanf(strings.TrimPrefix(string(info.Name), prefix), "%d-", &to); err != nil {
			continue // not ours
		}
		covers := func(f fleetscore.DataFile) bool { return f.First <= to && to <= f.Last }
		if info.Modified.After(now.Add(-grace)) || slices.ContainsFunc(snap.Files, covers) {
			kept = append(kept, info.Name)
		} else {
			old = append(old, info.Name)
		}
	}
	return kept, old, nil
}

// expireImages deletes the notes of images whose results are gone.
func (c *Catalog) expireImages(ctx context.Context, pipeline string, now time.Time, snap *table.Snapshot, use func(context.Context) (InUse, error)) (deleted int, err error) {
	_, old, err := c.imageNotes(ctx, pipeline, now, snap)
	if err != nil || len(old) == 0 {
		return 0, err
	}
	in, err := use(ctx)
	if err != nil {
		return 0, err
	}
	return c.delete(ctx, slices.DeleteFunc(old, func(name fleetscore.BlobName) bool {
		_, job, _ := strings.Cut(strings.TrimSuffix(string(name), ".json"), imagesName)
		_, job, _ = strings.Cut(job, "-")
		return in.Jobs[fleetscore.JobID(job)] // its results aren't visible yet
	}))
}
