package fileserver

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// NFS version 3, RFC 1813.
const (
	nfsProgram = 100003

	nfsOK         = 0
	nfsNoEntry    = 2
	nfsIO         = 5
	nfsNotFolder  = 20
	nfsIsFolder   = 21
	nfsInvalid    = 22
	nfsReadOnly   = 30
	nfsStale      = 70
	nfsBadHandle  = 10001
	nfsBadCookie  = 10003
	nfsTooSmall   = 10005
	nfsTryLater   = 10008 // NFS3ERR_JUKEBOX: the client repeats the request
	typeFile      = 1
	typeFolder    = 2
	accessRead    = 0x01
	accessLookup  = 0x02
	readSize      = 1 << 20
	writeSize     = 64 << 10 // nothing is written, but clients need a size
	folderSize    = 64 << 10
	mostName      = 255
	mostFolderAns = 1 << 20
)

func (s *Server) nfsRoutes() map[uint32]func(context.Context, *decoder, *encoder) {
	routes := map[uint32]func(context.Context, *decoder, *encoder){
		0:  func(context.Context, *decoder, *encoder) {},
		1:  s.getAttributes,
		3:  s.lookup,
		4:  s.access,
		5:  s.readLink,
		6:  s.read,
		16: func(ctx context.Context, d *decoder, e *encoder) { s.readFolder(ctx, d, e, false) },
		17: func(ctx context.Context, d *decoder, e *encoder) { s.readFolder(ctx, d, e, true) },
		18: s.space,
		19: s.about,
		20: s.limits,
	}
	// How many optional attributes follow the refusal of a procedure that changes something.
	for procedure, absent := range map[uint32]int{2: 2, 7: 2, 8: 2, 9: 2, 10: 2, 11: 2, 12: 2, 13: 2, 14: 4, 15: 3, 21: 2} {
		routes[procedure] = func(_ context.Context, _ *decoder, e *encoder) {
			e.uint32(nfsReadOnly)
			for range absent {
				e.bool(false)
			}
		}
	}
	return routes
}

// status maps an error to what a client is told.
func (s *Server) status(n node, err error) uint32 {
	switch {
	case err == nil:
		return nfsOK
	case fleetscore.NotFound.Is(err), fleetscore.Invalid.Is(err): // no such name can exist
		return nfsNoEntry
	case fleetscore.KindOf(err).Retryable():
		return nfsTryLater
	}
	s.log.Warn("a file can't be read for a client of the file server", "area", s.tree.areas[n.area].path, "name", n.name, "error", err)
	return nfsIO
}

// open reads a handle and looks its node up.
func (s *Server) open(ctx context.Context, d *decoder) (node, attributes, uint32) {
	h := d.opaque(handleSize)
	if d.err != nil {
		return node{}, attributes{}, nfsBadHandle
	}
	n, ok := s.tree.node(h)
	if !ok {
		return node{}, attributes{}, nfsStale
	}
	at, err := s.tree.attributes(ctx, n)
	status := s.status(n, err)
	if status == nfsNoEntry {
		status = nfsStale
	}
	return n, at, status
}

// attributes appends fattr3.
func (e *encoder) attributes(at attributes) {
	if at.folder {
		e.uint32(typeFolder)
		e.uint32(0o555)
		e.uint32(2)
	} else {
		e.uint32(typeFile)
		e.uint32(0o444)
		e.uint32(1)
	}
	e.uint32(0) // owner and group: root's
	e.uint32(0)
	e.uint64(uint64(at.sizeBytes))
	e.uint64(uint64(at.sizeBytes))
	e.uint64(0) // no device
	e.uint64(1) // all areas are one file system
	e.uint64(at.id)
	for range 3 { // read, modified, changed
		e.time(at.modified)
	}
}

func (e *encoder) time(t time.Time) {
	e.uint32(uint32(max(t.Unix(), 0)))
	e.uint32(uint32(t.Nanosecond()))
}

