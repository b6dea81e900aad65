package logs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/durable"
)

// The streams of an attempt's output.
var streams = []string{"stdout", "stderr"}

// maxLogBytes bounds a stream of one attempt.
const maxLogBytes = 64 << 20

// spool keeps the logs of attempts that run: a folder per lease, a file per
// stream, synced with every chunk.
type spool struct {
	dir string
}

func (p *spool) open() error {
	return fleetscore.Wrap("open spool", p.dir, durable.MkdirAll(p.dir, 0o755))
}

func (p *spool) path(lease fleetscore.LeaseID, stream string) string {
	return filepath.Join(p.dir, string(lease), stream+".txt")
}

// has tells whether an attempt wrote anything.
func (p *spool) has(lease fleetscore.LeaseID) bool {
	_, err := os.Stat(filepath.Join(p.dir, string(lease)))
	return err == nil
}

// leases are those of attempts whose logs lie here.
func (p *spool) leases() (out []fleetscore.LeaseID, err error) {
	entries, err := os.ReadDir(p.dir)
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, fleetscore.LeaseID(e.Name()))
		}
	}
	return out, fleetscore.Wrap("read spool", p.dir, err)
}

func (p *spool) remove(lease fleetscore.LeaseID) error {
	return fleetscore.Wrap("remove log from spool", string(lease), os.RemoveAll(filepath.Join(p.dir, string(lease))))
}

// append adds a chunk; one that is there already changes nothing. Only one caller at a
// time may append to a log, because offsets are compared with sizes.
func (p *spool) append(lease fleetscore.LeaseID, c dispatch.LogChunk) error {
	const op = "append log"
	if err := durable.MkdirAll(filepath.Join(p.dir, string(lease)), 0o755); err != nil {
		return fleetscore.Wrap(op, string(lease), err)
	}
	f, err := os.OpenFile(p.path(lease, c.Stream), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fleetscore.Wrap(op, string(lease), err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fleetscore.Wrap(op, string(lease), err)
	}
	size := st.Size()
	switch {
	case c.Offset > size:
		return fleetscore.Errorf(fleetscore.Conflict, op, c.Stream, "the chunk starts at byte %d, the log ends at %d", c.Offset, size)
	case c.Offset+int64(len(c.Data)) <= size:
		return nil
	case c.Offset+int64(len(c.Data)) > maxLogBytes:
		return fleetscore.Errorf(fleetscore.Exhausted, op, c.Stream, "it would exceed %d bytes", maxLogBytes)
	}
	if _, err := f.WriteAt(c.Data[size-c.Offset:], size); err != nil {
		return fleetscore.Wrap(op, string(lease), err)
	}
	err = f.Sync()
	if err == nil && size == 0 { // the file may be new
		err = durable.OS{}.SyncDir(filepath.Join(p.dir, string(lease)))
	}
	return fleetscore.Wrap(op, string(lease), err)
}

// SpoolFiles are the names of the logs in a spool folder, relative to it. They only grow
// until they are sealed and removed.
func SpoolFiles(dir string) ([]string, error) {
	p := spool{dir: dir}
	leases, err := p.leases()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, lease := range leases {
		for _, stream := range streams {
			if st, err := os.Stat(p.path(lease, stream)); err == nil && st.Mode().IsRegular() {
				out = append(out, filepath.Join(string(lease), stream+".txt"))
			}
		}
	}
	return out, err
}
