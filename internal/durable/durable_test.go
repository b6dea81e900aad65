package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/durable/durabletest"
)

// TestPowerCut cuts the power after each step of writing a file twice: the file is
// always complete, and acknowledged content is there.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := durabletest.RecordOS(dir)
	path := filepath.Join(dir, "deep", "er", "state")
	there := func(d string) (bool, error) { _, err := os.Stat(d); return err == nil, nil }
	if err := durable.MkdirAllOn(j, filepath.Dir(path), 0o755, there, func(string) {}); err != nil {
		t.Fatal(err)
	}
	texts := []string{"", "one", "and two"}
	ends := []int{0} // steps taken when each was acknowledged
	for _, text := range texts[1:] {
		if err := durable.WriteFileOn(j, path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, j.Len())
	}
	for left := range j.Cuts(t) {
		want := texts[left.Acknowledged(ends)-1]
		got, err := os.ReadFile(filepath.Join(left.Dir, "deep", "er", "state"))
		switch {
		case errors.Is(err, fs.ErrNotExist) && want == "":
		case err != nil || string(got) != want && string(got) != "one" && string(got) != "and two":
			t.Errorf("%s: %q, %v; want %q or what was being written", left, got, err, want)
		case want == "and two" && string(got) != want:
			t.Errorf("%s: %q, but %q was acknowledged", left, got, want)
		}
	}
}

// TestJournalFindsCarelessWriters: the journal finds a writer that doesn't sync.
func TestJournalFindsCarelessWriters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := durabletest.RecordOS(dir)
	f, err := j.Create(filepath.Join(dir, "careless"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("text")); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for loss, want := range map[durabletest.Loss]string{durabletest.LoseNames: "", durabletest.KeepNames: "", durabletest.HalfBytes: "te"} {
		left := t.TempDir()
		if err := j.Cut(j.Len(), loss, left); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(left, "careless"))
		if string(got) != want || errors.Is(err, fs.ErrNotExist) != (loss == durabletest.LoseNames) {
			t.Errorf("loss %d leaves %q, %v; want %q", loss, got, err, want)
		}
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, err := durable.Create(filepath.Join(dir, "x"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Abort(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}
