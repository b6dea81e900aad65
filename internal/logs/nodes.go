package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Nodes send what they write themselves with their heartbeats. While a node runs, it lies
// in the spool, below nodesDir, in a file <pool>/<node>; once the node has ended, it is
// moved into the store like the logs of attempts. These files aren't synced: a power cut
// may cost the last lines of a node's own log.

// nodesDir is a folder of the spool that belongs to no lease.
const nodesDir = "nodes"

// maxNodeLog bounds what is kept of what one node writes; what comes later is left out.
const maxNodeLog = 16 << 20

const missing = "(some lines are missing here)\n"

func (l *Logs) nodeFile(pool string, node fleetscore.NodeID) string {
	return filepath.Join(l.nodeDir, url.PathEscape(pool), url.PathEscape(string(node)))
}

// AppendNodeLog keeps a piece of what a node writes itself. A piece that is there already
// changes nothing, and a gap is noted. Kind NotFound if there is no such node.
func (l *Logs) AppendNodeLog(ctx context.Context, node fleetscore.NodeID, c dispatch.LogChunk) error {
	const op = "append node's log"
	if c.Offset < 0 || len(c.Data) > dispatch.MaxLogChunkBytes {
		return fleetscore.Errorf(fleetscore.Invalid, op, string(node), "a piece has at most %d bytes", dispatch.MaxLogChunkBytes)
	}
	n, err := l.ledger.Node(ctx, node)
	if err != nil {
		return err
	}
	l.nodes.Lock()
	defer l.nodes.Unlock()
	next, known := l.next[node]
	data, end := c.Data, c.Offset+int64(len(c.Data))
	switch {
	case known && end <= next:
		return nil
	case known && c.Offset < next:
		data = data[next-c.Offset:]
	case known && c.Offset > next:
		data = append([]byte(missing), data...)
	}
	path := l.nodeFile(n.Pool, node)
	if err := durable.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fleetscore.Wrap(op, string(node), err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fleetscore.Wrap(op, string(node), err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return fleetscore.Wrap(op, string(node), err)
	} else if st.Size() < maxNodeLog {
		if _, err := f.Write(data); err != nil {
			return fleetscore.Wrap(op, string(node), err)
		}
	}
	l.next[node] = end
	return nil
}

// sealNodes moves the logs of nodes that have ended into the store, after what is there
// of the same node.
func (l *Logs) sealNodes(ctx context.Context) error {
	root := l.nodeDir
	var problems []error
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		problems = append(problems, l.sealNode(ctx, path))
		return ctx.Err()
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(append(problems, fleetscore.Wrap("seal nodes' logs", root, err))...)
}

func (l *Logs) sealNode(ctx context.Context, path string) error {
	id, err := url.PathUnescape(filepath.Base(path))
	pool, e := url.PathUnescape(filepath.Base(filepath.Dir(path)))
	if err = errors.Join(err, e); err != nil {
		return fleetscore.Wrap("seal node's log", path, err)
	}
	node := fleetscore.NodeID(id)
	n, err := l.ledger.Node(ctx, node)
	if err != nil && !fleetscore.NotFound.Is(err) {
		return err
	}
	if err == nil && !n.State.Ended() {
		return nil
	}
	l.nodes.Lock()
	defer l.nodes.Unlock()
	text, err := os.ReadFile(path)
	if err != nil {
		return fleetscore.Wrap("seal node's log", id, err)
	}
	name := catalog.NodeLog(pool, node)
	earlier, err := store.ReadAll(ctx, l.store, name)
	if err != nil && !fleetscore.NotFound.Is(err) {
		return err
	}
	if !bytes.HasSuffix(earlier, text) { // a process that was killed after the next step sealed it before
		if err := store.WriteAll(ctx, l.store, name, append(earlier, text...), store.PutOptions{}); err != nil {
			return err
		}
	}
	delete(l.next, node)
	return fleetscore.Wrap("remove node's log from spool", id, os.Remove(path))
}

// OpenNode opens what a node has written itself so far, from a byte on; kind NotFound if
// there is nothing.
func (l *Logs) OpenNode(ctx context.Context, pool string, node fleetscore.NodeID, from int64) (io.ReadCloser, error) {
	l.nodes.Lock()
	defer l.nodes.Unlock()
	sealed, err := store.ReadAll(ctx, l.store, catalog.NodeLog(pool, node))
	if err != nil && !fleetscore.NotFound.Is(err) {
		return nil, err
	}
	out := withNote{Reader: bytes.NewReader(sealed), Closer: io.NopCloser(nil)}
	f, e := os.Open(l.nodeFile(pool, node))
	switch {
	case e == nil:
		out = withNote{io.MultiReader(out.Reader, f), f}
	case !errors.Is(e, fs.ErrNotExist):
		return nil, fleetscore.Wrap("open node's log", string(node), e)
	case err != nil:
		return nil, fleetscore.Errorf(fleetscore.NotFound, "open node's log", string(node), "the node has sent nothing yet")
	}
	if _, err := io.CopyN(io.Discard, out, from); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}
