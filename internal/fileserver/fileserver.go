// Package fileserver lets programs read parts of the store as files, over NFS version 3
// (RFC 1813). Each exported area is a folder of the store: /models, /predictions/NAME.
//
// It only reads: every request to change something is refused with "read-only file
// system". NFS version 3 knows no passwords: whoever reaches the address can read every
// file of the exported areas, so a server exports nothing unless it is told to.
//
// The answers follow from the store alone. Handles of files hold the files' names, so
// that clients go on after a restart of the server. Listings are kept for some seconds,
// as a client asks for a large folder in many requests.
//
// Locks, quotas and the portmapper aren't supported: clients name the port.
package fileserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Config says what is exported.
type Config struct {
	Areas     []string      // folders of the store, such as models or predictions/anomalies
	CallLimit time.Duration // of one request; 0 means 30s
}

// Deps is what a file server works with.
type Deps struct {
	Store   store.Bucket
	Log     *slog.Logger          // nil discards
	Now     func() time.Time      // nil means time.Now
	Metrics prometheus.Registerer // nil means none
}

// Server answers requests of NFS and MOUNT. All methods are safe for concurrent use.
type Server struct {
	cfg    Config
	log    *slog.Logger
	tree   *tree
	calls  prometheus.Counter
	routes // what answers which procedure
}

type routes struct {
	mountProcedures, nfsProcedures map[uint32]func(context.Context, *decoder, *encoder)
}

// topFolders are the parts of the store's layout that may be exported, whole or a folder in
// them.
var topFolders = []string{"data", "logs", "models", "predictions"}

// CheckAreas refuses areas that a store doesn't have, and areas that lie in each other.
func CheckAreas(areas []string) error {
	const op = "export areas"
	for i, a := range areas {
		top, _, _ := strings.Cut(a, "/")
		switch {
		case store.CheckName(fleetscore.BlobName(a)) != nil || !slices.Contains(topFolders, top):
			return fleetscore.Errorf(fleetscore.Invalid, op, a, "this is no area of the store").
				WithHint("name data, models, predictions or logs, or a folder in one of them, such as predictions/anomalies")
		}
		for _, b := range areas[:i] {
			if a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/") {
				return fleetscore.Errorf(fleetscore.Invalid, op, a, "%s is exported too, and one lies in the other", b).WithHint("name only one of the two")
			}
		}
	}
	return nil
}

// New builds a file server. Kind Invalid if an area can't be exported.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := CheckAreas(cfg.Areas); err != nil {
		return nil, err
	}
	if cfg.CallLimit == 0 {
		cfg.CallLimit = 30 * time.Second
	}
	s := &Server{cfg: cfg, log: deps.Log, calls: prometheus.NewCounter(prometheus.CounterOpts{Name: "fleetscore_fileserver_calls_total",
		Help: "Requests of NFS clients that were answered."})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	now := deps.Now
	if now == nil {
		now = time.Now
	}
	s.tree = newTree(deps.Store, cfg.Areas, now)
	s.mountProcedures = s.mountRoutes()
	s.nfsProcedures = s.nfsRoutes()
	if deps.Metrics == nil {
		return s, nil
	}
	return s, deps.Metrics.Register(s.calls)
}

// Run serves the connections of a listener, which it closes, until ctx ends.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if c != nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fleetscore.Errorf(fleetscore.Unavailable, "serve files", l.Addr().String(), "%w", err)
		case err != nil: // such as too many open files
			s.log.Warn("a connection of the file server can't be accepted", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond): // a moment for others to close files
			}
			continue
		}
		running.Go(func() {
			end := context.AfterFunc(ctx, func() { c.Close() })
			defer end()
			s.serve(ctx, c)
		})
	}
}

// clean is a path of a client as a name in the store: without slashes at its ends.
func clean(p string) string { return strings.Trim(path.Clean("/"+p), "/") }
