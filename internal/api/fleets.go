package api

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Fleet is a fleet of the configuration and its current generation.
type Fleet struct {
	Name       string                  `json:"name"`
	Path       string                  `json:"path"`
	Model      string                  `json:"model" doc:"template of a model's name"`
	KeyNames   []string                `json:"key_names,omitempty"`
	Generation fleetscore.GenerationID `json:"generation,omitempty" doc:"empty until the models were compiled for the first time"`
	Members    int64                   `json:"members"`
	Created    *time.Time              `json:"created,omitempty" doc:"when the generation was made"`
	Ignored    []string                `json:"ignored,omitempty" doc:"files that belong to no sensor, the first 100"`
	Changed    bool                    `json:"changed,omitempty" doc:"whether a sync made a new generation"`
	Problem    string                  `json:"problem,omitempty" doc:"why the models could not be read when they were last looked at"`
}

func (s *server) registerFleets(api huma.API) {
	add(api, huma.Operation{OperationID: "list fleets", Method: http.MethodGet, Path: "/fleets", Tags: []string{"fleets"}, Summary: "Fleets and their generations"}, s.listFleets)
	add(api, huma.Operation{OperationID: "sync fleet", Method: http.MethodPost, Path: "/fleets/{name}/sync", Tags: []string{"fleets"}, Summary: "Compile the models if they changed"}, s.syncFleet)
	add(api, huma.Operation{OperationID: "upload model", Method: http.MethodPut, Path: "/fleets/{name}/models/{model}", Tags: []string{"fleets"}, Summary: "Put a model's file into the fleet's folder",
		RequestBody: bytesBody("application/octet-stream", "the model as it was saved: pickle, joblib"), Metadata: map[string]any{restOfPath: true}}, s.putModel)
}

// bytesBody documents a body that isn't JSON and is read while it arrives.
func bytesBody(contentType, description string) *huma.RequestBody {
	return &huma.RequestBody{Required: true, Description: description, Content: map[string]*huma.MediaType{
		contentType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}
}

// Upload gives a handler the request's body as it arrives.
type Upload struct {
	request *http.Request
	writer  http.ResponseWriter
}

// Resolve keeps the request for its body.
func (u *Upload) Resolve(ctx huma.Context) []error {
	u.request, u.writer = humago.Unwrap(ctx)
	return nil
}

// body ends with an http.MaxBytesError after limit bytes.
func (u *Upload) body(limit int64) io.Reader {
	return http.MaxBytesReader(u.writer, u.request.Body, limit)
}

func (s *server) fleetOf(c fleetscore.FleetConfig, name string, g *fleet.Generation) Fleet {
	f := Fleet{Name: name, Path: c.Path, Model: c.Model}
	if g != nil {
		f.KeyNames, f.Generation, f.Members, f.Created, f.Ignored = g.KeyNames, g.ID, g.Members, known(g.Created), g.Ignored
	}
	if err := s.deps.Scheduler.FleetProblem(name); err != nil {
		f.Problem = err.Error()
	}
	return f
}

func (s *server) listFleets(ctx context.Context, _ *struct{}) (*body[List[Fleet]], error) {
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	var out []Fleet
	for _, name := range slices.Sorted(maps.Keys(cfg.Fleets)) {
		g, err := fleet.Current(ctx, s.deps.Store, name)
		if err != nil && !fleetscore.NotFound.Is(err) {
			return nil, err
		}
		if err != nil {
			g = nil
		}
		out = append(out, s.fleetOf(cfg.Fleets[name], name, g))
	}
	return answerList(out, ""), nil
}

// fleetConfig finds a fleet in the configuration.
func (s *server) fleetConfig(ctx context.Context, op, name string) (fleetscore.Config, fleetscore.FleetConfig, error) {
	cfg, err := s.configured(ctx)
	if err != nil {
		return cfg, fleetscore.FleetConfig{}, err
	}
	c, ok := cfg.Fleets[name]
	if !ok {
		return cfg, c, fleetscore.Errorf(fleetscore.NotFound, op, name, "the configuration has no such fleet").
			WithHint("GET %s/fleets lists them; fleetscore apply adds one", Prefix)
	}
	return cfg, c, nil
}

// FleetPath is the path of a fleet.
type FleetPath struct {
	Name string `path:"name"`
}

func (s *server) syncFleet(ctx context.Context, in *FleetPath) (*body[Fleet], error) {
	_, c, err := s.fleetConfig(ctx, "sync fleet", in.Name)
	if err != nil {
		return nil, err
	}
	g, changed, err := s.deps.Scheduler.SyncFleet(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	f := s.fleetOf(c, in.Name, g)
	f.Changed = changed
	return answer(f), nil
}

type putModelInput struct {
	FleetPath
	Model string `path:"model"`
	Upload
}

func (s *server) putModel(ctx context.Context, in *putModelInput) (*body[Blob], error) {
	cfg, c, err := s.fleetConfig(ctx, "upload model to fleet", in.Name)
	if err != nil {
		return nil, err
	}
	if filepath.IsAbs(c.Path) {
		return nil, fleetscore.Errorf(fleetscore.Conflict, "upload model to fleet", in.Name, "its models lie in %s, a folder of the server's machine", c.Path).
			WithHint("copy the file there, or give the fleet a path in the store, such as models/%s", in.Name)
	}
	template, err := fleet.ParseTemplate(c.Model, cfg.Hub.Key)
	if err != nil {
		return nil, err
	}
	if _, ok := template.Match(in.Model); !ok {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "upload model", in.Model, "the name doesn't fit the fleet's template %s", c.Model).
			WithHint("name it as the template says; no sensor would use it otherwise")
	}
	data, err := io.ReadAll(in.body(s.cfg.MaxUploadBytes))
	if err != nil {
		return nil, fleetscore.Wrap("upload model", in.Model, bodyError(err))
	}
	if len(data) == 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "upload model", in.Model, "the body is empty")
	}
	info, err := store.Sub(s.deps.Store, c.Path).Put(ctx, fleetscore.BlobName(in.Model), bytes.NewReader(data), store.PutOptions{})
	if err != nil {
		return nil, err
	}
	b := blobOf(info)
	b.Name = fleetscore.BlobName(strings.Trim(c.Path, "/") + "/" + in.Model)
	return answer(b), nil
}
