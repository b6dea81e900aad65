package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Protect puts the rules for who may talk to the server in front of a handler
// for people, such as the portal: on a loopback listener only requests that name
// this machine as their host are answered (a page of another site can't reach
// the server under its own name), and where an API token is configured it is
// asked for, as a bearer token or as the password of HTTP basic authentication.
func Protect(cfg Config, next http.Handler) http.Handler {
	h := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !allowed(r, cfg.APIToken) {
			w.Header().Set("WWW-Authenticate", `Basic realm="fleetscore", charset="UTF-8"`)
			http.Error(w, "This server asks for its API token: enter it as the password, with any user name.", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	}))
	return checkHost(cfg.Loopback, h)
}

// checkHost refuses requests to a loopback listener that carry a foreign host
// name: the sign of DNS rebinding.
func checkHost(loopback bool, next http.Handler) http.Handler {
	if !loopback {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopback(r.Host) {
			writeProblem(w, &Problem{Kind: fleetscore.Invalid.String(), Op: "check host", Subject: r.Host, status: http.StatusMisdirectedRequest,
				Message: "the server listens on this machine only and doesn't answer under another name",
				Hint:    "use http://127.0.0.1 or http://localhost with the server's port"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// allowed compares the request's token in constant time. An empty token allows
// everybody.
func allowed(r *http.Request, token string) bool {
	if token == "" {
		return true
	}
	got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		_, got, _ = r.BasicAuth()
	}
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// authenticate asks for the token that the path's part of the API needs.
func authenticate(cfg Config, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, whose := cfg.APIToken, "API"
		switch {
		case r.URL.Path == Prefix+"/health" || r.URL.Path == Prefix+"/openapi.json":
			token = ""
		case isNodeProtocol(r):
			token, whose = cfg.NodeToken, "nodes'"
		}
		if !allowed(r, token) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="fleetscore"`)
			writeProblem(w, &Problem{Kind: fleetscore.Invalid.String(), Op: "authenticate", Subject: r.Method + " " + r.URL.Path, status: http.StatusUnauthorized,
				Message: "the " + whose + " token is missing or wrong",
				Hint:    "send it as Authorization: Bearer TOKEN; commands read it from the file that FLEETSCORE_TOKEN_FILE names"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isNodeProtocol(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, Prefix+"/leases/") ||
		r.Method == http.MethodPost && (r.URL.Path == Prefix+"/nodes" || strings.HasPrefix(r.URL.Path, Prefix+"/nodes/"))
}

// harden sets headers that keep a browser from doing anything with an answer
// but show it.
func harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// recorder remembers what was answered.
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
					writeProblem(rec, fleetscore.Errorf(fleetscore.Internal, "answer request", r.Method+" "+r.URL.Path, "a defect of the server").
						WithHint("the server's log has the details; please report it"))
				}
			}
			took := now().Sub(start)
			m.observe(rec.status, took)
			log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", rec.status, "bytes", rec.bytes, "took", took)
		}()
		next.ServeHTTP(rec, r)
	})
}
