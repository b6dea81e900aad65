package fleet

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

const (
	// keptGenerations is how many of the newest generations are kept, so that a reader
	// that has just read the pointer finds the generation that it names.
	keptGenerations = 3
	// keptFor is how long all files are kept: a job may be about to pin a generation, and
	// a sync in another process may be about to list segments.
	keptFor = time.Hour
)

// Prune deletes the generations of a pack that are no longer needed. It keeps the current
// generation, the newest three, those not older than an hour, and those that a job
// refers to according to inUse. Then it deletes the segments that no generation lists.
// It must not run at the same time as a Sync of the same pack. It returns how many files
// it deleted.
func Prune(ctx context.Context, pack store.Bucket, now time.Time, inUse func(fleetscore.GenerationID) bool) (deleted int, err error) {
	var p pointer
	if err := readJSON(ctx, pack, currentName, &p); fleetscore.NotFound.Is(err) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	all, err := listArea(ctx, pack, generationArea)
	if err != nil {
		return 0, err
	}
	slices.SortFunc(all, func(a, b store.Info) int {
		return cmp.Or(b.Modified.Compare(a.Modified), cmp.Compare(a.Name, b.Name))
	})
	listed := map[fleetscore.BlobName]bool{}
	kept := map[fleetscore.GenerationID]bool{}
	for i, info := range all {
		id := fleetscore.GenerationID(strings.TrimSuffix(path.Base(string(info.Name)), ".json"))
		if kept[id] = i < keptGenerations || id == p.ID || inUse(id) || now.Sub(info.Modified) < keptFor; !kept[id] {
			if err := pack.Delete(ctx, info.Name); err != nil {
				return deleted, err
			}
			deleted++
			continue
		}
		g, err := loadGeneration(ctx, pack, id)
		if err != nil {
			return deleted, err // what it lists isn't known, so nothing more may go
		}
		for _, s := range g.files() {
			listed[segmentName(s.Digest)] = true
		}
	}
	for _, area := range []string{marksArea, segmentArea} {
		files, err := listArea(ctx, pack, area)
		if err != nil {
			return deleted, err
		}
		for _, f := range files {
			if listed[f.Name] || kept[fleetscore.GenerationID(path.Base(string(f.Name)))] || now.Sub(f.Modified) < keptFor {
				continue
			}
			if err := pack.Delete(ctx, f.Name); err != nil {
				return deleted, err
			}
			deleted++
		}
	}
	return deleted, nil
}

func listArea(ctx context.Context, b store.Bucket, area string) (out []store.Info, err error) {
	for i, err := range b.List(ctx, area, store.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}
