package store_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/durable/durabletest"
	"github.com/fleetscore/fleetscore/internal/store"
)

// recorded opens a directory bucket whose disk is recorded.
func recorded(t *testing.T) (*store.Dir, *durabletest.Journal) {
	t.Helper()
	dir := t.TempDir()
	var j *durabletest.Journal
	d, err := store.OpenDirOn(dir, func(disk durable.Disk) durable.Disk {
		j = durabletest.Record(dir, disk)
		return j
	})
	if err != nil {
		t.Fatal(err)
	}
	return d, j
}

// TestPowerCut cuts the power after each step of a series of writes. After each cut
// the store opens again and holds all acknowledged blobs completely.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	d, j := recorded(t)
	state := map[fleetscore.BlobName]string{}
	acknowledged := []map[fleetscore.BlobName]string{maps.Clone(state)} // by write
	ends := []int{0}                                                    // steps taken when each was acknowledged
	for i, name := range []fleetscore.BlobName{"a", "d/e/f", "d/e/g", "a", "d/h", "d/e/f", "x/y/z/log"} {
		text := fmt.Sprintf("%s written as number %d", name, i)
		_, there := state[name]
		if err := store.WriteAll(t.Context(), d, name, []byte(text), store.PutOptions{IfAbsent: !there}); err != nil {
			t.Fatal(err)
		}
		state[name] = text
		acknowledged, ends = append(acknowledged, maps.Clone(state)), append(ends, j.Len())
	}
	for left := range j.Cuts(t) {
		done := left.Acknowledged(ends) - 1
		b, err := store.OpenDir(left.Dir)
		if err != nil {
			t.Fatalf("%s: %v", left, err)
		}
		next := acknowledged[min(done+1, len(acknowledged)-1)]
		for name, text := range next {
			got, err := store.ReadAll(t.Context(), b, name)
			want, had := acknowledged[done][name]
			if !had && fleetscore.NotFound.Is(err) {
				continue
			}
			if err != nil || string(got) != want && string(got) != text {
				t.Errorf("%s: %s holds %q, %v; want %q", left, name, got, err, want)
			}
		}
	}
}

// TestPowerCutInAFolderOfAnother: a writer that finds an existing folder can't know
// whether the folder's maker has synced its name.
func TestPowerCutInAFolderOfAnother(t *testing.T) {
	t.Parallel()
	d, j := recorded(t)
	for _, dir := range []string{"data", "data/readings"} { // by another process, which is about to sync it
		if err := j.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.WriteAll(t.Context(), d, "data/readings/rows", []byte("acknowledged"), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	left := t.TempDir()
	if err := j.Cut(j.Len(), durabletest.LoseNames, left); err != nil {
		t.Fatal(err)
	}
	b, err := store.OpenDir(left)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := store.ReadAll(t.Context(), b, "data/readings/rows"); err != nil || string(got) != "acknowledged" {
		t.Errorf("got %q, %v", got, err)
	}
}
