package api

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/compare"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Fleet is a fleet of the configuration and its current generation.
type Fleet struct {
	Name       string                  `json:"name"`
	Path       string                  `json:"path"`
	Model      string                  `json:"model,omitempty" doc:"template of a model's name"`
	Sensors    string                  `json:"sensors,omitempty" doc:"the list of expected sensors, a file in path"`
	KeyNames   []string                `json:"key_names,omitempty"`
	Generation fleetscore.GenerationID `json:"generation,omitempty" doc:"empty until the models were compiled for the first time"`
	Members    int64                   `json:"members" doc:"expected sensors"`
	Native     int64                   `json:"native" doc:"number of these sensors whose model is scored natively"`
	Created    *time.Time              `json:"created,omitempty" doc:"when the generation was made"`
	Synced     *time.Time              `json:"synced,omitempty" doc:"when the models were last checked"`
	Ignored    []string                `json:"ignored,omitempty" doc:"files that belong to no sensor, the first 100"`
	Problem    string                  `json:"problem,omitempty" doc:"why the models could not be read at the last check"`
	Health     *fleet.Diagnosis        `json:"health,omitempty" doc:"problems of the models, grouped by cause; only for a single fleet"`
	Since      *fleet.Difference       `json:"since,omitempty" doc:"the differences between this generation and the previous one"`
	Change     *FleetChange            `json:"change,omitempty" doc:"the changes that the sync found"`
	Pipelines  []fleet.Split           `json:"pipelines,omitempty" doc:"with which runtime the pipelines of this fleet score how many sensors; only for a single fleet"`
}

// Model is a sensor's model and the runtime that scores it.
type Model struct {
	Key       string                 `json:"key"`
	File      string                 `json:"file,omitempty"`
	SizeBytes int64                  `json:"size_bytes"`
	Runtime   fleetscore.RuntimeName `json:"runtime,omitempty" doc:"empty if none scores it"`
	Reason    string                 `json:"reason" doc:"why this runtime, or why none"`
	Fix       string                 `json:"fix,omitempty" doc:"what to do if that isn't wanted"`
	MadeWith  string                 `json:"made_with,omitempty" doc:"the releases that the file names"`
}

// FleetChange describes the changes that a sync found.
type FleetChange struct {
	New       bool  `json:"new" doc:"whether the sync made a new generation"`
	Added     int64 `json:"added" doc:"sensors"`
	Changed   int64 `json:"changed" doc:"sensors whose model's file has new content"`
	Removed   int64 `json:"removed" doc:"sensors"`
	FilesRead int64 `json:"files_read"`
	Segments  int   `json:"segments_written"`
}

func (s *server) registerFleets(api huma.API) {
	add(api, huma.Operation{OperationID: "list fleets", Method: http.MethodGet, Path: "/fleets", Tags: []string{"fleets"}, Summary: "Fleets and their generations"}, s.listFleets)
	add(api, huma.Operation{OperationID: "show fleet", Method: http.MethodGet, Path: "/fleets/{name}", Tags: []string{"fleets"}, Summary: "A fleet, and what is wrong with its models, grouped by cause"}, s.showFleet)
	add(api, huma.Operation{OperationID: "list models", Method: http.MethodGet, Path: "/fleets/{name}/models", Tags: []string{"fleets"}, Summary: "The sensors of a fleet, the runtime that scores each one's model, and why"}, s.listModels)
	add(api, huma.Operation{OperationID: "sync fleet", Method: http.MethodPost, Path: "/fleets/{name}/sync", Tags: []string{"fleets"}, Summary: "Check the models now, and compile changed ones"}, s.syncFleet)
	add(api, huma.Operation{OperationID: "list quarantine", Method: http.MethodGet, Path: "/quarantine", Tags: []string{"fleets"}, Summary: "Models that did harm when they were scored last, and those that are in quarantine"}, s.listQuarantine)
	add(api, huma.Operation{OperationID: "release models", Method: http.MethodPost, Path: "/fleets/{name}/release", Tags: []string{"fleets"}, Summary: "Take models out of quarantine"}, s.release)
	add(api, huma.Operation{OperationID: "compare fleets", Method: http.MethodGet, Path: "/fleets/{name}/diff", Tags: []string{"fleets"},
		Summary: "In which sensors and models two generations differ: a line of JSON for each, and the total", Responses: plain("200", ndjson)}, s.diffFleets)
	add(api, huma.Operation{OperationID: "compare results", Method: http.MethodGet, Path: "/pipelines/{pipeline}/diff", Tags: []string{"fleets"},
		Summary: "In what the results of two pipelines differ: a line of JSON for each sensor, and the total", Responses: plain("200", ndjson)}, s.diffResults)
	add(api, huma.Operation{OperationID: "upload model", Method: http.MethodPut, Path: "/fleets/{name}/models/{model}", Tags: []string{"fleets"}, Summary: "Put a model's file into the fleet's folder",
		RequestBody: bytesBody("application/octet-stream", "the model as it was saved: pickle, joblib, skops"), Metadata: map[string]any{restOfPath: true}}, s.putModel)
}

