// Package portal serves the web pages for people: an overview of readings, datasets,
// jobs, nodes and anomalies; a page for each job with its coverage and logs; a page
// with a chart for each sensor. Pages are rendered here, work without scripts, and
// load nothing from other servers.
//
// The portal changes nothing and keeps only its last counts. Its handler is safe for
// concurrent use.
package portal

import (
	"bytes"
	"context"
	"embed"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/logs"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/sensor"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Logs reads the logs of jobs.
type Logs interface {
	List(ctx context.Context, id fleetscore.JobID) ([]logs.Ref, error)
	Open(ctx context.Context, id fleetscore.JobID, index, attempt int, stream string, from int64) (io.ReadCloser, error)
}

// Sensors knows the last state of each sensor.
type Sensors interface {
	List(sensor.Query) (list []sensor.Sensor, next string, total int64)
	Counts() []sensor.Counts
}

// Deps are the sources of what the portal shows.
type Deps struct {
	Access  *access.Control // who may see the pages
	Ledger  ledger.Ledger
	Logs    Logs
	Store   store.Bucket
	Catalog *catalog.Catalog // of the store; nil means that the portal opens its own
	Queries func() []aggregator.Status
	Gateway func() gateway.Stats
	Sensors Sensors // what is known of sensors
	// Servers are those that share the work; nil if no other may share it.
	Servers func(ctx context.Context) ([]fleetscore.Server, error)
	Health  *obs.Health      // the parts that don't work; nil means that this is unknown
	Log     *slog.Logger     // nil discards
	Now     func() time.Time // nil means time.Now
}

// Portal renders the pages.
type Portal struct {
	deps  Deps
	pages map[string]*template.Template

	counting lifecycle.Turns[string] // at the count of a pipeline: requests that come meanwhile wait for the same result

	mu      sync.Mutex // guards what follows
	counted map[string]pipeline
}

//go:embed page/*.html page/style.css
var files embed.FS

// New builds the portal's handler.
func New(deps Deps) (http.Handler, error) {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Catalog == nil {
		deps.Catalog = catalog.New(deps.Store)
	}
	p := &Portal{deps: deps, pages: map[string]*template.Template{}, counted: map[string]pipeline{}}
	for _, name := range []string{"overview", "job", "sensor", "sensors", "shadow", "pool", "servers", "fleet", "problem", "signin", "signedin"} {
		t, err := template.New("layout.html").Funcs(functions).ParseFS(files, "page/layout.html", "page/"+name+".html")
		if err != nil {
			return nil, err
		}
		p.pages[name] = t
	}
	mux := deps.Access.NewMux(p.deny)
	mux.HandleFunc("GET /sign-in", func(w http.ResponseWriter, r *http.Request) { p.signInPage(w, r, http.StatusOK, signIn{Next: "/"}) })
	mux.HandleFunc("POST /sign-in", p.signIn)
	mux.HandleFunc("GET "+access.StartPath, p.startSignIn)
	mux.HandleFunc("GET "+access.ReturnPath, p.finishSignIn)
	mux.HandleFunc("POST /sign-out", p.signOut)
	mux.HandleFunc("GET /{$}", p.followLink(p.page("overview", p.overview)))
	mux.HandleFunc("GET /jobs/{id}", p.page("job", p.job))
	mux.HandleFunc("GET /pools/{name}", p.page("pool", p.pool))
	mux.HandleFunc("GET /fleets/{name}", p.page("fleet", p.fleet))
	mux.HandleFunc("GET /servers", p.page("servers", p.servers))
	mux.HandleFunc("GET /sensors", p.page("sensors", p.sensors))
	mux.HandleFunc("GET /sensors/{pipeline}", p.page("sensor", p.sensor))
	mux.HandleFunc("GET /shadows/{pipeline}", p.page("shadow", p.shadow))
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "page/style.css") })
	mux.HandleFunc("/", p.page("overview", func(r *http.Request) (any, error) {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "open page", r.URL.Path, "there is no such page")
	}))
	return mux, mux.Err()
}

// loosen allows a browser to use the page's own style and to send its forms. Scripts
// and content from other servers stay forbidden.
func loosen(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "same-origin")
}

// page renders what get returns.
func (p *Portal) page(name string, get func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		data, err := get(r)
		status := http.StatusOK
		page := name
		if err != nil {
			status, page, data = fleetscore.KindOf(err).HTTPStatus(), "problem", err.Error()
			if status >= 500 {
				p.deps.Log.Error("page can't be shown", "path", r.URL.Path, "error", err)
			}
		}
		p.render(w, r, page, status, data)
	}
}

// render answers with a complete page, or with an error.
func (p *Portal) render(w http.ResponseWriter, r *http.Request, page string, status int, data any) {
	var out bytes.Buffer
	var refresh any
	switch l := data.(type) {
	case interface{ refresh() int }:
		refresh = l.refresh()
	case signedIn:
		refresh = l.goOn()
	}
	view := map[string]any{"Refresh": refresh, "Data": data, "Now": p.deps.Now().UTC(), "Caller": access.CallerOf(r.Context()), "Open": access.CallerOf(r.Context()).Name == access.Everybody}
	if err := p.pages[page].Execute(&out, view); err != nil {
		p.deps.Log.Error("page can't be rendered", "page", page, "error", err)
		http.Error(w, "the page can't be rendered; the server's log says why", http.StatusInternalServerError)
		return
	}
	loosen(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // the client has gone
}
