package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/fleet/versions"
	"github.com/fleetscore/fleetscore/internal/hub/tail"
	"github.com/fleetscore/fleetscore/internal/images"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/logs"
	"github.com/fleetscore/fleetscore/internal/mount"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/scheduler"
	"github.com/fleetscore/fleetscore/internal/sensor"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Prefix is the path of the API on its server.
const Prefix = "/api/v1"

// Config sets limits and places for the API.
type Config struct {
	Version        string        // the server's release, for GET /health
	MaxUploadBytes int64         // the size limit of an upload of rows or of a model; 0 means 256 MiB
	StoreLimit     time.Duration // how long the store may take for one step of a node's request; 0 means 20 s, which is less than the 30 s after which a node gives a request up
	TempDir        string        // folder for uploads of rows that wait to be processed; empty means the system's
	PushDir        string        // folder for models that are being pushed, made if absent; empty means the system's
}

// Scheduler has the functions of the scheduler that the API needs.
type Scheduler interface {
	Submit(ctx context.Context, pipeline string, iv *fleetscore.Interval, wishes ...scheduler.Wish) (fleetscore.Job, error)
	Backfill(ctx context.Context, pipeline string, iv fleetscore.Interval, every time.Duration, wishes ...scheduler.Wish) ([]fleetscore.Job, error)
	Rerun(ctx context.Context, which fleetscore.Rerun) (fleetscore.Job, error)
	Cancel(ctx context.Context, id fleetscore.JobID) (fleetscore.Job, error)
	// Release forgets the harm that models of a fleet did, and takes them out of quarantine.
	Release(ctx context.Context, fleet string, keys []string) ([]fleetscore.Harm, error)
	SetPaused(ctx context.Context, pipeline string, paused bool) (time.Time, error)
	Trigger(ctx context.Context, pipeline string) (fleetscore.Job, error)
	// Maintain keeps the tables, the logs and the ledger small, as far as is asked for.
	Maintain(ctx context.Context, m catalog.Maintenance) ([]catalog.Maintained, error)
}

// Broker handles the requests of nodes.
type Broker interface {
	dispatch.Work
	// Access refuses blobs that the task of a lease doesn't need.
	Access(ctx context.Context, lease fleetscore.LeaseID, name string, write bool) error
	// MeasureMount lets the nodes of a pool measure a mount.
	MeasureMount(ctx context.Context, pool string, order dispatch.MountOrder) ([]fleetscore.MountReport, error)
}

// Logs stores and reads the output of tasks' attempts.
type Logs interface {
	dispatch.Logs
	List(ctx context.Context, id fleetscore.JobID) ([]logs.Ref, error)
	Open(ctx context.Context, id fleetscore.JobID, index, attempt int, stream string, from int64) (io.ReadCloser, error)
	AppendNodeLog(ctx context.Context, node fleetscore.NodeID, c dispatch.LogChunk) error
	OpenNode(ctx context.Context, pool string, node fleetscore.NodeID, from int64) (io.ReadCloser, error)
}

// Fleets syncs fleets with their folders of models.
type Fleets interface {
	Sync(ctx context.Context, name string) (*fleet.Change, error)
	// Push checks models and puts those that are named into a fleet's folder, and Rollback
	// brings back what they replaced.
	Push(ctx context.Context, name string, from store.Bucket, names []string, unchecked bool, meta versions.Meta) (*versions.Version, fleet.Diagnosis, error)
	Rollback(ctx context.Context, name string, to int, meta versions.Meta) (*versions.Version, error)
	// Status returns when a fleet's models were last checked, and why they could not be
	// read at that time.
	Status(name string) (time.Time, error)
}

// Images is the registry of container images.
type Images interface {
	List(ctx context.Context) ([]images.Image, error)
	Lock(ctx context.Context, repository, tag string, locked bool) error
	Remove(ctx context.Context, repository, reference string) error
	// GC keeps what is cited.
	GC(ctx context.Context, cited map[string]string, dryRun bool) (images.Collected, error)
}

// Sensors knows the last state of each sensor.
type Sensors interface {
	List(sensor.Query) (list []sensor.Sensor, next string, total int64)
	Counts() []sensor.Counts
}

// Deps are the other parts of the server that the API uses.
type Deps struct {
	Access    *access.Control // who may do what
	Ledger    ledger.Ledger
	Scheduler Scheduler
	Broker    Broker
	Logs      Logs
	Fleets    Fleets
	Store     store.Bucket
	Images    Images
	Mounts    *mount.Checker                                                    // of the server's machine; nil is one by which no mount may be used
	Catalog   *catalog.Catalog                                                  // of the store; nil means that the API opens its own
	Gateway   http.Handler                                                      // answers POST /hubs/{hub}/messages
	Clock     *clock.Clock                                                      // the time that the server acts by; nil is the system's
	Hub       func(context.Context) Hub                                         // what comes in
	Tail      func(context.Context, tail.Query, func(tail.Reading) error) error // reads readings of the log
	Keys      func(context.Context, tail.Query, func(tail.Key) error) error     // what the log says of keys
	Replay    func(context.Context, Replay) (Replayed, error)                   // makes rows of a query again
	Redrive   func(context.Context, ledger.Rejected) (why string, err error)    // hands a rejected message over again
	// RedriveLate hands the readings of a file of late readings over again and deletes the file.
	RedriveLate func(context.Context, fleetscore.BlobName) (readings int64, why string, err error)
	Queries     func() []aggregator.Status                             // how far the queries have come
	Sensors     Sensors                                                // what is known of sensors; nil is nothing
	Servers     func(ctx context.Context) ([]fleetscore.Server, error) // those that share the work; nil lists none
	// Check refuses a configuration that the server can't carry out, and warns of
	// settings that are most likely mistakes.
	Check   func(ctx context.Context, cfg fleetscore.Config) (warnings []string, err error)
	Health  *obs.Health           // the parts that don't work; nil means that this is unknown
	Log     *slog.Logger          // nil discards
	Metrics prometheus.Registerer // nil means none
	Now     func() time.Time      // nil means time.Now
}

