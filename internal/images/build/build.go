// Package build makes container images without a container engine: files and Python wheels
// become layers on top of a base image.
//
// The same input gives the same image, to the last byte: entries are sorted, belong to
// root, and have the time 1970-01-01. Nothing of the image is executed, so that what only an
// installer could do (source distributions, commands) isn't done. Dependencies aren't looked
// for: a wheel's requirements that nobody brings are named.
//
// Nothing is kept between calls, and no goroutine outlives one.
package build

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
)

// Options says what an image is made of.
type Options struct {
	// Base is "scratch", a folder in OCI's image layout, an archive (what docker save
	// writes, or a root file system as docker export writes it), or the name of an image as
	// docker pull takes it.
	Base       string
	Platform   string   // such as linux/arm64, for bases of several platforms; empty means linux on this machine's processor
	Copies     []string // FROM:TO, a file or folder of this machine and its absolute path in the image
	Wheels     []string // files of Python wheels
	Python     string   // the interpreter in the image that gets the wheels; empty means the python3 of its PATH
	Entrypoint []string // empty keeps the base's
	Command    []string // empty keeps the base's, unless there is an entry point
	Env        []string // NAME=VALUE
	User       string   // empty keeps the base's
	WorkDir    string   // empty keeps the base's
	Labels     map[string]string
	// Server is the server whose own registry has a base of that host's; it is asked with the
	// caller's own rights. Other registries are asked with what docker login has kept.
	Server Server
}

// Server is a registry that the caller has access to.
type Server struct {
	Host      string            // as in images' names
	Transport http.RoundTripper // of requests to it
}

// Image is what was built.
type Image struct {
	Image     v1.Image `json:"-"`
	Digest    string   `json:"digest"`
	Layers    int      `json:"layers"`     // with those of the base
	SizeBytes int64    `json:"size_bytes"` // of manifest, configuration and layers, compressed
	Warnings  []string `json:"warnings,omitempty"`
}

// epoch is the time of everything in an image.
var epoch = time.Unix(0, 0).UTC()

const op = "build image"

func invalid(subject, format string, args ...any) *fleetscore.Error {
	return fleetscore.Errorf(fleetscore.Invalid, op, subject, format, args...)
}

// Build makes an image. Files that it was made of must stay as they are until the image is
// written.
func Build(ctx context.Context, opt Options) (*Image, error) {
	base, err := open(ctx, opt)
	if err != nil {
		return nil, err
	}
	cfg, err := base.ConfigFile()
	if err != nil {
		return nil, invalid(opt.Base, "its configuration can't be read: %w", err)
	}
	out := &Image{}
	var layers []v1.Layer
	if len(opt.Wheels)+len(opt.Copies) > 0 {
		if layers, out.Warnings, err = content(base, cfg, opt); err != nil {
			return nil, err
		}
	}
	img, err := assemble(base, layers, opt)
	if err != nil {
		return nil, fleetscore.Wrap(op, opt.Base, err)
	}
	return out, out.describe(img)
}

