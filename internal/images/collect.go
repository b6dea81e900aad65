package images

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Image is a manifest of a repository, for people.
type Image struct {
	Repository string    `json:"repository"`
	Digest     string    `json:"digest"`
	Tags       []string  `json:"tags,omitempty"`
	Locked     []string  `json:"locked,omitempty"` // those of its tags that are locked
	MediaType  string    `json:"media_type"`
	SizeBytes  int64     `json:"size_bytes"` // of manifest, configuration and layers together
	Pushed     time.Time `json:"pushed"`
}

// List returns all images, by repository, the ones that were pushed last first.
func (r *Registry) List(ctx context.Context) ([]Image, error) {
	repositories, err := r.repositories(ctx)
	if err != nil {
		return nil, err
	}
	out := []Image{}
	for _, repository := range repositories {
		tags, err := r.tags(ctx, repository)
		if err != nil {
			return nil, err
		}
		list, err := r.members(ctx, folderOf(repository)+manifestsFolder)
		if err != nil {
			return nil, err
		}
		for _, info := range list {
			var e entry
			if err := r.readJSON(ctx, fleetscore.BlobName(folderOf(repository)+manifestsFolder)+info.Name, &e); fleetscore.NotFound.Is(err) {
				continue // it was deleted meanwhile
			} else if err != nil {
				return nil, err
			}
			image := Image{Repository: repository, Digest: e.Digest.String(), MediaType: e.MediaType, SizeBytes: e.Size, Pushed: info.Modified.UTC()}
			m, err := r.manifest(ctx, e.Digest)
			if err != nil && !fleetscore.NotFound.Is(err) {
				return nil, err
			}
			if m.Config != nil {
				image.SizeBytes += m.Config.Size
			}
			for _, l := range m.Layers {
				image.SizeBytes += l.Size
			}
			for name, t := range tags {
				if t.Digest == e.Digest {
					image.Tags = append(image.Tags, name)
					if t.Locked {
						image.Locked = append(image.Locked, name)
					}
				}
			}
			slices.Sort(image.Tags)
			slices.Sort(image.Locked)
			out = append(out, image)
		}
	}
	slices.SortStableFunc(out, func(a, b Image) int {
		return cmp.Or(cmp.Compare(a.Repository, b.Repository), b.Pushed.Compare(a.Pushed))
	})
	return out, nil
}

// manifest reads a manifest that is in the store.
func (r *Registry) manifest(ctx context.Context, d digest.Digest) (m manifest, err error) {
	text, err := store.ReadAll(ctx, r.bucket, contentName(d))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fleetscore.Errorf(fleetscore.Corrupt, "read manifest", d.String(), "%w", err)
	}
	return m, nil
}

// Lock keeps a tag from being moved or deleted, or lets go of it.
func (r *Registry) Lock(ctx context.Context, repository, name string, locked bool) error {
	if _, err := r.find(ctx, repository, name); err != nil {
		return err
	}
	if digest.Digest(name).Validate() == nil {
		return fleetscore.Errorf(fleetscore.Invalid, "lock image", repository+"@"+name, "a digest always means the same image; only tags can be locked")
	}
	var t tag
	if err := r.readJSON(ctx, tagName(repository, name), &t); err != nil {
		return err
	}
	t.Locked = locked
	return r.writeJSON(ctx, tagName(repository, name), t)
}

// Remove deletes a tag, or an image by its digest with all its tags. Kind Conflict if a
// tag of it is locked.
func (r *Registry) Remove(ctx context.Context, repository, reference string) error {
	return r.remove(ctx, repository, reference)
}

// Grace is how long content is kept that no image refers to: it may be part of a push.
const Grace = time.Hour

// Collected is what GC removed, or would remove.
type Collected struct {
	Images    []Image `json:"images"` // without their sizes
	Blobs     int     `json:"blobs"`
	SizeBytes int64   `json:"size_bytes"`
	Kept      int     `json:"kept"` // images without a tag that are cited
}