// known appends attributes that an answer may hold, and absent says that it doesn't.
func (e *encoder) known(at attributes) {
	e.bool(true)
	e.attributes(at)
}

func (e *encoder) absent() { e.bool(false) }

func (s *Server) getAttributes(ctx context.Context, d *decoder, e *encoder) {
	_, at, status := s.open(ctx, d)
	e.uint32(status)
	if status == nfsOK {
		e.attributes(at)
	}
}

func (s *Server) lookup(ctx context.Context, d *decoder, e *encoder) {
	dir, dirAt, status := s.open(ctx, d)
	name := string(d.opaque(4096))
	var at attributes
	var n node
	switch {
	case d.err != nil:
		return
	case status != nfsOK:
	case !dirAt.folder:
		status = nfsNotFolder
	case name == ".":
		n, at = dir, dirAt
	case name == "..":
		n = dir.parent()
		at = s.tree.ofFolder(n)
	case len(name) > mostName || strings.Contains(name, "/") || store.CheckName(fleetscore.BlobName("_/"+name)) != nil:
		status = nfsNoEntry
	default:
		n = dir.child(name)
		var err error
		at, err = s.tree.attributes(ctx, n)
		status = s.status(n, err)
	}
	e.uint32(status)
	if status == nfsOK {
		e.opaque(s.tree.handle(n))
		e.known(at)
	}
	e.absent()
}

func (s *Server) access(ctx context.Context, d *decoder, e *encoder) {
	_, at, status := s.open(ctx, d)
	asked := d.uint32()
	e.uint32(status)
	if status != nfsOK {
		e.absent()
		return
	}
	allowed := uint32(accessRead)
	if at.folder {
		allowed |= accessLookup
	}
	e.known(at)
	e.uint32(asked & allowed)
}

func (s *Server) readLink(ctx context.Context, d *decoder, e *encoder) {
	_, _, status := s.open(ctx, d)
	if status == nfsOK {
		status = nfsInvalid // there are no links
	}
	e.uint32(status)
	e.absent()
}

func (s *Server) read(ctx context.Context, d *decoder, e *encoder) {
	n, at, status := s.open(ctx, d)
	offset, count := d.uint64(), int64(min(d.uint32(), readSize))
	if d.err != nil {
		return
	}
	var data []byte
	switch {
	case status != nfsOK:
	case at.folder:
		status = nfsIsFolder
	case offset < uint64(at.sizeBytes) && count > 0:
		var err error
		data, err = s.readRange(ctx, n, int64(offset), min(count, at.sizeBytes-int64(offset)))
		status = s.status(n, err)
	}
	e.uint32(status)
	if status != nfsOK {
		e.absent()
		return
	}
	e.known(at)
	e.uint32(uint32(len(data)))
	e.bool(offset+uint64(len(data)) >= uint64(at.sizeBytes))
	e.opaque(data)
}

func (s *Server) readRange(ctx context.Context, n node, offset, length int64) ([]byte, error) {
	r, err := s.tree.areas[n.area].bucket.Get(ctx, fleetscore.BlobName(n.name), offset, length)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, length)
	got, err := io.ReadFull(r, data)
	if err == io.EOF || err == io.ErrUnexpectedEOF { // the file is shorter by now
		err = nil
	}
	return data[:got], fleetscore.Wrap("read", n.name, err)
}

