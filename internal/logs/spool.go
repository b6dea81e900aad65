package logs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// The streams of an attempt's output.
var streams = []string{"stdout", "stderr"}

// maxLogBytes bounds a stream of one attempt.
const maxLogBytes = 64 << 20

// spool keeps the logs of attempts until they lie in the store.
type spool interface {
	// add adds a chunk of an attempt that hasn't ended; one that is there already changes
	// nothing. Only one caller at a time may add to a log.
	add(ctx context.Context, lease fleetscore.LeaseID, c dispatch.LogChunk) error
	// leases are those of attempts whose logs lie here.
	leases(ctx context.Context) ([]fleetscore.LeaseID, error)
	// sizes are those of a job's logs, by lease and stream; of is all its leases.
	sizes(ctx context.Context, job fleetscore.JobID, of []fleetscore.LeaseID) (map[fleetscore.LeaseID]map[string]int64, error)
	// read opens a stream from a byte on, as far as it is written.
	read(ctx context.Context, lease fleetscore.LeaseID, stream string, from int64) (io.ReadCloser, error)
	remove(ctx context.Context, lease fleetscore.LeaseID) error
}

// database keeps logs in the ledger's database, for servers that share it.
type database struct{ ledger.Pieces }

func (d database) add(ctx context.Context, lease fleetscore.LeaseID, c dispatch.LogChunk) error {
	if c.Offset+int64(len(c.Data)) > maxLogBytes {
		return tooLong(c.Stream)
	}
	return d.AddPiece(ctx, lease, c.Stream, c.Offset, c.Data)
}

func (d database) leases(ctx context.Context) ([]fleetscore.LeaseID, error) {
	return d.PieceLeases(ctx)
}

func (d database) sizes(ctx context.Context, job fleetscore.JobID, _ []fleetscore.LeaseID) (map[fleetscore.LeaseID]map[string]int64, error) {
	return d.PieceSizes(ctx, job)
}

func (d database) read(ctx context.Context, lease fleetscore.LeaseID, stream string, from int64) (io.ReadCloser, error) {
	r := &pieces{ctx: ctx, of: d, lease: lease, stream: stream, next: from}
	return io.NopCloser(r), nil
}

func (d database) remove(ctx context.Context, lease fleetscore.LeaseID) error {
	return d.RemovePieces(ctx, lease)
}

// pieces reads a stream piece by piece.
type pieces struct {
	ctx    context.Context // of the whole reading, because Read has none
	of     database
	lease  fleetscore.LeaseID
	stream string
	next   int64
	rest   []byte
}

func (r *pieces) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		var err error
		if r.rest, err = r.of.Piece(r.ctx, r.lease, r.stream, r.next); err != nil {
			return 0, err
		}
		if len(r.rest) == 0 {
			return 0, io.EOF
		}
	}
	n := copy(p, r.rest)
	r.rest, r.next = r.rest[n:], r.next+int64(n)
	return n, nil
}

func tooLong(stream string) error {
	return fleetscore.Errorf(fleetscore.Exhausted, "append log", stream, "it would exceed %d bytes", maxLogBytes)
}

// folder keeps the logs in a folder of the server: a folder per lease, a file per stream,
// synced with every chunk.
type folder struct {
	dir    string
	ledger ledger.Tasks
}

func (p *folder) path(lease fleetscore.LeaseID, stream string) string {
	return filepath.Join(p.dir, string(lease), stream+".txt")
}

// list is leases without a context.
func (p *folder) list() (out []fleetscore.LeaseID, err error) {
	entries, err := os.ReadDir(p.dir)
	for _, e := range entries {
		if e.IsDir() && e.Name() != nodesDir {
			out = append(out, fleetscore.LeaseID(e.Name()))
		}
	}
	return out, fleetscore.Wrap("read spool", p.dir, err)
}

func (p *folder) leases(context.Context) ([]fleetscore.LeaseID, error) { return p.list() }

func (p *folder) sizes(_ context.Context, _ fleetscore.JobID, of []fleetscore.LeaseID) (map[fleetscore.LeaseID]map[string]int64, error) {
	out := map[fleetscore.LeaseID]map[string]int64{}
	for _, lease := range of {
		if _, err := os.Stat(filepath.Join(p.dir, string(lease))); err != nil {
			continue
		}
		out[lease] = map[string]int64{}
		for _, stream := range streams {
			if st, err := os.Stat(p.path(lease, stream)); err == nil {
				out[lease][stream] = st.Size()
			}
		}
	}
	return out, nil
}

func (p *folder) read(_ context.Context, lease fleetscore.LeaseID, stream string, from int64) (io.ReadCloser, error) {
	f, err := os.Open(p.path(lease, stream))
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err == nil {
		_, err = f.Seek(from, io.SeekStart)
	}
	return f, fleetscore.Wrap("read log", string(lease), err)
}

func (p *folder) remove(_ context.Context, lease fleetscore.LeaseID) error {
	return fleetscore.Wrap("remove log from spool", string(lease), os.RemoveAll(filepath.Join(p.dir, string(lease))))
}

// add compares offsets with the file's size.
func (p *folder) add(ctx context.Context, lease fleetscore.LeaseID, c dispatch.LogChunk) error {
	const op = "append log"
	// Whether the attempt has ended is looked at while the lease's log is in use by this call: a
	// piece that comes late, or again, must not begin a new log after the seal, because
	// that would replace the sealed one.
	a, _, err := p.ledger.Attempt(ctx, lease)
	if err != nil {
		return err
	}
	if a.Ended != nil {
		return fleetscore.Errorf(fleetscore.Conflict, op, string(a.Task), "attempt %d ended: %s", a.Number, a.State)
	}
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
		return tooLong(c.Stream)
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
	p := folder{dir: dir}
	leases, err := p.list()
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
