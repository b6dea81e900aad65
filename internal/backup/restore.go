package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// unfinishedName is a file that lies in a folder while it is being restored.
const unfinishedName = "restore.unfinished"

// Unfinished refuses a folder in which a restore was interrupted: only a part of the data
// is there.
func Unfinished(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, unfinishedName)); err != nil {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Conflict, "open folder", dir, "a restore into it was interrupted, so only a part of the data is there").
		WithHint("empty the folder (and the database, if the ledger was restored into one), and run fleetscore restore again")
}

// Check reads a whole backup and compares its checksum.
func Check(file string) (Manifest, error) {
	const op = "check backup"
	f, err := os.Open(file)
	if err != nil {
		return Manifest{}, openError(op, file, err)
	}
	defer f.Close()
	m, err := readManifest(tar.NewReader(f))
	if err != nil {
		return m, damaged(op, file, "it doesn't begin as a backup: "+err.Error())
	}
	if m.Format > format {
		return m, fleetscore.Errorf(fleetscore.Conflict, op, file, "it has format %d, this release knows up to %d", m.Format, format).
			WithHint("it was written by release %s: restore it with that one or a newer one", m.Release)
	}
	st, err := f.Stat()
	if err != nil {
		return m, fleetscore.Wrap(op, file, err)
	}
	sum, end := sha256.New(), make([]byte, tailBytes)
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, st.Size()-tailBytes)); err != nil {
		return m, fleetscore.Wrap(op, file, err)
	}
	if _, err := f.ReadAt(end, max(0, st.Size()-tailBytes)); err != nil && !errors.Is(err, io.EOF) {
		return m, fleetscore.Wrap(op, file, err)
	}
	if !bytes.Equal(end, tail(sum.Sum(nil))) {
		return m, damaged(op, file, "its checksum is wrong: it was cut short or changed")
	}
	return m, nil
}

func readManifest(in *tar.Reader) (m Manifest, err error) {
	h, err := in.Next()
	if err != nil {
		return m, err
	}
	if h.Name != manifestName || h.Size > 64<<10 {
		return m, errors.New("its first entry is " + h.Name)
	}
	text, err := io.ReadAll(in)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err == nil && m.Format < 1 {
		err = errors.New("it names no format")
	}
	return m, err
}

func openError(op, file string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fleetscore.Errorf(fleetscore.NotFound, op, file, "there is no such file")
	}
	return fleetscore.Wrap(op, file, err)
}

func damaged(op, file, why string) error {
	return fleetscore.Errorf(fleetscore.Corrupt, op, file, "%s", why).WithHint("nothing was written; take another backup, or copy this one again from where it came")
}

// Restore makes a server's folder, and its ledger in the folder or in a database, from a
// backup. Before anything is written, the whole file is checked, and the folder has to be
// empty or absent, the database without a ledger's entries.
func Restore(ctx context.Context, file string, to Place) (Manifest, error) {
	const op = "restore"
	m, err := Check(file)
	if err != nil {
		return m, err
	}
	if err := empty(op, to.Dir); err != nil {
		return m, err
	}
	if err := durable.MkdirAll(to.Dir, 0o700); err != nil {
		return m, diskError(op, to.Dir, err)
	}
	mark := filepath.Join(to.Dir, unfinishedName)
	if err := durable.WriteFile(mark, nil, 0o600); err != nil {
		return m, diskError(op, to.Dir, err)
	}
	if err := restoreLedger(ctx, file, to, m); err != nil {
		// What a restore made is removed as far as it is known, so that it can be repeated.
		for _, name := range []string{ledgerName, ledgerName + "-wal", ledgerName + "-shm", ledgerName + ".lock", unfinishedName} {
			_ = os.Remove(filepath.Join(to.Dir, name)) // the first error says what happened
		}
		return m, diskError(op, to.Dir, err)
	}
	if err := restoreFiles(ctx, file, to.Dir); err != nil {
		return m, diskError(op, to.Dir, err)
	}
	if err := os.Remove(mark); err != nil {
		return m, diskError(op, to.Dir, err)
	}
	return m, diskError(op, to.Dir, durable.OS{}.SyncDir(to.Dir))
}