// readFolder answers READDIR and, with handles and attributes, READDIRPLUS.
func (s *Server) readFolder(ctx context.Context, d *decoder, e *encoder, plus bool) {
	n, at, status := s.open(ctx, d)
	cookie, verifier := d.uint64(), d.uint64()
	nameBytes, most := 0, 0
	if plus {
		nameBytes = int(min(d.uint32(), mostFolderAns)) // of names and cookies alone
	}
	most = int(min(d.uint32(), mostFolderAns))
	if d.err != nil {
		return
	}
	var l *listing
	switch {
	case status != nfsOK:
	case !at.folder:
		status = nfsNotFolder
	default:
		var err error
		l, err = s.tree.list(ctx, n, verifier)
		status = s.status(n, err)
		if err == nil && cookie > 0 && verifier != l.verifier {
			status = nfsBadCookie // the folder has changed meanwhile, so the place is unknown
		}
	}
	begin := len(e.b)
	e.uint32(status)
	if status != nfsOK {
		e.absent()
		return
	}
	e.known(s.tree.ofFolder(n))
	e.uint64(l.verifier)
	if !s.appendEntries(e, l, cookie, begin+most, nameBytes, plus) {
		e.b = e.b[:begin]
		e.uint32(nfsTooSmall)
		e.known(at)
	}
}

// appendEntries appends what fits of a listing after a cookie, which is the place of the
// last entry that the client has: 1 for ".", 2 for "..". It returns false if not even one entry
// fits.
func (s *Server) appendEntries(e *encoder, l *listing, cookie uint64, most, nameBytes int, plus bool) bool {
	const ending = 8 // no more entries, and whether this is the end
	all := uint64(len(l.entries)) + 2
	first, names := len(e.b), 0
	for ; cookie < all; cookie++ {
		before := len(e.b)
		var (
			name string
			n    node
			at   attributes
		)
		switch cookie {
		case 0:
			name, n = ".", l.of
			at = s.tree.ofFolder(n)
		case 1:
			name, n = "..", l.of.parent()
			at = s.tree.ofFolder(n)
		default:
			entry := &l.entries[cookie-2]
			name, n, at = entry.name, l.of.child(entry.name), entry.at
		}
		e.bool(true)
		e.uint64(at.id)
		e.opaque([]byte(name))
		e.uint64(cookie + 1)
		names += len(e.b) - before
		switch {
		case !plus:
		case at.folder: // its time isn't known by the listing
			e.absent()
			e.bool(true)
			e.opaque(s.tree.handle(n))
		default:
			e.known(at)
			e.bool(true)
			e.opaque(s.tree.handle(n))
		}
		if len(e.b)+ending > most || plus && names > nameBytes && before > first {
			e.b = e.b[:before]
			if before == first {
				return false
			}
			break
		}
	}
	e.bool(false)
	e.bool(cookie >= all)
	return true
}

// found opens what a request is about, and begins its answer with the status and the
// attributes. Without it the answer is whole.
func (s *Server) found(ctx context.Context, d *decoder, e *encoder) bool {
	_, at, status := s.open(ctx, d)
	e.uint32(status)
	if status != nfsOK {
		e.absent()
		return false
	}
	e.known(at)
	return true
}

// space answers FSSTAT: nothing is free, as nothing can be written.
func (s *Server) space(ctx context.Context, d *decoder, e *encoder) {
	if !s.found(ctx, d, e) {
		return
	}
	for range 6 { // bytes and files: in all, free, free to users
		e.uint64(0)
	}
	e.uint32(0)
}

// about answers FSINFO.
func (s *Server) about(ctx context.Context, d *decoder, e *encoder) {
	if !s.found(ctx, d, e) {
		return
	}
	for _, v := range []uint32{readSize, readSize, 4096, writeSize, writeSize, 4096, folderSize} {
		e.uint32(v)
	}
	e.uint64(1<<63 - 1) // size of a file
	e.uint32(0)         // times are exact to a nanosecond
	e.uint32(1)
	e.uint32(0x8) // what PATHCONF says holds for all files
}

// limits answers PATHCONF.
func (s *Server) limits(ctx context.Context, d *decoder, e *encoder) {
	if !s.found(ctx, d, e) {
		return
	}
	e.uint32(1) // links to a file
	e.uint32(mostName)
	e.bool(true)  // longer names are refused
	e.bool(true)  // owners can't be changed
	e.bool(false) // case matters
	e.bool(true)  // and is kept
}
