// Package images is a registry of container images whose content lies in the store: it
// answers the requests of the OCI distribution specification, so that docker, crane and
// other programs push and pull, and it removes what nobody needs.
//
// The registry is our own and not the library distribution/distribution, for reasons that
// docs/decisions/0010-images.md gives.
//
// The package decides nothing about who may do what: its one consumer says so for each
// repository. Pieces of uploads lie in a folder of the machine until the upload ends, so
// that an upload has to be finished at the server where it was begun; everything else lies
// in the store, and any server answers for it.
//
// All methods are safe for concurrent use. No goroutine is started.
package images

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Right is what a caller wants to do in a repository.
type Right string

// The rights.
const (
	Pull   Right = "pull"
	Push   Right = "push"
	Delete Right = "delete" // tags, manifests, blobs
)

// Config says where a registry keeps uploads, and what it bounds.
type Config struct {
	TempDir      string // folder for unfinished uploads; it is emptied by New
	MaxBlobBytes int64  // of one layer; 0 means 16 GiB
	MaxUploads   int    // unfinished uploads at once; 0 means 64
}

// Deps is what a registry works with.
type Deps struct {
	Store store.Bucket // the whole store; images lie in its area Area
	// May reports whether whoever sent a request may do something in a repository.
	May func(ctx context.Context, repository string, r Right) bool
	Now func() time.Time // nil means time.Now
}

// Area is the prefix of all blobs of the registry.
const Area = "images/"

// Registry is the registry of one store.
type Registry struct {
	cfg    Config
	bucket store.Bucket // the area
	may    func(ctx context.Context, repository string, r Right) bool
	now    func() time.Time

	mu      sync.Mutex // guards uploads
	uploads map[string]*upload

	// Pushes of manifests hold collecting for reading, GC for writing: content that a
	// manifest was checked against must not vanish before the manifest is written.
	collecting sync.RWMutex
}

// New builds a registry. Uploads that were unfinished when a former one ended are lost.
func New(cfg Config, deps Deps) (*Registry, error) {
	if cfg.MaxBlobBytes == 0 {
		cfg.MaxBlobBytes = 16 << 30
	}
	if cfg.MaxUploads == 0 {
		cfg.MaxUploads = 64
	}
	err := os.RemoveAll(cfg.TempDir)
	if err == nil {
		err = os.MkdirAll(cfg.TempDir, 0o700)
	}
	if err != nil {
		return nil, fleetscore.Wrap("open registry", cfg.TempDir, err)
	}
	r := &Registry{cfg: cfg, bucket: store.Sub(deps.Store, Area), may: deps.May, now: deps.Now, uploads: map[string]*upload{}}
	if r.now == nil {
		r.now = time.Now
	}
	return r, nil
}

// goodRepository and tagForm are the specification's.
var (
	goodRepository = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]*$`)
)

// goodTag reports whether a text can be a tag. An expression that counts up to the length itself would take long to
// prepare.
func goodTag(s string) bool { return len(s) <= 128 && tagForm.MatchString(s) }

// maxRepository bounds the name of a repository, so that the names of its blobs fit.
const maxRepository = 200

func checkRepository(name string) error {
	if len(name) > maxRepository || !goodRepository.MatchString(name) {
		return fleetscore.Errorf(fleetscore.Invalid, "check repository", name, "the name of a repository has at most %d lower-case letters, digits, and . _ - between them, in parts with slashes between them", maxRepository)
	}
	return nil
}

// The layout of the area. Parts of a repository's name never begin with an underscore, so
// that the folders of a repository can't be taken for another repository.
const (
	contentFolder      = "blobs/"
	repositoriesFolder = "repositories/"
	tagsFolder         = "/_tags/"
	manifestsFolder    = "/_manifests/"
	blobsFolder        = "/_blobs/"
	referrersFolder    = "/_referrers/"
)

// contentName is the blob with the bytes of that digest.
func contentName(d digest.Digest) fleetscore.BlobName {
	return fleetscore.BlobName(contentFolder + d.Algorithm().String() + "/" + d.Encoded()[:2] + "/" + d.Encoded())
}

func fileOf(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

func digestOf(file string) (digest.Digest, bool) {
	d := digest.Digest(strings.Replace(file, "-", ":", 1))
	return d, d.Validate() == nil
}

func folderOf(repository string) string { return repositoriesFolder + repository }

func tagName(repository, tag string) fleetscore.BlobName {
	return fleetscore.BlobName(folderOf(repository) + tagsFolder + tag)
}

func manifestName(repository string, d digest.Digest) fleetscore.BlobName {
	return fleetscore.BlobName(folderOf(repository) + manifestsFolder + fileOf(d))
}

// memberName is a mark: a repository has a layer or a configuration.
func memberName(repository string, d digest.Digest) fleetscore.BlobName {
	return fleetscore.BlobName(folderOf(repository) + blobsFolder + fileOf(d))
}

func referrerName(repository string, subject, d digest.Digest) fleetscore.BlobName {
	return fleetscore.BlobName(folderOf(repository) + referrersFolder + fileOf(subject) + "/" + fileOf(d))
}

// entry is what a repository knows of a manifest.
type entry struct {
	MediaType    string            `json:"mediaType"`
	Size         int64             `json:"size"`
	Digest       digest.Digest     `json:"digest"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// tag is what a tag points to.
