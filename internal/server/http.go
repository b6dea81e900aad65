package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
)

func (s *Server) serveHTTP(ctx context.Context, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ConnContext:       s.conns.Context,
		MaxHeaderBytes:    64 << 10,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	serve := srv.Serve
	if s.cert != nil {
		srv.TLSConfig = s.cert.Config()
		if s.authorities != nil {
			srv.TLSConfig = s.authorities.Ask(srv.TLSConfig)
		}
		serve = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
	}
	return serveUntil(ctx, srv, func() error { return serve(s.conns.Listen(s.listener)) })
}

// serveUntil serves until the context ends, and then lets running requests end.
func serveUntil(ctx context.Context, srv *http.Server, serve func() error) error {
	done := make(chan error, 1)
	go func() { done <- serve() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		srv.Close() // ends the connections that are still open
	}
	<-done
	return nil
}

// tls reports whether the server speaks TLS.
func (s *Server) tls() bool { return s.cfg.TLSSelfSigned || s.cfg.TLSCert != "" }

// checkListen refuses settings that would give strangers access.
func (s *Server) checkListen() error {
	const op = "listen"
	switch c := s.cfg; {
	case c.TLSSelfSigned && (c.TLSCert != "" || c.TLSKey != ""):
		return fleetscore.Errorf(fleetscore.Invalid, op, c.Listen, "--tls-self-signed and --tls-cert exclude each other").WithHint("give one of them")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return fleetscore.Errorf(fleetscore.Invalid, op, c.Listen, "a certificate needs its key").WithHint("give both --tls-cert and --tls-key")
	case c.ClientCA != "" && !s.tls():
		return fleetscore.Errorf(fleetscore.Invalid, op, c.Listen, "client certificates need TLS").WithHint("give --tls-cert and --tls-key, or --tls-self-signed, beside --tls-client-ca")
	case c.ClientCertRequired && c.ClientCA == "":
		return fleetscore.Errorf(fleetscore.Invalid, op, c.Listen, "--tls-client-required needs the authorities of the clients' certificates").WithHint("name the file with them: --tls-client-ca FILE")
	case c.ClientCertRequired && c.Open:
		return fleetscore.Errorf(fleetscore.Invalid, op, c.Listen, "--tls-client-required and --open exclude each other").WithHint("give one of them")
	case s.loopback:
		return nil
	case c.Open:
		return fleetscore.Errorf(fleetscore.Invalid, op, c.Listen, "--open beyond this machine would let everybody do everything").
			WithHint("listen on 127.0.0.1, or leave --open out and create tokens with fleetscore token create")
	case !s.tls() && !c.InsecureHTTP:
		return fleetscore.Errorf(fleetscore.Invalid, op, c.Listen, "beyond this machine tokens would travel in plain text").
			WithHint("give --tls-cert and --tls-key, or --tls-self-signed for a first try; behind a proxy that speaks TLS, --insecure-http")
	}
	return nil
}

// maxConnections is how many connections may be open at once. It leaves a share of the
// process's open files for other uses: half of few, 8192 of many.
func (s *Server) maxConnections() int {
	if s.cfg.MaxConnections > 0 {
		return s.cfg.MaxConnections
	}
	const most, least, others = 16384, 16, 8192
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return least
	}
	return int(max(min(max(limit.Cur/2, limit.Cur-min(limit.Cur, others)), most), least))
}
