package server

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/durable/durabletest"
)

func storeServer(dir, store string) *Server {
	return &Server{cfg: Config{Dir: dir, Store: store}, log: slog.New(slog.DiscardHandler)}
}

// TestStoreNameAfterPowerCut: whatever a power cut leaves of store.url, the same
// store is taken at the next start, and the file is whole again.
func TestStoreNameAfterPowerCut(t *testing.T) {
	t.Parallel()
	const name = "s3://fleet/all"
	for what, left := range map[string]string{"empty": "", "cut": "s3://fl", "without line break": name, "zero bytes": "\x00\x00\x00\x00", "cut with zero bytes": "s3:\x00\x00"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "store.url")
			if err := os.WriteFile(file, []byte(left), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := storeServer(dir, name).sameStore(); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != name+"\n" {
				t.Errorf("store.url holds %q, %v", got, err)
			}
			if err := storeServer(dir, "s3://other").sameStore(); !fleetscore.Conflict.Is(err) {
				t.Errorf("another store was taken: %v", err)
			}
		})
	}
}

// TestStoreNameCutOfAnotherStore: what is left of store.url speaks for another
// store, so it is not replaced.
func TestStoreNameCutOfAnotherStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "store.url")
	if err := os.WriteFile(file, []byte("gs://fle"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := storeServer(dir, "s3://fleet").sameStore()
	if !fleetscore.Corrupt.Is(err) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "gs://fle") {
		t.Errorf("got %v", err)
	}
	dir = t.TempDir() // empty, but the folder store holds data
	if err := os.MkdirAll(filepath.Join(dir, "store", "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "store.url"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := storeServer(dir, "s3://fleet").sameStore(); err == nil {
		t.Error("the data of the folder store were given to another store")
	}
	if err := storeServer(dir, filepath.Join(dir, "store")).sameStore(); err != nil {
		t.Error(err)
	}
}

// TestStateFilesPowerCut cuts the power at each step of the first start: the next
// start finds the store and a secret.
func TestStateFilesPowerCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := durabletest.RecordOS(dir)
	for name, text := range map[string]string{"store.url": "store\n", "node-token": strings.Repeat("s", 43)} {
		if err := durable.WriteFileOn(j, filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for left := range j.Cuts(t) {
		if err := storeServer(left.Dir, filepath.Join(left.Dir, "store")).sameStore(); err != nil {
			t.Errorf("%s: %v", left, err)
		}
		if secret, err := ensureSecret(filepath.Join(left.Dir, "node-token")); err != nil || len(secret) < 32 {
			t.Errorf("%s: the secret has %d characters, %v", left, len(secret), err)
		}
	}
}

// TestStoreIsPinned: a folder's ledger and hub belong to one store.
func TestStoreIsPinned(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &Server{cfg: Config{Dir: dir}}
	open := func(address string) error {
		s.cfg.Store = address
		return s.sameStore()
	}
	if err := open(filepath.Join(dir, "store")); err != nil {
		t.Fatal(err)
	}
	if err := open("file://" + filepath.Join(dir, "store")); err != nil {
		t.Errorf("the same folder by URL: %v", err)
	}
	if err := open("s3://bucket/x?region=a"); !fleetscore.Conflict.Is(err) {
		t.Errorf("another store: %v, want kind conflict", err)
	}
	s.cfg.Dir = t.TempDir()
	if err := open("s3://bucket/x?region=a"); err != nil {
		t.Fatal(err)
	}
	if err := open("s3://bucket/x/?endpoint=http://127.0.0.1:9000"); err != nil {
		t.Errorf("the same bucket by another way: %v", err)
	}
	if err := open(filepath.Join(s.cfg.Dir, "store")); !fleetscore.Conflict.Is(err) {
		t.Errorf("the folder instead: %v, want kind conflict", err)
	}
}

// TestStartWaits: a server that starts waits for what can't be reached, but not for what refuses
// it, and not for ever.
func TestStartWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Server{log: slog.New(slog.DiscardHandler)}
		away := fleetscore.Errorf(fleetscore.Unavailable, "open ledger", "db", "it is away").WithHint("it goes on by itself")
		denied := fleetscore.Errorf(fleetscore.Invalid, "open ledger", "db", "a wrong password")
		for _, c := range []struct {
			awayFor time.Duration
			then    error
			want    string
			took    time.Duration
		}{{time.Minute, nil, "", time.Minute}, {0, denied, "a wrong password", 0}, {time.Hour, nil, "start it again", startPatience + time.Second}} {
			began := time.Now()
			err := s.awaited(t.Context(), func() error {
				if time.Since(began) < c.awayFor {
					return away
				}
				return c.then
			})
			if took := time.Since(began); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || took != c.took {
				t.Errorf("%+v: %v after %s", c, err, took)
			}
		}
	})
}
