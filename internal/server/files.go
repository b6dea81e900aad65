package server

import (
	"context"
	"net"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fileserver"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
)

// nfsAreas are the parts of the store that are exported over NFS.
func (s *Server) nfsAreas() []string {
	if len(s.cfg.NFSAreas) == 0 {
		return []string{"models"}
	}
	return s.cfg.NFSAreas
}

// checkNFS refuses an address that would give strangers access, unless that is wanted.
func (s *Server) checkNFS() error {
	const op = "listen for NFS"
	c := s.cfg
	if c.NFSListen == "" {
		if len(c.NFSAreas) > 0 {
			return fleetscore.Errorf(fleetscore.Invalid, op, "", "--nfs-area says what to export, but not where").WithHint("give --nfs-listen 127.0.0.1:2049 as well")
		}
		return nil
	}
	host, port, err := net.SplitHostPort(c.NFSListen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	switch {
	case err != nil:
		return fleetscore.Errorf(fleetscore.Invalid, op, c.NFSListen, "not host:port").WithHint("write for example 127.0.0.1:2049")
	case !isLoopback(host) && !c.InsecureNFS:
		return fleetscore.Errorf(fleetscore.Invalid, op, c.NFSListen, "NFS version 3 asks for no password, so everybody on the network could read the exported files").
			WithHint("listen on 127.0.0.1; or, in a network where everybody may read them, give --insecure-nfs")
	}
	return fileserver.CheckAreas(s.nfsAreas())
}

// exportFiles is the service that exports areas of the store.
func (s *Server) exportFiles() (lifecycle.Service, error) {
	f, err := fileserver.New(fileserver.Config{Areas: s.nfsAreas()}, fileserver.Deps{Store: s.store, Log: s.log, Now: s.clock.Now, Metrics: s.metrics})
	return lifecycle.Service{Name: "file server", Run: func(ctx context.Context) error { return f.Run(ctx, s.conns.Listen(s.nfs)) }}, err
}
