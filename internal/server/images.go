package server

import (
	"context"
	"net/http"
	"path/filepath"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/images"
)

// newImages opens the registry of images.
func (s *Server) newImages() (*images.Registry, error) {
	return images.New(images.Config{TempDir: filepath.Join(s.cfg.Dir, "uploads")}, images.Deps{Store: s.store, Now: s.clock.Now,
		May: func(ctx context.Context, repository string, r images.Right) bool {
			need := map[images.Right]fleetscore.Role{images.Pull: fleetscore.RoleImagePull, images.Push: fleetscore.RoleImagePush, images.Delete: fleetscore.RoleOperator}[r]
			return access.CallerOf(ctx).MayImage(repository, need)
		}})
}

// serveImages puts the registry behind the checks of package access. Its refusals have the
// form that the distribution specification asks for.
func (s *Server) serveImages(r *images.Registry) (http.Handler, error) {
	mux := s.control.NewMux(func(w http.ResponseWriter, _ *http.Request, why *access.Refusal) {
		code := "DENIED"
		switch why.Status {
		case http.StatusUnauthorized:
			code = "UNAUTHORIZED"
			w.Header().Set("WWW-Authenticate", `Basic realm="fleetscore", charset="UTF-8"`)
		case http.StatusTooManyRequests:
			code = "TOOMANYREQUESTS"
		}
		images.WriteError(w, why.Status, code, why.Message+" ("+why.Hint+")")
	})
	for _, pattern := range []string{"GET /v2/{name...}", "POST /v2/{name...}", "PUT /v2/{name...}", "PATCH /v2/{name...}", "DELETE /v2/{name...}"} {
		mux.Handle(pattern, r)
	}
	return access.Basic(mux), mux.Err()
}
