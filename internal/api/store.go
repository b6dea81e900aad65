package api

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/fleet/versions"
	"github.com/fleetscore/fleetscore/internal/images"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Blob is an entry of the store; a folder's name ends in "/" and its other fields are
// zero.
type Blob struct {
	Name      fleetscore.BlobName `json:"name"`
	SizeBytes int64               `json:"size_bytes"`
	Modified  time.Time           `json:"modified,omitzero"`
	ETag      string              `json:"etag,omitempty"`
}

func blobOf(i store.Info) Blob { return Blob{i.Name, i.SizeBytes, i.Modified, i.ETag} }

func (s *server) registerStore(api huma.API) {
	add(api, huma.Operation{OperationID: "list store", Method: http.MethodGet, Path: "/store", Tags: []string{"store"}, Summary: "Blobs in the store"}, s.listStore)
	add(api, huma.Operation{OperationID: "read blob", Method: http.MethodGet, Path: "/store/{name}", Tags: []string{"store"}, Summary: "A blob's bytes; the name may contain slashes",
		Responses: plain("200", "application/octet-stream"), Metadata: map[string]any{restOfPath: true}}, s.readBlob)
}

func (s *server) registerImages(api huma.API) {
	add(api, huma.Operation{OperationID: "list images", Method: http.MethodGet, Path: "/images", Tags: []string{"images"}, Summary: "Container images in the server's registry"},
		func(ctx context.Context, _ *struct{}) (*body[List[images.Image]], error) {
			all, err := s.deps.Images.List(ctx)
			return answerList(all, ""), err
		})
	add(api, huma.Operation{OperationID: "lock image", Method: http.MethodPost, Path: "/images/lock", Tags: []string{"images"}, Summary: "Keep a tag from being moved or deleted, or let go of it"}, s.lockImage)
	add(api, huma.Operation{OperationID: "remove image", Method: http.MethodPost, Path: "/images/remove", Tags: []string{"images"}, Summary: "Delete a tag, or an image by its digest with all its tags"}, s.removeImage)
	add(api, huma.Operation{OperationID: "collect images", Method: http.MethodPost, Path: "/images/gc", Tags: []string{"images"},
		Summary: "Remove images that have no tag and that no pool, job or kept result needs, and content that no image refers to"}, s.collectImages)
}

func (s *server) lockImage(ctx context.Context, in *struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		Image  string `json:"image" doc:"REPOSITORY:TAG"`
		Locked bool   `json:"locked"`
	}
}) (*struct{}, error) {
	repository, tag := images.Split(in.Body.Image)
	if err := s.deps.Images.Lock(ctx, repository, tag, in.Body.Locked); err != nil {
		return nil, err
	}
	what := "unlock image"
	if in.Body.Locked {
		what = "lock image"
	}
	s.audit(ctx, in.Author, what, in.Body.Image)
	return nil, nil
}

func (s *server) removeImage(ctx context.Context, in *struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		Image string `json:"image" doc:"REPOSITORY:TAG or REPOSITORY@DIGEST"`
	}
}) (*struct{}, error) {
	repository, reference := images.Split(in.Body.Image)
	if cited, err := s.cited(ctx); err != nil {
		return nil, err
	} else if why := cited[reference]; why != "" {
		return nil, fleetscore.Errorf(fleetscore.Conflict, "remove image", in.Body.Image, "%s", why).
			WithHint("an image can be removed when no pool names it by its digest, no job runs in it, and the results that were made with it are gone")
	}
	if err := s.deps.Images.Remove(ctx, repository, reference); err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "remove image", in.Body.Image)
	return nil, nil
}

// cited are the digests of images that are needed, and why: pools of the configuration in
// force name them, jobs run in them, or results that are kept were made with them.
func (s *server) cited(ctx context.Context) (map[string]string, error) {
	cfg, err := s.configured(ctx)
	if err != nil && !fleetscore.NotFound.Is(err) {
		return nil, err
	}
	// A job leaves a note before it ends, so that it is found here or there.
	jobs, err := s.deps.Ledger.Jobs(ctx, ledger.JobFilter{States: slices.DeleteFunc(slices.Clone(fleetscore.JobStates), fleetscore.JobState.Ended)})
	if err != nil {
		return nil, err
	}
	notes, err := s.deps.Catalog.ImageNotes(ctx, s.now())
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	cite := func(image, format string, args ...any) {
		_, reference := images.Split(image)
		out[reference] = fmt.Sprintf(format, args...) // a tag is no image's digest
	}
	for image, n := range notes {
		cite(image, "the results of job %s were made with it", n.Job)
	}
	for _, j := range jobs {
		for _, image := range j.Images() {
			cite(image, "job %s runs in it", j.ID)
		}
	}
	for name, p := range cfg.Pools {
		if p.Docker != nil {
			cite(p.Docker.Image, "pool %s of the configuration in force names it", name)
		}
	}
	for name, p := range cfg.Pipelines {
		for _, e := range p.Python.Environments {
			if e.Image != "" {
				cite(e.Image, "pipeline %s of the configuration in force names it", name)
			}
		}
	}
	return out, nil
}