// GC removes images without a tag, and content that no image refers to, if they are older
// than Grace. Images that cited names by their digests, with the reasons, are kept, and so is what kept
// images refer to. A dry run removes nothing.
func (r *Registry) GC(ctx context.Context, cited map[string]string, dryRun bool) (c Collected, err error) {
	if !dryRun {
		r.collecting.Lock()
		defer r.collecting.Unlock()
	}
	c.Images = []Image{}
	young := r.now().Add(-Grace)
	repositories, err := r.repositories(ctx)
	if err != nil {
		return c, err
	}
	used := map[digest.Digest]bool{} // by any repository
	for _, repository := range repositories {
		if err := r.collect(ctx, repository, cited, young, dryRun, used, &c); err != nil {
			return c, err
		}
	}
	for info, err := range r.bucket.List(ctx, contentFolder, store.ListOptions{}) {
		if err != nil {
			return c, err
		}
		parts := strings.Split(string(info.Name), "/")
		d := digest.NewDigestFromEncoded(digest.Algorithm(parts[1]), parts[len(parts)-1])
		if used[d] || info.Modified.After(young) {
			continue
		}
		if !dryRun {
			if err := r.bucket.Delete(ctx, info.Name); err != nil {
				return c, err
			}
		}
		c.Blobs++
		c.SizeBytes += info.SizeBytes
	}
	return c, nil
}

// graph is what the manifests of a repository refer to.
type graph struct {
	pushed   map[digest.Digest]time.Time
	manifest map[digest.Digest]manifest
	subjects map[digest.Digest][]digest.Digest // manifests that name another one, such as signatures
	needed   map[digest.Digest]bool            // manifests and blobs
}

func (r *Registry) graph(ctx context.Context, repository string) (g graph, err error) {
	list, err := r.members(ctx, folderOf(repository)+manifestsFolder)
	g = graph{map[digest.Digest]time.Time{}, map[digest.Digest]manifest{}, map[digest.Digest][]digest.Digest{}, map[digest.Digest]bool{}}
	for _, info := range list {
		d, ok := digestOf(string(info.Name))
		if !ok {
			continue
		}
		m, err := r.manifest(ctx, d)
		if err != nil && !fleetscore.NotFound.Is(err) {
			return g, err
		}
		g.pushed[d], g.manifest[d] = info.Modified, m
		if m.Subject != nil {
			g.subjects[m.Subject.Digest] = append(g.subjects[m.Subject.Digest], d)
		}
	}
	return g, err
}

// need marks a manifest and all that it refers to, or that refers to it.
func (g graph) need(d digest.Digest) {
	if _, here := g.pushed[d]; !here || g.needed[d] {
		return
	}
	g.needed[d] = true
	for _, b := range g.manifest[d].blobs() {
		g.needed[b] = true
	}
	for _, child := range g.manifest[d].Manifests {
		g.need(child.Digest)
	}
	for _, other := range g.subjects[d] {
		g.need(other)
	}
}

// collect removes what a repository doesn't need, and marks what it uses.
func (r *Registry) collect(ctx context.Context, repository string, cited map[string]string, young time.Time, dryRun bool, used map[digest.Digest]bool, c *Collected) error {
	tags, err := r.tags(ctx, repository)
	if err != nil {
		return err
	}
	g, err := r.graph(ctx, repository)
	if err != nil {
		return err
	}
	tagged := map[digest.Digest]bool{}
	for _, t := range tags {
		tagged[t.Digest] = true
	}
	for d, at := range g.pushed {
		if cited[d.String()] != "" && !tagged[d] {
			c.Kept++
		}
		if tagged[d] || cited[d.String()] != "" || at.After(young) {
			g.need(d)
		}
	}
	for d, at := range g.pushed {
		if g.needed[d] {
			continue
		}
		if !dryRun {
			if err := r.forgetManifest(ctx, repository, d); err != nil {
				return err
			}
		}
		c.Images = append(c.Images, Image{Repository: repository, Digest: d.String(), Pushed: at.UTC()})
	}
	blobs, err := r.members(ctx, folderOf(repository)+blobsFolder)
	if err != nil {
		return err
	}
	for _, info := range blobs {
		d, ok := digestOf(string(info.Name))
		switch {
		case !ok || g.needed[d]:
		case info.Modified.After(young):
			used[d] = true
		case !dryRun:
			if err := r.bucket.Delete(ctx, memberName(repository, d)); err != nil {
				return err
			}
		}
	}
	for d := range g.needed {
		used[d] = true
	}
	return nil
}
