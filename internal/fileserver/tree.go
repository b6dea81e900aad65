package fileserver

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// tree shows areas of the store as folders and files.
type tree struct {
	areas []area
	now   func() time.Time
	start time.Time

	mu       sync.Mutex // guards what follows
	listings map[node]*list.Element
	order    list.List // of *listing, the one used last in front
	entries  int       // of all listings
	// Names that don't fit into handles, in two halves: when the new half is full, the old
	// one is forgotten, so that memory is bounded.
	newNames, oldNames map[string]node
	// Folders that were found, and until when that is taken for true. To find a folder costs a
	// listing, and each look at a file looks at the folders above it.
	folders map[node]time.Time
}

// area is an exported folder of the store.
type area struct {
	path   string
	mark   [8]byte // in the handles
	bucket store.Bucket
}

// node is a file or folder: the area and the name in it, empty for the area itself.
type node struct {
	area int
	name string
}

// attributes are what clients see of a node.
type attributes struct {
	folder    bool
	sizeBytes int64
	modified  time.Time
	id        uint64
}

// Bounds of what is remembered.
const (
	mostEntries  = 2 << 20   // of all listings together
	mostNames    = 128 << 10 // of each half of the long names
	mostFolders  = 64 << 10
	listingFresh = 5 * time.Second // a listing is used that long, or ten times as long as it took
	handleSize   = 64              // bytes, by RFC 1813
)

func newTree(b store.Bucket, areas []string, now func() time.Time) *tree {
	t := &tree{now: now, start: now(), listings: map[node]*list.Element{}, newNames: map[string]node{}, folders: map[node]time.Time{}}
	for _, p := range areas {
		sum := sha256.Sum256([]byte(p))
		t.areas = append(t.areas, area{p, [8]byte(sum[:8]), store.Sub(b, p)})
	}
	return t
}

// find returns the area that a path lies in, and the name in this area.
func (t *tree) find(p string) (at int, inside string, ok bool) {
	for i, a := range t.areas {
		if p == a.path {
			return i, "", true
		}
		if rest, ok := strings.CutPrefix(p, a.path+"/"); ok {
			return i, rest, true
		}
	}
	return 0, "", false
}

// Kinds of handles.
const (
	withName   = 1 // mark of the area, name
	withDigest = 2 // mark of the area, digest of the name
)

// handle is what clients call a node by. It stays the same when the server starts again;
// only handles of long names are forgotten then, and clients look them up again.
func (t *tree) handle(n node) []byte {
	h := make([]byte, 0, handleSize)
	h = append(h, withName)
	h = append(h, t.areas[n.area].mark[:]...)
	if len(h)+len(n.name) <= handleSize {
		return append(h, n.name...)
	}
	h[0] = withDigest
	sum := sha256.Sum256([]byte(n.name))
	h = append(h, sum[:]...)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remember(string(h), n)
	return h
}

// remember notes a long name; mu is held.
func (t *tree) remember(handle string, n node) {
	if len(t.newNames) >= mostNames {
		t.newNames, t.oldNames = map[string]node{}, t.newNames
	}
	t.newNames[handle] = n
}

// node is what a handle stands for; false if it isn't known.
func (t *tree) node(handle []byte) (node, bool) {
	if len(handle) < 9 || len(handle) > handleSize {
		return node{}, false
	}
	at := slices.IndexFunc(t.areas, func(a area) bool { return bytes.Equal(a.mark[:], handle[1:9]) })
	if at < 0 {
		return node{}, false
	}
	switch handle[0] {
	case withName:
		name := string(handle[9:])
		return node{at, name}, name == "" || store.CheckName(fleetscore.BlobName(name)) == nil
	case withDigest:
		t.mu.Lock()
		defer t.mu.Unlock()
		n, ok := t.newNames[string(handle)]
		if !ok {
			if n, ok = t.oldNames[string(handle)]; ok {
				t.remember(string(handle), n)
			}
		}
		return n, ok
	}
	return node{}, false
}

// child is a node in a folder.
func (n node) child(name string) node {
	if n.name == "" {
		return node{n.area, name}
	}
	return node{n.area, n.name + "/" + name}
}

// parent is the folder that a node lies in; an area is its own.
func (n node) parent() node {
	i := strings.LastIndexByte(n.name, '/')
	return node{n.area, n.name[:max(i, 0)]}
}

// id is the number of a node, which differs from that of every other node.
func (t *tree) id(n node) uint64 {
	sum := sha256.Sum256([]byte(t.areas[n.area].path + "/" + n.name))
	return binary.BigEndian.Uint64(sum[:])
}

// attributes looks a node up. Kind NotFound if there is none.
func (t *tree) attributes(ctx context.Context, n node) (attributes, error) {
	if n.name == "" || t.isFolder(n) {
		return t.ofFolder(n), nil
	}
	b := t.areas[n.area].bucket
	i, err := b.Stat(ctx, fleetscore.BlobName(n.name))
	if err == nil {
		return t.ofFile(n, i), nil
	}
	if !fleetscore.NotFound.Is(err) {
		return attributes{}, err
	}
	began := t.now()
	for _, err := range b.List(ctx, n.name+"/", store.ListOptions{}) {
		if err != nil {
			return attributes{}, err
		}
		t.foundFolder(n, began)
		return t.ofFolder(n), nil
	}
	return attributes{}, fleetscore.Errorf(fleetscore.NotFound, "find file", n.name, "there is none")
}