func (s *server) collectImages(ctx context.Context, in *struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		DryRun bool `json:"dry_run" doc:"remove nothing, only say what would be removed"`
	}
}) (*body[images.Collected], error) {
	cited, err := s.cited(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.deps.Images.GC(ctx, cited, in.Body.DryRun)
	if err != nil {
		return nil, err
	}
	if !in.Body.DryRun {
		s.audit(ctx, in.Author, "collect images", "")
	}
	return answer(c), nil
}

// ListStoreInput says what to list; exported, because huma ignores embedded types
// that aren't.
type ListStoreInput struct {
	Prefix    string `query:"prefix"`
	Delimiter bool   `query:"delimiter" doc:"only the direct children of the prefix's folder, each subfolder once"`
	Limit     int    `query:"limit" default:"1000" minimum:"1" maximum:"10000"`
	After     string `query:"after" doc:"the field next of the previous page"`
}

func (s *server) listStore(ctx context.Context, in *ListStoreInput) (*body[List[Blob]], error) {
	var page []Blob
	for info, err := range s.deps.Store.List(ctx, in.Prefix, store.ListOptions{After: fleetscore.BlobName(in.After), Delimiter: in.Delimiter}) {
		if err != nil {
			return nil, err
		}
		if len(page) == in.Limit {
			return answerList(page, string(page[len(page)-1].Name)), nil
		}
		page = append(page, blobOf(info))
	}
	return answerList(page, ""), nil
}

func (s *server) readBlob(ctx context.Context, in *struct {
	Name string `path:"name"`
}) (*huma.StreamResponse, error) {
	r, err := s.deps.Store.Get(ctx, fleetscore.BlobName(in.Name), 0, -1)
	if err != nil {
		return nil, err
	}
	return stream(r, "application/octet-stream"), nil
}

func (s *server) registerVersions(api huma.API) {
	add(api, huma.Operation{OperationID: "push models", Method: http.MethodPost, Path: "/fleets/{name}/versions", Tags: []string{"fleets"},
		Summary:     "Check models, and put them into the fleet's folder as a new version",
		RequestBody: bytesBody("application/x-tar", "an archive of files: keys/3/pressure is the model of the sensor 3/pressure, names/model_3_pressure.pkl a file in the fleet's folder")}, s.pushModels)
	add(api, huma.Operation{OperationID: "list versions of models", Method: http.MethodGet, Path: "/fleets/{name}/versions", Tags: []string{"fleets"}, Summary: "What was pushed into a fleet, the newest first"}, s.listVersions)
	add(api, huma.Operation{OperationID: "show version of models", Method: http.MethodGet, Path: "/fleets/{name}/versions/{version}", Tags: []string{"fleets"}, Summary: "A version and the files that it changed"}, s.showVersion)
	add(api, huma.Operation{OperationID: "roll models back", Method: http.MethodPost, Path: "/fleets/{name}/rollback", Tags: []string{"fleets"}, Summary: "Bring back the files that later versions have changed, as a new version"}, s.rollbackModels)
}

// Pushed is what came of a push or a rollback.
type Pushed struct {
	versions.Version
	Generation fleetscore.GenerationID `json:"generation,omitempty" doc:"the fleet's generation with these models; empty if there is none yet"`
	Problem    string                  `json:"problem,omitempty" doc:"why there is no new generation"`
	Findings   []fleet.Cause           `json:"findings" doc:"what was noticed about the models and doesn't keep them from being scored, or was pushed unchecked"`
}

// PushModelsInput is a push of models.
type PushModelsInput struct {
	FleetPath
	Author    string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Message   string `query:"message" maxLength:"1000" doc:"why, for people"`
	Unchecked bool   `query:"unchecked" doc:"push models, too, that can't be scored natively or don't fit the pipelines"`
	Upload
}

func (s *server) pushModels(ctx context.Context, in *PushModelsInput) (*body[Pushed], error) {
	cfg, c, err := s.fleetConfig(ctx, "push models to fleet", in.Name)
	if err != nil {
		return nil, err
	}
	spec, err := fleet.SpecOf(in.Name, c, cfg.Hub.Key)
	if err != nil {
		return nil, err
	}
	if s.cfg.PushDir != "" {
		err = os.MkdirAll(s.cfg.PushDir, 0o700)
	}
	var dir string
	if err == nil {
		dir, err = os.MkdirTemp(s.cfg.PushDir, "push-")
	}
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "push models to fleet", in.Name, "%w", err)
	}
	defer os.RemoveAll(dir)
	staged, err := store.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer staged.Close()
	names, err := s.stage(ctx, in.body(s.cfg.MaxUploadBytes), spec, store.Sub(s.deps.Store, c.Path), staged)
	if err != nil {
		return nil, err
	}
	v, found, err := s.deps.Fleets.Push(ctx, in.Name, staged, names, in.Unchecked, versions.Meta{Author: s.caller(ctx, in.Author), Message: in.Message})
	if err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "push models", fmt.Sprintf("version %d of fleet %s", v.Number, in.Name))
	return answer(s.pushed(ctx, in.Name, v, found.Causes)), nil
}

