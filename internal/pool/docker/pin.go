package docker

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/images"
)

// Login is the name and password of a registry. Without them, it is asked as anybody may.
type Login struct {
	User, Password string
	// Unread says why the password isn't here; empty if it is, or if none is known.
	Unread string
}

// encode makes of it what the engine hands on; empty if there is none.
func (l Login) encode() (string, error) {
	if l.User == "" && l.Password == "" {
		return "", nil
	}
	text, err := json.Marshal(registry.AuthConfig{Username: l.User, Password: l.Password})
	return base64.URLEncoding.EncodeToString(text), err
}

// hint is what to do if the registry refused an image.
func (l Login) hint(otherwise string) string { return cmp.Or(l.Unread, otherwise) }

// FindLogin finds the login of an image's registry in a file that docker login wrote; zero
// if it has none. Passwords that the file leaves to a helper program aren't read: public images
// need none, and for others the login says why it has none.
func FindLogin(file, image string) (l Login, err error) {
	const op = "find login of registry"
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return l, fleetscore.Errorf(fleetscore.NotFound, op, file, "there is no such file").WithHint("docker --config FOLDER login REGISTRY writes one")
	} else if err != nil {
		return l, fleetscore.Wrap(op, file, err)
	}
	var have struct {
		Auths       map[string]struct{ Auth, Username, Password string }
		CredsStore  string
		CredHelpers map[string]string
	}
	if json.Unmarshal(text, &have) != nil { // the error could quote a password
		return l, fleetscore.Errorf(fleetscore.Invalid, op, file, "the file isn't JSON as docker login writes it")
	}
	host := hostOf(image)
	for name, a := range have.Auths {
		if bareHost(name) != host {
			continue
		}
		l = Login{User: a.Username, Password: a.Password}
		if a.Auth != "" {
			pair, err := base64.StdEncoding.DecodeString(a.Auth)
			user, password, ok := strings.Cut(string(pair), ":")
			if err != nil || !ok {
				return Login{}, fleetscore.Errorf(fleetscore.Invalid, op, file, "the entry of %s isn't a name and a password", name)
			}
			l = Login{User: user, Password: strings.TrimRight(password, "\x00")}
		}
	}
	if l.User == "" && l.Password == "" && (have.CredsStore != "" || helped(have.CredHelpers, host)) {
		l.Unread = fmt.Sprintf("the registry was asked without a password: %s leaves that of %s to a helper program, and the server starts none; for images that aren't public, write the password into a file by docker --config FOLDER login %s, with a FOLDER that has no config.json yet, and name it by --docker-config", file, host, host)
	}
	return l, nil
}

// helped reports whether a program keeps the password of a registry.
func helped(helpers map[string]string, host string) bool {
	for name := range helpers {
		if bareHost(name) == host {
			return true
		}
	}
	return false
}

// bareHost is the host of a registry as docker's file names it, perhaps as an address.
func bareHost(name string) string {
	if _, rest, schemed := strings.Cut(name, "://"); schemed {
		name = rest
	}
	host, _, _ := strings.Cut(name, "/")
	return host
}

// hostOf is the registry of an image, as docker's file names it.
func hostOf(image string) string {
	host, _, ok := strings.Cut(image, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" || host == "docker.io" {
		return "index.docker.io"
	}
	return host
}

// pinLimit bounds how long a registry is asked what a tag means.
const pinLimit = 15 * time.Second

// Pin finds the digest of an image that isn't in the server's own registry, by the engine:
// what its registry says, or, if that can't be asked, what the engine has. It returns a name
// that always means the same image.
func Pin(ctx context.Context, host, image string, login Login) (string, error) {
	const op = "find image"
	if strings.Contains(image, "@") || strings.HasPrefix(image, "sha256:") {
		return image, nil
	}
	api, err := client.New(client.WithHost(host))
	if err != nil {
		return "", fleetscore.Errorf(fleetscore.Invalid, op, host, "%w", err)
	}
	defer api.Close() // it only closes idle connections
	auth, err := login.encode()
	if err != nil {
		return "", fleetscore.Wrap(op, image, err)
	}
	ctx, cancel := context.WithTimeout(ctx, pinLimit)
	defer cancel()
	name := nameOf(image)
	asked, err := api.DistributionInspect(ctx, image, client.DistributionInspectOptions{EncodedRegistryAuth: auth})
	if err == nil {
		return name + "@" + asked.Descriptor.Digest.String(), nil
	}
	if isPodman(ctx, api) { // it doesn't have this request
		var digest string
		if digest, err = images.Ask(ctx, image, login.User, login.Password); err == nil {
			return name + "@" + digest, nil
		}
	}
	own, cancelOwn := context.WithTimeout(context.WithoutCancel(ctx), apiLimit)
	defer cancelOwn()
	have, problem := api.ImageInspect(own, image)
	switch {
	case errdefs.IsNotFound(problem):
		return "", fleetscore.Errorf(fleetscore.NotFound, op, image, "its registry doesn't give it, and the engine doesn't have it: %w", err).
			WithHint("%s", login.hint("is the name right, and does the engine reach the registry?"))
	case problem != nil:
		return "", fleetscore.Errorf(fleetscore.Unavailable, op, image, "%w", problem)
	}
	for _, d := range have.RepoDigests {
		if strings.HasPrefix(d, name+"@") {
			return d, nil
		}
	}
	return have.ID, nil // it was never in a registry
}

// nameOf is the name of an image without its tag.
func nameOf(image string) string {
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i]
	}
	return image
}