// bytesBody documents a body that isn't JSON and is read while it arrives.
func bytesBody(contentType, description string) *huma.RequestBody {
	return &huma.RequestBody{Required: true, Description: description, Content: map[string]*huma.MediaType{
		contentType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}
}

// Upload lets a handler read the request's body while it arrives.
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
	f := Fleet{Name: name, Path: c.Path, Model: c.Model, Sensors: c.Sensors}
	if g != nil {
		f.KeyNames, f.Generation, f.Members, f.Created, f.Ignored = g.KeyNames, g.ID, g.Members, known(g.Created), g.Ignored
		f.Native, f.Since = g.Health.Native, &g.Since
	}
	synced, err := s.deps.Fleets.Status(name)
	if f.Synced = known(synced); err != nil {
		f.Problem = err.Error()
	}
	return f
}

// currentFleet returns a fleet's current generation, or nil if there is none yet.
func (s *server) currentFleet(ctx context.Context, name string) (*fleet.Generation, error) {
	g, err := fleet.Current(ctx, s.deps.Store, name)
	if fleetscore.NotFound.Is(err) {
		return nil, nil
	}
	return g, err
}

func (s *server) listFleets(ctx context.Context, _ *struct{}) (*body[List[Fleet]], error) {
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	var out []Fleet
	for _, name := range slices.Sorted(maps.Keys(cfg.Fleets)) {
		g, err := s.currentFleet(ctx, name)
		if err != nil {
			return nil, err
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
		return cfg, c, fleetscore.Errorf(fleetscore.NotFound, op, name, "the configuration has no fleet of this name").
			WithHint("fleetscore fleet list shows all fleets; fleetscore apply adds a fleet")
	}
	return cfg, c, nil
}

// FleetPath is the path of a fleet.
type FleetPath struct {
	Name string `path:"name"`
}

func (s *server) showFleet(ctx context.Context, in *FleetPath) (*body[Fleet], error) {
	cfg, c, err := s.fleetConfig(ctx, "show fleet", in.Name)
	if err != nil {
		return nil, err
	}
	g, err := s.currentFleet(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	f := s.fleetOf(c, in.Name, g)
	if g != nil {
		if f.Health, err = s.diagnosis(ctx, cfg, in.Name, g); err != nil {
			return nil, err
		}
		for _, p := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
			if cfg.Pipelines[p].Fleet == in.Name {
				f.Pipelines = append(f.Pipelines, g.Health.Split(p, cfg.Pipelines[p].Runtime, g.Members))
			}
		}
	}
	return answer(f), nil
}

type listModelsInput struct {
	FleetPath
	Pipeline string `query:"pipeline" doc:"the runtimes that this pipeline uses; empty: those that auto chooses"`
	Runtime  string `query:"runtime" enum:"native,python,onnx,command,none" doc:"only models with this runtime"`
	Limit    int    `query:"limit" default:"1000" minimum:"1" maximum:"10000"`
	After    string `query:"after" doc:"the field next of the previous page"`
}

func (s *server) listModels(ctx context.Context, in *listModelsInput) (*body[List[Model]], error) {
	const op = "list models of fleet"
	cfg, _, err := s.fleetConfig(ctx, op, in.Name)
	if err != nil {
		return nil, err
	}
	use := fleetscore.RuntimeAuto
	if in.Pipeline != "" {
		p, ok := cfg.Pipelines[in.Pipeline]
		if !ok || p.Fleet != in.Name {
			return nil, fleetscore.Errorf(fleetscore.NotFound, op, in.Name, "no pipeline %s scores with this fleet", in.Pipeline)
		}
		use = cmp.Or(p.Runtime, fleetscore.RuntimeNative)
	}
	g, err := s.currentFleet(ctx, in.Name)
	from := 0
	if id, at, ok := strings.Cut(in.After, "/"); ok && err == nil { // further pages are of the same generation
		if from, err = strconv.Atoi(at); err != nil || from < 0 {
			return nil, fleetscore.Errorf(fleetscore.Invalid, op, in.After, "it is no field next of a page")
		}
		g, err = fleet.Load(ctx, s.deps.Store, in.Name, fleetscore.GenerationID(id))
	}
	if g == nil || err != nil {
		return answerList([]Model(nil), ""), err
	}
	entries, next, err := fleet.Page(ctx, s.deps.Store, g, from, in.Limit, func(e fleet.Entry) bool {
		return in.Runtime == "" || cmp.Or(string(e.Choose(use).Runtime), "none") == in.Runtime
	})
	var out []Model
	for _, e := range entries {
		c := e.Choose(use)
		out = append(out, Model{Key: e.Key.String(), File: e.Name, SizeBytes: e.SizeBytes, Runtime: c.Runtime, Reason: c.Reason, Fix: c.Fix, MadeWith: c.MadeWith})
	}
	more := ""
	if next > 0 {
		more = string(g.ID) + "/" + strconv.Itoa(next)
	}
	return answerList(out, more), err
}

// diagnosis returns a generation's health, checked against the pipelines that use it, with
// the models that did harm.
func (s *server) diagnosis(ctx context.Context, cfg fleetscore.Config, name string, g *fleet.Generation) (*fleet.Diagnosis, error) {
	h := g.Health
	for _, p := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		if c := cfg.Pipelines[p]; c.Fleet == name {
			h = h.Against("pipeline "+p, c.Features, c.FeaturesBy)
		}
	}
	harms, err := s.deps.Ledger.Harms(ctx, name)
	h = h.WithHarm(harms)
	return &h, err
}