// pushed makes a generation of a version that is in place.
func (s *server) pushed(ctx context.Context, name string, v *versions.Version, findings []fleet.Cause) Pushed {
	out := Pushed{Version: *v, Findings: findings}
	out.Changes = nil // they may be many; the version shows them
	if out.Findings == nil {
		out.Findings = []fleet.Cause{}
	}
	if found, err := s.deps.Fleets.Sync(ctx, name); err != nil {
		out.Problem = err.Error()
	} else {
		out.Generation = found.Generation.ID
	}
	return out
}

// stage puts the files of an archive into a bucket, by their names in the fleet's folder.
func (s *server) stage(ctx context.Context, from io.Reader, spec fleet.Spec, folder, to store.Bucket) (names []string, err error) {
	const op = "push models to fleet"
	arriving, namer, seen := &failing{r: from}, fleet.NewNamer(folder, spec), map[string]bool{}
	archive := tar.NewReader(arriving)
	for {
		h, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF) && len(names) == 0:
			return nil, fleetscore.Errorf(fleetscore.Invalid, op, spec.Fleet, "the archive has no files")
		case errors.Is(err, io.EOF):
			return names, nil
		case arriving.err != nil:
			return nil, fleetscore.Wrap(op, spec.Fleet, bodyError(arriving.err))
		case err != nil:
			return nil, fleetscore.Errorf(fleetscore.Invalid, op, spec.Fleet, "the body is no tar archive: %w", err)
		case h.Typeflag == tar.TypeDir:
			continue
		case h.Typeflag != tar.TypeReg || h.Size == 0:
			return nil, fleetscore.Errorf(fleetscore.Invalid, op, h.Name, "the archive's entry is empty, or is no file")
		}
		name, err := nameOf(ctx, h.Name, spec, namer)
		if err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, fleetscore.Errorf(fleetscore.Invalid, op, name, "the file is in the archive twice")
		}
		if _, err := to.Put(ctx, fleetscore.BlobName(name), archive, store.PutOptions{}); err != nil {
			if arriving.err != nil {
				err = bodyError(arriving.err)
			}
			return nil, fleetscore.Wrap(op, h.Name, err)
		}
		names, seen[name] = append(names, name), true
	}
}

// nameOf is the name in a fleet's folder of a file of a push.
func nameOf(ctx context.Context, entry string, spec fleet.Spec, namer *fleet.Namer) (string, error) {
	if key, ok := strings.CutPrefix(entry, "keys/"); ok {
		k, err := keyOf(key, spec.KeyNames)
		if err != nil {
			return "", err
		}
		return namer.Name(ctx, k)
	}
	name, ok := strings.CutPrefix(entry, "names/")
	if !ok {
		return "", fleetscore.Errorf(fleetscore.Invalid, "push models to fleet", entry, "the name begins neither with keys/ nor with names/").
			WithHint("write keys/3/pressure for the model of the sensor 3/pressure, or names/FILE for a file in the fleet's folder")
	}
	return name, checkModelName(name, spec)
}

// checkModelName refuses names that no sensor's model has.
func checkModelName(name string, spec fleet.Spec) error {
	if spec.Sensors != "" { // a list may use any file name
		return nil
	}
	if _, ok := spec.Model.Match(name); !ok {
		return fleetscore.Errorf(fleetscore.Invalid, "upload model", name, "the name doesn't match the fleet's template %s", spec.Model).
			WithHint("use a name that matches the template; otherwise no sensor would use the model")
	}
	return nil
}

func (s *server) versions(ctx context.Context, name string) (*versions.Versions, error) {
	_, c, err := s.fleetConfig(ctx, "list versions of models", name)
	if err != nil {
		return nil, err
	}
	return versions.Of(s.deps.Store, name, c.Path), nil
}

func (s *server) listVersions(ctx context.Context, in *struct {
	FleetPath
	Limit int `query:"limit" default:"20" minimum:"1" maximum:"100"`
}) (*body[List[versions.Version]], error) {
	v, err := s.versions(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	all, err := v.List(ctx, in.Limit)
	return answerList(all, ""), err
}

func (s *server) showVersion(ctx context.Context, in *struct {
	FleetPath
	Version int `path:"version" minimum:"1"`
}) (*body[versions.Version], error) {
	v, err := s.versions(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	one, err := v.Get(ctx, in.Version)
	if err != nil {
		return nil, err
	}
	return answer(*one), nil
}

// RollbackInput says which version's files to bring back.
type RollbackInput struct {
	FleetPath
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		To      int    `json:"to" minimum:"0" doc:"the version; 0 is the time before the first push"`
		Message string `json:"message,omitempty" maxLength:"1000"`
	}
}

func (s *server) rollbackModels(ctx context.Context, in *RollbackInput) (*body[Pushed], error) {
	v, err := s.deps.Fleets.Rollback(ctx, in.Name, in.Body.To, versions.Meta{Author: s.caller(ctx, in.Author), Message: in.Body.Message})
	if err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "roll models back", fmt.Sprintf("to version %d of fleet %s", in.Body.To, in.Name))
	return answer(s.pushed(ctx, in.Name, v, nil)), nil
}
