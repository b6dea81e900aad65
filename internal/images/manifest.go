package images

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// The media types of manifests.
const (
	typeImage       = "application/vnd.oci.image.manifest.v1+json"
	typeIndex       = "application/vnd.oci.image.index.v1+json"
	typeDockerImage = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList  = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// maxManifest bounds a manifest, as other registries do.
const maxManifest = 4 << 20

// descriptor refers to content by its digest.
type descriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

// elsewhere reports whether the content needn't be in the registry: layers whose licence
// forbids to distribute them.
func (d descriptor) elsewhere() bool {
	return strings.Contains(d.MediaType, ".nondistributable.") || strings.Contains(d.MediaType, ".foreign.")
}

// manifest is what the registry reads of a manifest of any type.
type manifest struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *descriptor       `json:"config"`
	Layers       []descriptor      `json:"layers"`
	Manifests    []descriptor      `json:"manifests"`
	Subject      *descriptor       `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

// blobs are the layers and the configuration that a manifest needs.
func (m manifest) blobs() (out []digest.Digest) {
	for _, l := range m.Layers {
		if !l.elsewhere() {
			out = append(out, l.Digest)
		}
	}
	if m.Config != nil {
		out = append(out, m.Config.Digest)
	}
	return out
}

func invalidManifest(format string, args ...any) error {
	return &refusal{http.StatusBadRequest, "MANIFEST_INVALID", fmt.Sprintf(format, args...)}
}

// readManifest reads a manifest that a client sent.
func readManifest(text []byte, contentType string) (m manifest, err error) {
	if err := json.Unmarshal(text, &m); err != nil {
		return m, invalidManifest("the manifest isn't one: %v", err)
	}
	contentType, _, _ = strings.Cut(contentType, ";")
	switch {
	case m.MediaType == "":
		m.MediaType = contentType
	case contentType != "" && contentType != m.MediaType:
		return m, invalidManifest("the manifest says that it is %s, but Content-Type is %s", m.MediaType, contentType)
	}
	switch m.MediaType {
	case typeImage, typeDockerImage:
		if m.Config == nil || m.Manifests != nil {
			return m, invalidManifest("an image's manifest has a config, and no manifests")
		}
	case typeIndex, typeDockerList:
		if m.Config != nil || m.Layers != nil {
			return m, invalidManifest("an index has manifests, and no config or layers")
		}
	default:
		return m, invalidManifest("the media type %q is unknown", m.MediaType)
	}
	all := slices.Concat(m.Layers, m.Manifests)
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	if m.Subject != nil {
		all = append(all, *m.Subject)
	}
	for _, d := range all {
		if err := d.Digest.Validate(); err != nil {
			return m, invalidManifest("the digest %q: %v", d.Digest, err)
		}
	}
	return m, nil
}

// present refuses a manifest that refers to what the repository doesn't have.
func (r *Registry) present(ctx context.Context, repository string, m manifest) error {
	missing := func(d digest.Digest) error {
		return &refusal{http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "the manifest refers to " + d.String() + ", which this repository doesn't have; push it first"}
	}
	for _, d := range m.blobs() {
		if _, err := r.bucket.Stat(ctx, memberName(repository, d)); err == nil {
			// The mark becomes young, so that no GC that has begun at another server
			// removes the content.
			err = store.WriteAll(ctx, r.bucket, memberName(repository, d), nil, store.PutOptions{})
			if err == nil {
				_, err = r.bucket.Stat(ctx, contentName(d))
			}
			if fleetscore.NotFound.Is(err) {
				return missing(d)
			} else if err != nil {
				return err
			}
		} else if fleetscore.NotFound.Is(err) {
			return missing(d)
		} else {
			return err
		}
	}
	for _, child := range m.Manifests {
		if _, err := r.bucket.Stat(ctx, manifestName(repository, child.Digest)); fleetscore.NotFound.Is(err) {
			return missing(child.Digest)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) putManifest(w http.ResponseWriter, req *http.Request, q request) error {
	ctx := req.Context()
	text, err := io.ReadAll(io.LimitReader(bodyOf(w, req), maxManifest+1))
	if err != nil {
		return invalidManifest("the manifest broke off: %v", err)
	}
	if len(text) > maxManifest {
		return &refusal{http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("a manifest may have at most %d bytes", maxManifest)}
	}
	m, err := readManifest(text, req.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	d, byDigest := digest.FromBytes(text), false
	if strings.Contains(q.reference, ":") {
		want, err := parseDigest(q.reference)
		if err != nil {
			return err
		}
		if d = want.Algorithm().FromBytes(text); d != want {
			return &refusal{http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("the manifest has the digest %s, not %s", d, want)}
		}
		byDigest = true
	} else if !goodTag(q.reference) {
		return &refusal{http.StatusBadRequest, "TAG_INVALID", "the tag " + q.reference + " has other characters than letters, digits, . _ -, or more than 128"}
	}
	r.collecting.RLock()
	defer r.collecting.RUnlock()
	if err := r.present(ctx, q.repository, m); err != nil {
		return err
	}
	if err := r.keep(ctx, q.repository, text, m, d); err != nil {
		return err
	}
	if !byDigest {
		if err := r.setTag(ctx, q.repository, q.reference, d); err != nil {
			return err
		}
	}
	if m.Subject != nil {
		w.Header().Set("OCI-Subject", m.Subject.Digest.String())
	}
	w.Header().Set("Location", Prefix+q.repository+"/manifests/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
	return nil
}

// keep writes a manifest: first its bytes, then that the repository has it.
func (r *Registry) keep(ctx context.Context, repository string, text []byte, m manifest, d digest.Digest) error {
	if _, err := r.bucket.Put(ctx, contentName(d), bytes.NewReader(text), store.PutOptions{}); err != nil {
		return err
	}
	e := entry{MediaType: m.MediaType, Size: int64(len(text)), Digest: d, ArtifactType: m.ArtifactType, Annotations: m.Annotations}
	if e.ArtifactType == "" && m.Config != nil {
		e.ArtifactType = m.Config.MediaType
	}
	if m.Subject != nil {
		if err := r.writeJSON(ctx, referrerName(repository, m.Subject.Digest, d), e); err != nil {
			return err
		}
	}
	return r.writeJSON(ctx, manifestName(repository, d), e)
}

// setTag points a tag to a manifest, unless the tag is locked.
func (r *Registry) setTag(ctx context.Context, repository, name string, d digest.Digest) error {
	var was tag
	err := r.readJSON(ctx, tagName(repository, name), &was)
	switch {
	case err == nil && was.Locked && was.Digest != d:
		return errLocked(repository, name)
	case err == nil && was.Digest == d:
		return nil
	case err != nil && !fleetscore.NotFound.Is(err):
		return err
	}
	return r.writeJSON(ctx, tagName(repository, name), tag{Digest: d})
}

// getManifest answers HEAD too.
func (r *Registry) getManifest(w http.ResponseWriter, req *http.Request, q request) error {
	e, err := r.find(req.Context(), q.repository, q.reference)
	if fleetscore.NotFound.Is(err) {
		return &refusal{http.StatusNotFound, "MANIFEST_UNKNOWN", err.Error()}
	} else if err != nil {
		return err
	}
	text, err := store.ReadAll(req.Context(), r.bucket, contentName(e.Digest))
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", e.MediaType)
	h.Set("Docker-Content-Digest", e.Digest.String())
	h.Set("ETag", `"`+e.Digest.String()+`"`)
	h.Set("Content-Length", fmt.Sprint(len(text)))
	if req.Method == http.MethodGet {
		_, _ = w.Write(text) // the client may be gone
	}
	return nil
}

func (r *Registry) deleteManifest(w http.ResponseWriter, req *http.Request, q request) error {
	if err := r.remove(req.Context(), q.repository, q.reference); err != nil {
		if fleetscore.NotFound.Is(err) {
			err = &refusal{http.StatusNotFound, "MANIFEST_UNKNOWN", err.Error()}
		}
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// remove deletes a tag, or a manifest with all tags that point to it.
func (r *Registry) remove(ctx context.Context, repository, reference string) error {
	e, err := r.find(ctx, repository, reference)
	if err != nil {
		return err
	}
	byDigest := digest.Digest(reference).Validate() == nil
	tags, err := r.tags(ctx, repository)
	if err != nil {
		return err
	}
	var gone []string
	for name, t := range tags {
		if name == reference || byDigest && t.Digest == e.Digest {
			if t.Locked {
				return errLocked(repository, name)
			}
			gone = append(gone, name)
		}
	}
	for _, name := range gone {
		if err := r.bucket.Delete(ctx, tagName(repository, name)); err != nil {
			return err
		}
	}
	if !byDigest {
		return nil
	}
	return r.forgetManifest(ctx, repository, e.Digest)
}

// forgetManifest takes a manifest out of a repository. GC removes its bytes.
func (r *Registry) forgetManifest(ctx context.Context, repository string, d digest.Digest) error {
	text, err := store.ReadAll(ctx, r.bucket, contentName(d))
	if err == nil {
		var m manifest
		if json.Unmarshal(text, &m) == nil && m.Subject != nil && m.Subject.Digest.Validate() == nil {
			if err := r.bucket.Delete(ctx, referrerName(repository, m.Subject.Digest, d)); err != nil {
				return err
			}
		}
	} else if !fleetscore.NotFound.Is(err) {
		return err
	}
	return r.bucket.Delete(ctx, manifestName(repository, d))
}

// tags are the tags of a repository, by name.
func (r *Registry) tags(ctx context.Context, repository string) (map[string]tag, error) {
	list, err := r.members(ctx, folderOf(repository)+tagsFolder)
	if err != nil {
		return nil, err
	}
	out := make(map[string]tag, len(list))
	for _, info := range list {
		var t tag
		if err := r.readJSON(ctx, tagName(repository, string(info.Name)), &t); err != nil {
			if fleetscore.NotFound.Is(err) {
				continue // it was deleted meanwhile
			}
			return nil, err
		}
		out[string(info.Name)] = t
	}
	return out, nil
}

// listReferrers lists the manifests that name another one as their subject, such as
// signatures.
func (r *Registry) listReferrers(w http.ResponseWriter, req *http.Request, q request) error {
	subject, err := parseDigest(q.reference)
	if err != nil {
		return err
	}
	folder := folderOf(q.repository) + referrersFolder + fileOf(subject) + "/"
	list, err := r.members(req.Context(), folder)
	if err != nil {
		return err
	}
	wanted := req.URL.Query().Get("artifactType")
	if wanted != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	found := []entry{}
	for _, info := range list {
		var e entry
		if err := r.readJSON(req.Context(), fleetscore.BlobName(folder)+info.Name, &e); err != nil {
			return err
		}
		if wanted == "" || e.ArtifactType == wanted {
			found = append(found, e)
		}
	}
	return answer(w, typeIndex, map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": found})
}
