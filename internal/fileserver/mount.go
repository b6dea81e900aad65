package fileserver

import (
	"context"

	"github.com/fleetscore/fleetscore"
)

// The MOUNT protocol, RFC 1813, appendix I.
const (
	mountProgram = 100005

	mountOK        = 0
	mountNoEntry   = 2
	mountIO        = 5
	mountNotFolder = 20
)

func (s *Server) mountRoutes() map[uint32]func(context.Context, *decoder, *encoder) {
	nothing := func(context.Context, *decoder, *encoder) {}
	return map[uint32]func(context.Context, *decoder, *encoder){
		0: nothing,
		1: s.mount,
		2: func(_ context.Context, _ *decoder, e *encoder) { e.bool(false) }, // DUMP: who mounted what isn't kept
		3: func(_ context.Context, d *decoder, _ *encoder) { d.opaque(1024) },
		4: nothing,
		5: s.exports,
	}
}

// mount returns the handle of an area, or of a folder in one.
func (s *Server) mount(ctx context.Context, d *decoder, e *encoder) {
	p := clean(string(d.opaque(1024)))
	if d.err != nil {
		return
	}
	a, inside, ok := s.tree.find(p)
	if !ok {
		e.uint32(mountNoEntry)
		return
	}
	n := node{area: a, name: inside}
	at, err := s.tree.attributes(ctx, n)
	switch {
	case fleetscore.NotFound.Is(err), fleetscore.Invalid.Is(err):
		e.uint32(mountNoEntry)
	case err != nil:
		s.log.Warn("an area of the store can't be read", "area", p, "error", err)
		e.uint32(mountIO)
	case !at.folder:
		e.uint32(mountNotFolder)
	default:
		e.uint32(mountOK)
		e.opaque(s.tree.handle(n))
		e.uint32(2)
		e.uint32(authSys)
		e.uint32(authNone)
	}
}

// exports lists the areas, which everybody may mount.
func (s *Server) exports(_ context.Context, _ *decoder, e *encoder) {
	for _, a := range s.tree.areas {
		e.bool(true)
		e.opaque([]byte("/" + a.path))
		e.bool(false) // no groups
	}
	e.bool(false)
}
