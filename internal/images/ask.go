package images

import (
	"context"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fleetscore/fleetscore"
)

// Ask asks another registry what digest the tag of an image has. Without a user it is asked
// as anybody may. A registry of this machine may speak plain HTTP.
func Ask(ctx context.Context, image, user, password string) (digest string, err error) {
	const op = "ask registry"
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", fleetscore.Errorf(fleetscore.Invalid, op, image, "%w", err)
	}
	connections := remote.DefaultTransport.(*http.Transport).Clone()
	defer connections.CloseIdleConnections()
	auth := authn.Anonymous
	if user != "" {
		auth = &authn.Basic{Username: user, Password: password}
	}
	have, err := remote.Head(ref, remote.WithContext(ctx), remote.WithAuth(auth), remote.WithTransport(connections))
	if err != nil {
		return "", fleetscore.Errorf(fleetscore.Unavailable, op, image, "%w", err)
	}
	return have.Digest.String(), nil
}