// server is the state behind the handlers.
type server struct {
	cfg  Config
	deps Deps
	log  *slog.Logger
	now  func() time.Time

	storeCalls chan struct{} // holds a value for each call of the store that a node caused

	turn    chan struct{} // holds a value while the rows of an upload are in memory
	parsing sync.Mutex    // held while a fleet.yaml is parsed, which takes many times its size
}

// New builds the API's handler. It serves everything below Prefix.
func New(cfg Config, deps Deps) (http.Handler, error) {
	if cfg.MaxUploadBytes == 0 {
		cfg.MaxUploadBytes = 256 << 20
	}
	if deps.Mounts == nil {
		deps.Mounts = &mount.Checker{}
	}
	if cfg.StoreLimit == 0 {
		cfg.StoreLimit = 20 * time.Second
	}
	s := &server{cfg: cfg, deps: deps, log: deps.Log, now: deps.Now, turn: make(chan struct{}, 1), storeCalls: make(chan struct{}, maxStoreCalls)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.deps.Catalog == nil {
		s.deps.Catalog = catalog.New(deps.Store)
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, err
	}
	mux := deps.Access.NewMux(func(w http.ResponseWriter, r *http.Request, why *access.Refusal) {
		if why.Status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="fleetscore"`)
		}
		writeProblem(w, refused(why))
	})
	s.register(mux)
	mux.HandleFunc(Prefix+"/", unknownPath)
	if err := mux.Err(); err != nil {
		return nil, err
	}
	return observe(s.log, m, s.now, mux), nil
}

func unknownPath(w http.ResponseWriter, r *http.Request) {
	writeProblem(w, fleetscore.Errorf(fleetscore.NotFound, "answer request", r.Method+" "+r.URL.Path, "there is no such path, or it can't be used with this method").
		WithHint("GET %s/openapi.json lists all paths", Prefix))
}

// register adds every operation to the mux and the document.
func (s *server) register(mux *access.Mux) {
	cfg := huma.DefaultConfig("Fleetscore", "1")
	cfg.Info.Description = "Takes readings, scores them on a schedule with every sensor's own model, and stores predictions and coverage."
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath = "/openapi", "", ""
	cfg.CreateHooks = nil // no $schema links in answers
	cfg.Transformers = []huma.Transformer{transform}
	cfg.RejectUnknownQueryParameters = true
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "a token of the role that the operation's x-role names, or of a role that may do more"},
	}
	api := huma.NewAPI(cfg, restAdapter{humago.NewAdapter(mux, Prefix)})
	api.OpenAPI().Servers = []*huma.Server{{URL: Prefix}}
	api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) { next(statusContext{ctx}) })

	s.registerConfig(api)
	s.registerJobs(api)
	s.registerSchedules(api)
	s.registerMounts(api)
	s.registerPools(api)
	s.registerDatasets(api)
	s.registerLate(api)
	s.registerFleets(api)
	s.registerVersions(api)
	s.registerStore(api)
	s.registerImages(api)
	s.registerNodeProtocol(api)
	s.registerBlobs(api, mux)
	s.registerStreams(api, mux)
	s.registerTokens(api)
}

// describeAccess writes into the document which role may use an operation.
func describeAccess(op *huma.Operation, pattern string) {
	need := access.Table[pattern].Need
	op.Extensions = map[string]any{"x-role": need}
	op.Security = []map[string][]string{{"token": {}}}
	if need == access.Anyone {
		op.Security = []map[string][]string{}
	}
}

// restAdapter makes the last parameter of an operation marked with restOfPath match
// the whole rest of the path, slashes included.
type restAdapter struct{ huma.Adapter }

const restOfPath = "rest"

func (a restAdapter) Handle(op *huma.Operation, h func(huma.Context)) {
	if op.Metadata[restOfPath] == true {
		wide := *op
		wide.Path = strings.TrimSuffix(op.Path, "}") + "...}"
		op = &wide
	}
	a.Adapter.Handle(op, h)
}

// add registers one operation: its errors become Problems, in answers and in the
// document.
func add[I, O any](api huma.API, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	ref := api.OpenAPI().Components.Schemas.Schema(problemType, true, "")
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["default"] = &huma.Response{Description: "Failure", Content: map[string]*huma.MediaType{"application/json": {Schema: ref}}}
	pattern := op.Method + " " + Prefix + op.Path
	if op.Metadata[restOfPath] == true {
		pattern = strings.TrimSuffix(pattern, "}") + "...}"
	}
	describeAccess(&op, pattern)
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, problemOf(err)
		}
		return out, nil
	})
}

// List is one page of a list. Next continues it, unless it is empty.
type List[T any] struct {
	Items []T    `json:"items" nullable:"false"`
	Next  string `json:"next"`
}

// body is an answer with one JSON value.
type body[T any] struct{ Body T }

func answer[T any](v T) *body[T] { return &body[T]{v} }

// answerList answers with a whole list; an empty one is [], never null.
func answerList[T any](items []T, next string) *body[List[T]] {
	if items == nil {
		items = []T{}
	}
	return answer(List[T]{items, next})
}
