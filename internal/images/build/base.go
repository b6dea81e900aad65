package build

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"

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
)

// open finds the base.
func open(ctx context.Context, opt Options) (v1.Image, error) {
	platform := &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if opt.Platform != "" {
		var err error
		if platform, err = v1.ParsePlatform(opt.Platform); err != nil || platform.Architecture == "" {
			return nil, invalid(opt.Platform, "this isn't a platform; write for example linux/arm64")
		}
	}
	if opt.Base == "scratch" {
		return scratch(platform)
	}
	info, err := os.Stat(opt.Base)
	switch {
	case err == nil && info.IsDir():
		return fromLayout(opt.Base, platform)
	case err == nil:
		return fromArchive(opt.Base, platform)
	case strings.HasPrefix(opt.Base, "/") || strings.HasPrefix(opt.Base, ".") || strings.HasSuffix(opt.Base, ".tar") || strings.HasSuffix(opt.Base, ".gz"):
		return nil, fleetscore.Errorf(fleetscore.NotFound, op, opt.Base, "there is no such file or folder")
	}
	return pulled(ctx, opt, platform)
}

// scratch is an image without any file.
func scratch(p *v1.Platform) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, fleetscore.Wrap(op, "scratch", err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Variant = p.OS, p.Architecture, p.Variant
	return mutate.ConfigFile(img, cfg)
}

// fromLayout reads a folder in OCI's image layout: its only image for the platform.
func fromLayout(folder string, p *v1.Platform) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		return nil, invalid(folder, "the folder isn't in OCI's image layout: %w", err)
	}
	return fromIndex(folder, index, p)
}

func fromIndex(subject string, index v1.ImageIndex, p *v1.Platform) (v1.Image, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, invalid(subject, "%w", err)
	}
	var found []v1.Descriptor
	for _, d := range m.Manifests {
		if d.Platform == nil || d.Platform.Satisfies(*p) {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return nil, invalid(subject, "it has %d images for the platform %s, and not one", len(found), p).WithHint("choose another one with --platform, or name one image")
	}
	if found[0].MediaType.IsIndex() {
		child, err := index.ImageIndex(found[0].Digest)
		if err != nil {
			return nil, invalid(subject, "%w", err)
		}
		return fromIndex(subject, child, p)
	}
	img, err := index.Image(found[0].Digest)
	if err != nil {
		return nil, invalid(subject, "%w", err)
	}
	return img, nil
}

// fromArchive reads what docker save writes, or a root file system.
func fromArchive(file string, p *v1.Platform) (v1.Image, error) {
	opener := func() (io.ReadCloser, error) { return unpacked(file) }
	saved := false
	r, err := opener()
	if err != nil {
		return nil, fleetscore.Wrap(op, file, err)
	}
	defer r.Close()
	names := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := names.Next()
		if err == io.EOF && n > 0 {
			break
		} else if err != nil {
			return nil, invalid(file, "it isn't a tar archive: %w", err)
		}
		saved = saved || h.Name == "manifest.json"
	}
	if saved {
		img, err := tarball.Image(opener, nil)
		if err != nil {
			return nil, invalid(file, "it has a manifest.json, as docker save writes it, but: %w", err)
		}
		return img, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fleetscore.Wrap(op, file, err)
	}
	layer, err := tarball.LayerFromOpener(opener, layerOptions(types.OCILayer, info.Size())...)
	if err != nil {
		return nil, invalid(file, "%w", err)
	}
	img, err := scratch(p)
	if err != nil {
		return nil, err
	}
	return mutate.Append(img, mutate.Addendum{Layer: layer, MediaType: types.OCILayer, History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: filepath.Base(file)}})
}

// unpacked opens a file that may be compressed by gzip.
func unpacked(file string) (io.ReadCloser, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	b := bufio.NewReader(f)
	if magic, err := b.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return both{b, f}, nil // what it is otherwise, its reader says
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		f.Close() // only read
		return nil, err
	}
	return both{z, f}, nil
}

type both struct {
	io.Reader
	io.Closer
}

// pulled asks a registry.
func pulled(ctx context.Context, opt Options, p *v1.Platform) (v1.Image, error) {
	ref, err := name.ParseReference(opt.Base)
	if err != nil {
		return nil, invalid(opt.Base, "it is neither a file nor the name of an image: %w", err).WithHint("write a file, a folder, scratch, or a name such as python:3.12-slim")
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithPlatform(*p)}
	if ref.Context().RegistryStr() == opt.Server.Host {
		options = append(options, remote.WithTransport(opt.Server.Transport), remote.WithAuth(authn.Anonymous)) // the transport has the rights
	} else {
		options = append(options, remote.WithAuthFromKeychain(authn.DefaultKeychain))
	}
	img, err := remote.Image(ref, options...)
	if err == nil {
		return img, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	kind := fleetscore.Unavailable
	if answer, ok := errors.AsType[*transport.Error](err); ok && answer.StatusCode == http.StatusNotFound {
		kind = fleetscore.NotFound
	}
	return nil, fleetscore.Errorf(kind, "pull image", opt.Base, "%w", err).
		WithHint("if the name is right, docker login %s keeps the name and password that are used here too", ref.Context().RegistryStr())
}
