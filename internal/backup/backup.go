// Package backup copies everything of a server that isn't in its store into one file, and
// makes a new server's folder from such a file: the ledger, the hub's log, the logs of
// running attempts, the secrets, and the name of the store. A server may run meanwhile.
//
// The file's format is in docs/formats/backup.md. The ledger is in it row by row, in the
// same form for all engines, so a ledger in a file can be restored into a PostgreSQL
// database and the other way round. Blobs of the store are never in it.
package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/logs"
)

// Place is where a server keeps what is backed up.
type Place struct {
	Dir       string // the server's folder
	LedgerURL string // address of a ledger in PostgreSQL, a secret; empty: the ledger is a file in Dir
}

// Manifest says what a backup holds. It is the first entry of the file.
type Manifest struct {
	Format  int       `json:"format"`  // version of this format
	Tables  int64     `json:"tables"`  // version of the ledger's tables
	Release string    `json:"release"` // that wrote it
	Created time.Time `json:"created"`
}

const (
	format       = 1
	manifestName = "manifest.json"
	checksumName = "checksum"
	ledgerFolder = "ledger"
	// The names in a server's folder.
	hubFolder     = "hub"
	spoolFolder   = "spool"
	secretsFolder = "secrets"
	storeName     = "store.url"
	ledgerName    = "ledger.db"

	partBytes = 4 << 20 // of rows in one entry
	// tailBytes is how long the end of each file is: the last entry and the end of the archive.
	tailBytes = 4 * 512
)

// notKept are secrets that are made anew by each start of a server.
var notKept = map[string]bool{"admin-token": true}

// Write writes a backup into a file, which must not exist. It returns the file's size.
func Write(ctx context.Context, from Place, file, release string, now time.Time) (sizeBytes int64, err error) {
	const op = "write backup"
	if _, err := os.Lstat(file); err == nil {
		return 0, fleetscore.Errorf(fleetscore.Conflict, op, file, "the file exists").WithHint("name another file, or a folder: then the file gets a name of its own")
	}
	snap, err := from.snapshot(ctx)
	if err != nil {
		return 0, err
	}
	defer snap.Close() // it only read
	out, err := durable.Create(file, 0o600)
	if err != nil {
		return 0, diskError(op, file, err)
	}
	w := newWriter(out.File, now)
	if err := w.all(ctx, from, snap, Manifest{Format: format, Tables: snap.Version(), Release: release, Created: now.UTC().Truncate(time.Second)}); err != nil {
		return 0, errors.Join(diskError(op, file, err), out.Abort())
	}
	return w.size, diskError(op, file, out.Commit())
}

func (p Place) snapshot(ctx context.Context) (*ledger.Snapshot, error) {
	if p.LedgerURL != "" {
		return ledger.SnapshotPostgres(ctx, ledger.PostgresConfig{URL: p.LedgerURL})
	}
	return ledger.SnapshotFile(ctx, filepath.Join(p.Dir, ledgerName))
}

// diskError gives an error of the disk its kind.
func diskError(op, subject string, err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fleetscore.Errorf(fleetscore.Exhausted, op, subject, "%w", err).WithHint("the disk is full: free space, or name a file on another disk")
	}
	return fleetscore.Wrap(op, subject, err)
}

// writer writes the entries of a backup.
type writer struct {
	out  io.Writer
	sum  hash.Hash
	size int64
	tar  *tar.Writer
	now  time.Time
}

func newWriter(out io.Writer, now time.Time) *writer {
	w := &writer{out: out, sum: sha256.New(), now: now}
	w.tar = tar.NewWriter(w)
	return w
}

// Write takes what the archive is made of.
func (w *writer) Write(b []byte) (int, error) {
	n, err := w.out.Write(b)
	w.sum.Write(b[:n])
	w.size += int64(n)
	return n, err
}

func (w *writer) all(ctx context.Context, from Place, snap *ledger.Snapshot, m Manifest) error {
	text, err := json.Marshal(m)
	if err == nil {
		err = w.bytes(manifestName, append(text, '\n'))
	}
	if err == nil {
		err = w.ledger(ctx, snap)
	}
	if err == nil {
		err = hub.Backup(ctx, filepath.Join(from.Dir, hubFolder), func(name string, size int64, content io.Reader) error {
			return w.entry(hubFolder+"/"+name, size, content)
		})
	}
	if err == nil {
		err = w.files(ctx, from.Dir)
	}
	if err == nil {
		err = w.tar.Flush()
	}
	if err != nil {
		return err
	}
	n, err := w.out.Write(tail(w.sum.Sum(nil)))
	w.size += int64(n)
	return err
}

// tail is the end of a backup: an entry with the checksum of everything before it.
func tail(sum []byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	text := hex.EncodeToString(sum) + "\n"
	err := w.WriteHeader(&tar.Header{Name: checksumName, Mode: 0o600, Size: int64(len(text)), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil || b.Len() != tailBytes {
		panic(fmt.Sprint("the end of a backup has ", b.Len(), " bytes: ", err)) // nothing of it depends on the input
	}
	return b.Bytes()
}

func (w *writer) entry(name string, size int64, content io.Reader) error {
	if err := w.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: w.now}); err != nil {
		return err
	}
	n, err := io.Copy(w.tar, content)
	if err == nil && n < size {
		return fleetscore.Errorf(fleetscore.Unavailable, "write backup", name, "the file became shorter while it was read").WithHint("try again")
	}
	return err
}

func (w *writer) bytes(name string, b []byte) error {
	return w.entry(name, int64(len(b)), bytes.NewReader(b))
}

// ledger writes the tables. An entry holds rows of one table: a line with the names of the
// columns, then a line for each row.
func (w *writer) ledger(ctx context.Context, snap *ledger.Snapshot) error {
	var part bytes.Buffer
	table, number := "", 0
	flush := func() error {
		if part.Len() == 0 {
			return nil
		}
		number++
		defer part.Reset()
		return w.bytes(fmt.Sprintf("%s/%s/%06d.ndjson", ledgerFolder, table, number), part.Bytes())
	}
	lines := json.NewEncoder(&part)
	err := snap.Each(ctx, func(r ledger.Row) error {
		if r.Table != table || part.Len() >= partBytes {
			if err := flush(); err != nil {
				return err
			}
			table = r.Table
		}
		if part.Len() == 0 {
			if err := lines.Encode(r.Columns); err != nil {
				return err
			}
		}
		return lines.Encode(r.Values)
	})
	if err != nil {
		return err
	}
	return flush()
}

// files writes the files besides ledger and hub.
func (w *writer) files(ctx context.Context, dir string) error {
	names := []string{storeName}
	spooled, err := logs.SpoolFiles(filepath.Join(dir, spoolFolder))
	if err != nil {
		return err
	}
	for _, name := range spooled {
		names = append(names, filepath.Join(spoolFolder, name))
	}
	secrets, err := os.ReadDir(filepath.Join(dir, secretsFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range secrets {
		if e.Type().IsRegular() && !notKept[e.Name()] {
			names = append(names, filepath.Join(secretsFolder, e.Name()))
		}
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.file(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// file writes a file as long as it is now. One that is gone is left out: a log moved into
// the store.
func (w *writer) file(dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return w.entry(filepath.ToSlash(name), st.Size(), io.NewSectionReader(f, 0, st.Size()))
}
