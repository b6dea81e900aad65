package access

import (
	"net/http"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// checkRepositories checks the repositories that a token is bound to.
func checkRepositories(role fleetscore.Role, name string, repositories []string) error {
	const op = "create token"
	if len(repositories) > 0 && role != fleetscore.RoleImagePull && role != fleetscore.RoleImagePush {
		return fleetscore.Errorf(fleetscore.Invalid, op, name, "repositories belong to the roles image-pull and image-push, and this token has the role %s", role)
	}
	for _, r := range repositories {
		plain := strings.TrimSuffix(r, "*")
		if plain == "" || strings.Trim(plain, "abcdefghijklmnopqrstuvwxyz0123456789._-/") != "" {
			return fleetscore.Errorf(fleetscore.Invalid, op, name, "%q is neither the name of a repository nor the beginning of names, such as team/*", r)
		}
	}
	return nil
}

// MayImage reports whether the caller, who has the role need or more, may use a repository
// of images.
func (c Caller) MayImage(repository string, need fleetscore.Role) bool {
	if !c.Role.May(need) {
		return false
	}
	if len(c.images) == 0 {
		return true
	}
	for _, pattern := range c.images {
		start, open := strings.CutSuffix(pattern, "*")
		if repository == pattern || open && strings.HasPrefix(repository, start) {
			return true
		}
	}
	return false
}

// Basic lets programs that only know names and passwords send a token as the password, as
// docker does. It is for paths that no browser page uses: a browser sends a password that
// it knows with every request, whoever's page makes it.
func Basic(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, ok := r.BasicAuth(); ok {
			r = r.Clone(r.Context())
			r.Header.Set("Authorization", "Bearer "+password)
		}
		h.ServeHTTP(w, r)
	})
}