// empty refuses a folder with files in it.
func empty(op, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fleetscore.Wrap(op, dir, err)
	}
	for _, e := range entries {
		if e.Name() != "lost+found" { // of a disk that begins at this folder
			return fleetscore.Errorf(fleetscore.Conflict, op, dir, "the folder isn't empty: it holds %s", e.Name()).
				WithHint("name a new folder with --dir, or move this one away first")
		}
	}
	return nil
}

// walk calls fn with each entry below one of the folders.
func walk(ctx context.Context, file string, fn func(h *tar.Header, content io.Reader) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	in := tar.NewReader(bufio.NewReaderSize(f, 1<<20))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = fn(h, in)
		}
		if err != nil {
			return err
		}
	}
}

func restoreLedger(ctx context.Context, file string, to Place, m Manifest) error {
	// The ledger asks for one row after the other; the file hands out its entries.
	rows := make(chan ledger.Row)
	ctx, stop := context.WithCancel(ctx)
	read := make(chan error, 1)
	go func() {
		defer close(rows)
		read <- walk(ctx, file, func(h *tar.Header, content io.Reader) error {
			table, _, ok := strings.Cut(strings.TrimPrefix(h.Name, ledgerFolder+"/"), "/")
			if !ok || !strings.HasPrefix(h.Name, ledgerFolder+"/") {
				return nil
			}
			return readRows(ctx, table, content, rows)
		})
	}()
	next := func() (ledger.Row, error) {
		if r, ok := <-rows; ok {
			return r, nil
		}
		err := <-read
		read <- err
		if err == nil {
			err = io.EOF
		}
		return ledger.Row{}, err
	}
	var err error
	if to.LedgerURL != "" {
		err = ledger.RestorePostgres(ctx, ledger.PostgresConfig{URL: to.LedgerURL}, m.Tables, next)
	} else {
		err = ledger.RestoreFile(ctx, filepath.Join(to.Dir, ledgerName), m.Tables, next)
	}
	stop()
	for range rows { // until the reader has ended
	}
	return err
}

func readRows(ctx context.Context, table string, content io.Reader, rows chan<- ledger.Row) error {
	lines := json.NewDecoder(content)
	lines.UseNumber()
	r := ledger.Row{Table: table}
	if err := lines.Decode(&r.Columns); err != nil {
		return err
	}
	for {
		r.Values = nil
		if err := lines.Decode(&r.Values); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		for i, v := range r.Values {
			n, ok := v.(json.Number)
			if !ok {
				continue
			}
			var err error
			if r.Values[i], err = n.Int64(); err != nil {
				if r.Values[i], err = n.Float64(); err != nil {
					return err
				}
			}
		}
		select {
		case rows <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// folders are the parts of a server's folder that a backup may write into.
var folders = []string{hubFolder, spoolFolder, secretsFolder}

func restoreFiles(ctx context.Context, file, dir string) error {
	for _, name := range folders {
		if err := durable.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
	}
	return walk(ctx, file, func(h *tar.Header, content io.Reader) error {
		if h.Typeflag != tar.TypeReg {
			return fleetscore.Errorf(fleetscore.Corrupt, "restore", h.Name, "an entry that is no file")
		}
		top, _, below := strings.Cut(h.Name, "/")
		if below && !slices.Contains(folders, top) || !below && top != storeName {
			return nil
		}
		name, err := filepath.Localize(h.Name)
		if err != nil {
			return fleetscore.Errorf(fleetscore.Corrupt, "restore", h.Name, "%w", err)
		}
		path := filepath.Join(dir, name)
		if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		out, err := durable.Create(path, 0o600)
		if err != nil {
			return err
		}
		if _, err := io.Copy(out.File, content); err != nil {
			return errors.Join(err, out.Abort())
		}
		return out.Commit()
	})
}