type quarantineInput struct {
	Fleet string `query:"fleet" doc:"only of this fleet"`
}

func (s *server) listQuarantine(ctx context.Context, in *quarantineInput) (*body[List[fleetscore.Harm]], error) {
	if in.Fleet != "" {
		if _, _, err := s.fleetConfig(ctx, "list quarantine", in.Fleet); err != nil {
			return nil, err
		}
	}
	harms, err := s.deps.Ledger.Harms(ctx, in.Fleet)
	return answerList(harms, ""), err
}

type releaseInput struct {
	FleetPath
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		Keys []string `json:"keys,omitempty" maxItems:"1000" doc:"these sensors, such as 3/pressure"`
		All  bool     `json:"all,omitempty" doc:"all sensors of the fleet"`
	}
}

func (s *server) release(ctx context.Context, in *releaseInput) (*body[List[fleetscore.Harm]], error) {
	const op = "release models of fleet"
	if _, _, err := s.fleetConfig(ctx, op, in.Name); err != nil {
		return nil, err
	}
	if in.Body.All == (len(in.Body.Keys) > 0) {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, in.Name, "the request names no sensors, or names some and all").WithHint("give either keys or all")
	}
	released, err := s.deps.Scheduler.Release(ctx, in.Name, in.Body.Keys)
	if err != nil {
		return nil, err
	}
	for _, h := range released {
		s.audit(ctx, in.Author, "release", h.Key.String()+" of fleet "+in.Name)
	}
	return answerList(released, ""), nil
}

