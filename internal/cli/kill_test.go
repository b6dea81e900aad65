package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/oneshot"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestScoreKilled: kill -9 at any point leaves each result absent or whole, the
// manifest vouches for whole ones only, and running again completes them.
func TestScoreKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, "readings.csv")
	if code, _, stderr := command(t, "simulate", "--from", "2026-11-23T00:00:00Z", "--to", "2026-11-23T03:00:00Z", "--out", data); code != 0 {
		t.Fatalf("simulate: exit %d\n%s", code, stderr)
	}
	args := func(out string) []string {
		return []string{"score", "--data", data, "--models", filepath.Join(testkit.Root(t), "examples", "fleet", "models"),
			"--model", "model_{Device}_{Tag}", "--key", "Device,Tag", "--time", "TS", "--feature", "Value", "--out", out}
	}
	whole := filepath.Join(dir, "whole")
	began := time.Now()
	if out, err := killable(args(whole)).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	took := time.Since(began)
	want := results(t, whole)
	if len(want) != 3 {
		t.Fatalf("results are %d files, want predictions, coverage and manifest", len(want))
	}

	const rounds = 16
	killed, early := 0, 0
	out := filepath.Join(dir, "out")
	for round := range rounds {
		if round%4 == 0 { // else results of the round before are there already
			if err := os.RemoveAll(out); err != nil {
				t.Fatal(err)
			}
		}
		cmd := killable(args(out))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 {
			time.Sleep(rand.N(took))
		} else {
			untilWriting(out, began.Add(took*rounds*10))
			time.Sleep(rand.N(took / 8))
		}
		_ = cmd.Process.Kill() // it ended before
		if err := cmd.Wait(); err != nil {
			killed++
		}
		got := results(t, out)
		if _, ok := got["manifest.json"]; !ok {
			early++
		}
		same(t, round, got, want)

		again, err := killable(args(out)).CombinedOutput()
		if err != nil {
			t.Fatalf("round %d: run again: %v\n%s", round, err, again)
		}
		got = results(t, out)
		if len(got) != len(want) {
			t.Errorf("round %d: run again: %d files, want %d", round, len(got), len(want))
		}
		same(t, round, got, want)
	}
	t.Logf("%d of %d runs were killed, %d of them before the manifest was there", killed, rounds, early)
	if killed == 0 || early == 0 {
		t.Error("no run was killed in its midst, so this has shown nothing")
	}
}

func killable(args []string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

// untilWriting waits until a result has been begun. Nothing else tells of it.
func untilWriting(out string, deadline time.Time) {
	for time.Now().Before(deadline) {
		if parts, err := filepath.Glob(filepath.Join(out, "*.part")); err != nil || len(parts) > 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// results reads the files of a folder, without those that are only begun.
func results(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".part") {
			continue
		}
		if out[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// same checks that each file there is is whole, and that the manifest is right.
func same(t *testing.T, round int, got, want map[string][]byte) {
	t.Helper()
	for name, data := range got {
		if name != "manifest.json" && !bytes.Equal(data, want[name]) {
			t.Errorf("round %d: %s is there with %d bytes, and isn't whole: want %d", round, name, len(data), len(want[name]))
		}
	}
	text, ok := got["manifest.json"]
	if !ok {
		return
	}
	var m oneshot.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		t.Errorf("round %d: manifest: %v", round, err)
	}
	if len(m.Files) != 2 {
		t.Errorf("round %d: the manifest names %d files, want 2", round, len(m.Files))
	}
	for name, info := range m.Files {
		h := sha256.Sum256(got[name])
		if hex.EncodeToString(h[:]) != info.SHA256 || int64(len(got[name])) != info.SizeBytes {
			t.Errorf("round %d: the manifest vouches for another %s", round, name)
		}
	}
}
