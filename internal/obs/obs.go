// Package obs makes the two ways a process can be observed: its log, and its metrics
// in Prometheus's text format. Rooms get a logger and a registry from here and don't
// depend on how these are shown. Both are safe for concurrent use. Health is what a process
// says about its parts, and Tail the end of what a child program wrote.
package obs

import (
	"io"
	"log/slog"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/term"
)

// NewLogger writes text for people if w is a terminal, otherwise JSON, a line per
// record. The variable FLEETSCORE_LOG_LEVEL (debug, info, warn, error) sets the
// lowest level that is written; the default is info.
func NewLogger(w io.Writer) *slog.Logger {
	var level slog.Level
	if v := os.Getenv("FLEETSCORE_LOG_LEVEL"); v != "" && level.UnmarshalText([]byte(v)) != nil {
		level = slog.LevelInfo
	}
	opt := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration { // JSON would have a bare number of nanoseconds
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(w, opt))
	}
	return slog.New(slog.NewJSONHandler(w, opt))
}

// NewRegistry returns a registry with the metrics of the process and of the Go
// runtime.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Handler shows the registry's metrics over HTTP.
func Handler(r *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}