func (s *server) syncFleet(ctx context.Context, in *FleetPath) (*body[Fleet], error) {
	cfg, c, err := s.fleetConfig(ctx, "sync fleet", in.Name)
	if err != nil {
		return nil, err
	}
	found, err := s.deps.Fleets.Sync(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	f := s.fleetOf(c, in.Name, found.Generation)
	if f.Health, err = s.diagnosis(ctx, cfg, in.Name, found.Generation); err != nil {
		return nil, err
	}
	f.Change = &FleetChange{New: found.New, Added: found.Added, Changed: found.Changed, Removed: found.Removed, FilesRead: found.Read, Segments: found.Segments}
	return answer(f), nil
}

// failing keeps the error of its reader.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
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
		return nil, fleetscore.Errorf(fleetscore.Conflict, "upload model to fleet", in.Name, "the fleet's models are in %s, a folder of the server's machine", c.Path).
			WithHint("copy the file there, or set the fleet's path to a folder in the store, such as models/%s", in.Name)
	}
	spec, err := fleet.SpecOf(in.Name, c, cfg.Hub.Key)
	if err != nil {
		return nil, err
	}
	if err := checkModelName(in.Model, spec); err != nil {
		return nil, err
	}
	upload := bufio.NewReaderSize(in.body(s.cfg.MaxUploadBytes), 64<<10)
	if _, err := upload.Peek(1); errors.Is(err, io.EOF) {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "upload model", in.Model, "the body is empty")
	} else if err != nil {
		return nil, fleetscore.Wrap("upload model", in.Model, bodyError(err))
	}
	body := &failing{r: upload}
	info, err := store.Sub(s.deps.Store, c.Path).Put(ctx, fleetscore.BlobName(in.Model), body, store.PutOptions{})
	if body.err != nil {
		return nil, fleetscore.Wrap("upload model", in.Model, bodyError(body.err)) // the client's body failed, not the store, which keeps nothing of the model
	}
	if err != nil {
		return nil, err
	}
	b := blobOf(info)
	b.Name = fleetscore.BlobName(strings.Trim(c.Path, "/") + "/" + in.Model)
	return answer(b), nil
}

// ndjson is the type of answers with a JSON object per line.
const ndjson = "application/x-ndjson"

// Line is a line of a comparison: an item, or, at the very end, the total.
type Line[T, S any] struct {
	Item  *T `json:"item,omitempty"`
	Total *S `json:"total,omitempty"`
}

// lines answers with what run emits, a JSON object per line. An error before there is
// much to send is an answer of its own; later it ends the answer early.
func lines(run func(emit func(line any) error) error) (*huma.StreamResponse, error) {
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w := bufio.NewWriterSize(pw, 64<<10)
		err := run(json.NewEncoder(w).Encode)
		if err == nil {
			err = w.Flush()
		}
		pw.CloseWithError(err)
	}()
	in := bufio.NewReader(pr)
	out := &emitted{in, func() error {
		err := pr.Close()
		<-done
		return err
	}}
	if _, err := in.Peek(1); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, out.Close())
	}
	return stream(out, ndjson), nil
}

// emitted reads what a goroutine writes; close waits for its end.
type emitted struct {
	io.Reader
	close func() error
}

func (e *emitted) Close() error { return e.close() }