func (t *tree) isFolder(n node) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now().Before(t.folders[n])
}

// foundFolder notes that there is a folder, which took as long as since began.
func (t *tree) foundFolder(n node, began time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.folders) >= mostFolders {
		clear(t.folders)
	}
	t.folders[n] = fresh(began, t.now())
}

// fresh is until when something is used that took from began to end to find out.
func fresh(began, end time.Time) time.Time { return end.Add(max(listingFresh, 10*end.Sub(began))) }

func (t *tree) ofFile(n node, i store.Info) attributes {
	return attributes{sizeBytes: i.SizeBytes, modified: i.Modified, id: t.id(n)}
}

// ofFolder are the attributes of a folder. Stores don't keep times of folders, so it is
// the time at which the listing was first seen as it is now; clients list a folder again
// when its time has changed. A folder that nobody listed changes with each use.
func (t *tree) ofFolder(n node) attributes {
	a := attributes{folder: true, modified: t.now().Truncate(listingFresh), id: t.id(n)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.listings[n]; ok {
		if l := e.Value.(*listing); t.now().Before(l.until) {
			a.modified = l.changed
		}
	}
	return a
}

// listing is the content of a folder at one time.
type listing struct {
	of       node
	entries  []entry
	verifier uint64    // of names, sizes and times
	until    time.Time // it is used
	changed  time.Time // it was first seen as it is
}

type entry struct {
	name string // in its folder
	at   attributes
}

// list returns the content of a folder. A listing that a client is in the middle of, by
// its verifier, is used however old it is, as long as it is remembered.
func (t *tree) list(ctx context.Context, n node, verifier uint64) (*listing, error) {
	t.mu.Lock()
	e, ok := t.listings[n]
	var old *listing
	if ok {
		t.order.MoveToFront(e)
		old = e.Value.(*listing)
	}
	t.mu.Unlock()
	if old != nil && (t.now().Before(old.until) || verifier != 0 && old.verifier == verifier) {
		return old, nil
	}
	began := t.now()
	l, err := t.read(ctx, n)
	if err != nil {
		return nil, err
	}
	end := t.now()
	l.until, l.changed = fresh(began, end), end
	t.foundFolder(n, began)
	if old != nil && old.verifier == l.verifier {
		l.changed = old.changed
	}
	t.keep(l)
	return l, nil
}

// keep remembers a listing, and forgets those that were used the longest ago.
func (t *tree) keep(l *listing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.listings[l.of]; ok {
		t.forget(e)
	}
	t.listings[l.of] = t.order.PushFront(l)
	t.entries += len(l.entries) + 1
	for t.entries > mostEntries && t.order.Len() > 1 {
		t.forget(t.order.Back())
	}
}

// forget drops a listing; mu is held.
func (t *tree) forget(e *list.Element) {
	l := t.order.Remove(e).(*listing)
	delete(t.listings, l.of)
	t.entries -= len(l.entries) + 1
}

// read lists a folder of the store. Kind NotFound if it is empty, because a store knows
// no empty folders, except for the area itself.
func (t *tree) read(ctx context.Context, n node) (*listing, error) {
	prefix := ""
	if n.name != "" {
		prefix = n.name + "/"
	}
	l, sum := &listing{of: n}, sha256.New()
	for i, err := range t.areas[n.area].bucket.List(ctx, prefix, store.ListOptions{Delimiter: true}) {
		if err != nil {
			return nil, err
		}
		name, isFolder := strings.CutSuffix(strings.TrimPrefix(string(i.Name), prefix), "/")
		child := n.child(name)
		e := entry{name: name, at: t.ofFile(child, i)}
		if isFolder {
			e.at = attributes{folder: true, modified: t.start, id: e.at.id}
		}
		// A store may hold both a/b and a/b/c, a file system can't: the file is shown, and
		// comes first.
		if k := len(l.entries) - 1; isFolder && hasFile(l.entries, k, name) {
			continue
		}
		digest(sum, e)
		l.entries = append(l.entries, e)
	}
	if len(l.entries) == 0 && n.name != "" {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "list folder", n.name, "there is none")
	}
	l.verifier = binary.BigEndian.Uint64(sum.Sum(nil)) | 1 // 0 means none
	return l, nil
}

// hasFile reports whether a file of this name is among the entries up to k. Names between
// a file "b" and the folder "b/" begin with "b" and a character that sorts before "/".
func hasFile(entries []entry, k int, name string) bool {
	for ; k >= 0 && strings.HasPrefix(entries[k].name, name); k-- {
		if entries[k].name == name {
			return !entries[k].at.folder
		}
	}
	return false
}

func digest(sum hash.Hash, e entry) {
	var b []byte
	b = append(b, e.name...)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(e.at.sizeBytes))
	if !e.at.folder {
		b = binary.BigEndian.AppendUint64(b, uint64(e.at.modified.UnixNano()))
	}
	sum.Write(b)
}