type tag struct {
	Digest digest.Digest `json:"digest"`
	Locked bool          `json:"locked,omitempty"` // it can't be moved or deleted
}

func (r *Registry) readJSON(ctx context.Context, name fleetscore.BlobName, into any) error {
	b, err := store.ReadAll(ctx, r.bucket, name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fleetscore.Errorf(fleetscore.Corrupt, "read", Area+string(name), "%w", err)
	}
	return nil
}

func (r *Registry) writeJSON(ctx context.Context, name fleetscore.BlobName, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fleetscore.Wrap("write", Area+string(name), err)
	}
	return store.WriteAll(ctx, r.bucket, name, b, store.PutOptions{})
}

// members lists the last parts of the names below a folder.
func (r *Registry) members(ctx context.Context, folder string) (out []store.Info, err error) {
	for info, err := range r.bucket.List(ctx, folder, store.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		info.Name = info.Name[len(folder):]
		out = append(out, info)
	}
	return out, nil
}

// repositories lists the names of all repositories, in order.
func (r *Registry) repositories(ctx context.Context) (out []string, err error) {
	last := ""
	for info, err := range r.bucket.List(ctx, repositoriesFolder, store.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		name, _, ok := strings.Cut(string(info.Name[len(repositoriesFolder):]), "/_")
		if ok && name != last {
			out, last = append(out, name), name
		}
	}
	return out, nil
}

// Split takes REPOSITORY:TAG or REPOSITORY@DIGEST apart. Without either the tag is latest.
func Split(text string) (repository, reference string) {
	if repository, reference, ok := strings.Cut(text, "@"); ok {
		return repository, reference
	}
	if i := strings.LastIndexByte(text, ':'); i > strings.LastIndexByte(text, '/') {
		return text[:i], text[i+1:]
	}
	return text, "latest"
}

// Resolve finds the digest of a manifest by a tag or a digest; kind NotFound if there is
// none.
func (r *Registry) Resolve(ctx context.Context, repository, reference string) (string, error) {
	e, err := r.find(ctx, repository, reference)
	return e.Digest.String(), err
}

// find returns the manifest of a tag or digest.
func (r *Registry) find(ctx context.Context, repository, reference string) (e entry, err error) {
	between := ":"
	if strings.Contains(reference, ":") { // a digest, or what is meant as one
		between = "@"
	}
	missing := fleetscore.Errorf(fleetscore.NotFound, "find image", repository+between+reference, "this registry has no such image").WithHint("fleetscore image ls shows which there are")
	if checkRepository(repository) != nil {
		return e, missing
	}
	d := digest.Digest(reference)
	if d.Validate() != nil {
		if !goodTag(reference) {
			return e, missing
		}
		var t tag
		if err := r.readJSON(ctx, tagName(repository, reference), &t); err != nil {
			if fleetscore.NotFound.Is(err) {
				err = missing
			}
			return e, err
		}
		d = t.Digest
	}
	err = r.readJSON(ctx, manifestName(repository, d), &e)
	if fleetscore.NotFound.Is(err) {
		err = missing
	}
	return e, err
}

// errLocked is why a tag isn't moved, or a manifest isn't deleted.
func errLocked(repository, tag string) error {
	return fleetscore.Errorf(fleetscore.Conflict, "change image", repository+":"+tag, "the tag is locked").WithHint("fleetscore image unlock %s:%s", repository, tag)
}

// isLocked tells such an error from others.
func isLocked(err error) bool {
	var e *fleetscore.Error
	return errors.As(err, &e) && e.Kind == fleetscore.Conflict
}
