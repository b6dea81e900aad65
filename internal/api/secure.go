package api

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
)

// refused returns a refusal in the form of the API's errors.
func refused(why *access.Refusal) *Problem {
	kind := fleetscore.Invalid
	if why.Status == http.StatusTooManyRequests {
		kind = fleetscore.Exhausted
	}
	return &Problem{Kind: kind.String(), Op: why.Op, Subject: why.Subject, Message: why.Message, Hint: why.Hint, status: why.Status}
}

// recorder keeps the status of the answer.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *recorder) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach deadlines and flushing.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// observe logs each request at debug, counts it, and turns a panic into an
// answer of kind internal, with its stack in the log.
func observe(log *slog.Logger, m *metrics, now func() time.Time, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec, start := &recorder{ResponseWriter: w}, now()
		defer func() {
			if v := recover(); v != nil {
				if v == http.ErrAbortHandler {
					panic(v)
				}
				log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				if rec.status == 0 {
					writeProblem(rec, fleetscore.Errorf(fleetscore.Internal, "answer request", r.Method+" "+r.URL.Path, "the server has a defect").
						WithHint("the server's log has the details; please report this defect"))
				}
			}
			took := now().Sub(start)
			m.observe(rec.status, took)
			log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", rec.status, "bytes", rec.bytes, "took", took)
		}()
		next.ServeHTTP(rec, r)
	})
}