func (s *server) diffFleets(_ context.Context, in *struct {
	FleetPath
	Upload
	Generation     fleetscore.GenerationID `query:"generation" doc:"empty means the current one"`
	With           string                  `query:"with" doc:"the other fleet; empty means the same one"`
	WithGeneration fleetscore.GenerationID `query:"with_generation" doc:"empty means the current one"`
}) (*huma.StreamResponse, error) {
	ctx := in.request.Context() // it lasts as long as the answer is written
	to := fleet.Ref{Fleet: cmp.Or(in.With, in.Name), Generation: in.WithGeneration}
	for _, name := range []string{in.Name, to.Fleet} {
		if _, _, err := s.fleetConfig(ctx, "compare fleets", name); err != nil {
			return nil, err
		}
	}
	return lines(func(emit func(any) error) error {
		total, err := fleet.Diff(ctx, s.deps.Store, fleet.Ref{Fleet: in.Name, Generation: in.Generation}, to, func(c fleet.MemberChange) error {
			return emit(Line[fleet.MemberChange, fleet.Changes]{Item: &c})
		})
		if err != nil {
			return err
		}
		return emit(Line[fleet.MemberChange, fleet.Changes]{Total: &total})
	})
}

// ResultsDiff is the total of a comparison of two pipelines' results.
type ResultsDiff struct {
	Pipeline string              `json:"pipeline" doc:"side a"`
	With     string              `json:"with" doc:"side b"`
	Interval fleetscore.Interval `json:"interval"`
	compare.Total
}

func (s *server) diffResults(_ context.Context, in *struct {
	Upload
	Pipeline string    `path:"pipeline"`
	With     string    `query:"with" required:"true" doc:"the other pipeline, such as a shadow of this one"`
	From     time.Time `query:"from" doc:"start of the interval; the interval doesn't include it. Without from and to: the time that both have predictions of"`
	To       time.Time `query:"to" doc:"end of the interval; the interval includes it"`
	Keys     []string  `query:"key,explode" maxItems:"1000" doc:"only these sensors, such as 3/pressure"`
}) (*huma.StreamResponse, error) {
	const op = "compare results"
	ctx := in.request.Context()
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{in.Pipeline, in.With} {
		if _, ok := cfg.Pipelines[name]; !ok {
			return nil, fleetscore.Errorf(fleetscore.NotFound, op, name, "there is no such pipeline%s", nearest(name, slices.Collect(maps.Keys(cfg.Pipelines)))).
				WithHint("fleetscore schedule list shows the pipelines")
		}
	}
	if in.Pipeline == in.With {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, in.With, "a pipeline can't be compared with itself")
	}
	q := catalog.Comparison{A: in.Pipeline, B: in.With, From: in.From.UTC(), To: in.To.UTC()}
	for _, text := range in.Keys {
		k, err := keyOf(text, cfg.Fleets[cfg.Pipelines[in.Pipeline].Fleet].KeyOr(cfg.Hub.Key))
		if err != nil {
			return nil, err
		}
		q.Keys = append(q.Keys, k)
	}
	return lines(func(emit func(any) error) error {
		total := ResultsDiff{Pipeline: in.Pipeline, With: in.With, Total: compare.NewTotal()}
		total.Interval, err = s.deps.Catalog.Compare(ctx, q, func(k compare.Sensor) error {
			total.Add(k)
			return emit(Line[compare.Sensor, ResultsDiff]{Item: &k})
		})
		if err != nil {
			return err
		}
		return emit(Line[compare.Sensor, ResultsDiff]{Total: &total})
	})
}

// keyOf reads a key as people write it: its values with slashes between them.
func keyOf(text string, columns []string) (fleetscore.Key, error) {
	values := []string{text}
	if len(columns) > 1 {
		values = strings.Split(text, "/")
	}
	if len(values) != len(columns) {
		return "", fleetscore.Errorf(fleetscore.Invalid, "read key", text, "it has %s, and the key columns are %s", fleetscore.Counted(len(values), "value"), strings.Join(columns, ", ")).
			WithHint("write the values with slashes between them, such as 3/pressure")
	}
	return fleetscore.NewKey(values...)
}

// nearest asks whether the known name was meant that is most similar to a mistyped one.
func nearest(name string, known []string) string {
	if best := fleetscore.Nearest(name, known); best != "" {
		return "; is " + best + " meant?"
	}
	return ""
}