// content makes the layers: wheels first, because they change more seldom than files.
func content(base v1.Image, cfg *v1.ConfigFile, opt Options) (layers []v1.Layer, warnings []string, err error) {
	t, err := readTree(base)
	if err != nil {
		return nil, nil, invalid(opt.Base, "its layers can't be read: %w", err)
	}
	mediaType, err := layerType(base)
	if err != nil {
		return nil, nil, fleetscore.Wrap(op, opt.Base, err)
	}
	add := func(entries []entry) error {
		l, err := layerOf(t, entries, mediaType)
		layers = append(layers, l)
		return err
	}
	if len(opt.Wheels) > 0 {
		entries, missing, err := wheels(t, cfg, opt)
		if err == nil {
			err = add(entries)
		}
		if err != nil {
			return nil, nil, err
		}
		warnings = missing
	}
	if len(opt.Copies) > 0 {
		entries, err := copies(opt.Copies)
		if err == nil {
			err = add(entries)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return layers, warnings, nil
}

// layerType is the media type that goes with the base's own layers.
func layerType(base v1.Image) (types.MediaType, error) {
	m, err := base.MediaType()
	if m == types.DockerManifestSchema2 {
		return types.DockerLayer, err
	}
	return types.OCILayer, err
}

// assemble puts layers and settings on top of the base.
func assemble(base v1.Image, layers []v1.Layer, opt Options) (v1.Image, error) {
	adds := make([]mutate.Addendum, 0, len(layers))
	for _, l := range layers {
		m, err := l.MediaType()
		if err != nil {
			return nil, err
		}
		adds = append(adds, mutate.Addendum{Layer: l, MediaType: m, History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "fleetscore image build"}})
	}
	img, err := mutate.Append(base, adds...)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Created = v1.Time{Time: epoch}
	c := &file.Config
	if len(opt.Entrypoint) > 0 {
		c.Entrypoint, c.Cmd = opt.Entrypoint, nil // as docker build does: arguments of another program make no sense
	}
	if len(opt.Command) > 0 {
		c.Cmd = opt.Command
	}
	for _, text := range opt.Env {
		name, _, _ := strings.Cut(text, "=")
		i := slices.IndexFunc(c.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		if i < 0 {
			c.Env = append(c.Env, text)
		} else {
			c.Env[i] = text
		}
	}
	if opt.User != "" {
		c.User = opt.User
	}
	if opt.WorkDir != "" {
		c.WorkingDir = opt.WorkDir
	}
	for name, value := range opt.Labels {
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		c.Labels[name] = value
	}
	return mutate.ConfigFile(img, file)
}

// describe computes what is told of an image.
func (i *Image) describe(img v1.Image) error {
	i.Image = img
	d, err := img.Digest()
	if err != nil {
		return fleetscore.Wrap(op, "", err)
	}
	i.Digest = d.String()
	m, err := img.Manifest()
	if err != nil {
		return fleetscore.Wrap(op, i.Digest, err)
	}
	raw, err := img.RawManifest()
	if err != nil {
		return fleetscore.Wrap(op, i.Digest, err)
	}
	i.Layers, i.SizeBytes = len(m.Layers), int64(len(raw))+m.Config.Size
	for _, l := range m.Layers {
		i.SizeBytes += l.Size
	}
	return nil
}

// Push writes an image into the registry of a server, as REPOSITORY:TAG.
func (i *Image) Push(ctx context.Context, s Server, image string) error {
	ref, err := name.ParseReference(s.Host+"/"+image, name.WithDefaultTag("latest"))
	if err != nil {
		return fleetscore.Errorf(fleetscore.Invalid, "push image", image, "%w", err).WithHint("write a repository and a tag, such as team/scorer:v1")
	}
	if _, byDigest := ref.(name.Digest); byDigest {
		return fleetscore.Errorf(fleetscore.Invalid, "push image", image, "an image is pushed under a tag; its digest follows from its content")
	}
	if r := ref.Context().RepositoryStr(); path.Clean(r) != r || strings.HasPrefix(r, "..") {
		return fleetscore.Errorf(fleetscore.Invalid, "push image", image, "the repository's name has an empty part, or one that is . or ..").WithHint("write a repository and a tag, such as team/scorer:v1")
	}
	if err := remote.Write(ref, i.Image, remote.WithContext(ctx), remote.WithTransport(s.Transport), remote.WithAuth(authn.Anonymous)); err != nil {
		return fleetscore.Errorf(kindOf(err), "push image", image, "%w", err).
			WithHint("pushing needs the role image-push, operator or administrator; a locked tag can't be moved (fleetscore image unlock)")
	}
	return nil
}

// kindOf tells a registry that refuses from one that doesn't answer, or is in trouble.
func kindOf(err error) fleetscore.Kind {
	var answer *transport.Error
	switch {
	case errors.As(err, &answer) && answer.StatusCode == http.StatusForbidden:
		return fleetscore.Conflict
	case errors.As(err, &answer) && answer.StatusCode/100 == 4 && !answer.Temporary():
		return fleetscore.Invalid
	}
	return fleetscore.Unavailable
}

// Write writes an image under a name: into a file that ends in .tar as docker load takes it,
// or into a folder, which must be absent or empty, in OCI's image layout.
func (i *Image) Write(to, image string) error {
	const op = "write image"
	tag, err := name.NewTag(image, name.WithDefaultTag("latest"))
	if err != nil {
		return fleetscore.Errorf(fleetscore.Invalid, op, image, "%w", err).WithHint("write a repository and a tag, such as team/scorer:v1")
	}
	if strings.HasSuffix(to, ".tar") {
		f, err := durable.Create(to, 0o644)
		if err != nil {
			return fleetscore.Wrap(op, to, err)
		}
		if err := tarball.Write(tag, i.Image, f.File); err != nil {
			_ = f.Abort() // the first error matters
			return fleetscore.Wrap(op, to, err)
		}
		return fleetscore.Wrap(op, to, f.Commit())
	}
	if have, err := os.ReadDir(to); err == nil && len(have) > 0 {
		return fleetscore.Errorf(fleetscore.Conflict, op, to, "the folder isn't empty").WithHint("name another folder, or a file that ends in .tar")
	}
	p, err := layout.Write(to, empty.Index)
	if err == nil {
		err = p.AppendImage(i.Image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": image}))
	}
	return fleetscore.Wrap(op, to, err)
}

// clean checks a path in the image, and makes it relative to the root.
func clean(p string) (string, error) {
	if !strings.HasPrefix(p, "/") {
		return "", fmt.Errorf("%s isn't an absolute path in the image", p)
	}
	return strings.TrimPrefix(path.Clean(p), "/"), nil
}
