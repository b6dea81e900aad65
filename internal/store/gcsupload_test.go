package store_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

// sessions is a server for one object that follows Google's documentation of
// resumable uploads. It keeps at most a given number of bytes of each piece.
type sessions struct {
	keep int

	mu     sync.Mutex // guards what follows
	part   []byte     // the bytes that the session has
	object []byte     // nil while there is none
	mark   string     // of the object
	begun  string     // of the session
}

func (s *sessions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	describe := func() {
		_ = json.NewEncoder(w).Encode(map[string]any{"name": "big", "size": fmt.Sprint(len(s.object)), "generation": "7", "metadata": map[string]string{"fleetscoreput": s.mark}})
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/storage/v1/b/bucket/o/"):
		if s.object == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		describe()
	case r.URL.Path == "/storage/v1/b/bucket/o":
		_, _ = io.WriteString(w, "{}")
	case r.Method == http.MethodPost:
		var o struct{ Metadata map[string]string }
		if err := json.Unmarshal(body, &o); err != nil || r.URL.Query().Get("uploadType") != "resumable" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.part, s.begun = []byte{}, o.Metadata["fleetscoreput"]
		w.Header().Set("Location", "http://"+r.Host+"/session")
	case r.Method == http.MethodDelete:
		s.part = nil
		w.WriteHeader(499)
	default:
		s.piece(w, r.Header.Get("Content-Range"), body, describe)
	}
}

// piece takes a piece of the session's object.
func (s *sessions) piece(w http.ResponseWriter, contentRange string, body []byte, describe func()) {
	var from, to, total int
	switch n, _ := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &from, &to, &total); {
	case s.part == nil && s.object != nil && s.mark == s.begun: // it is done
		describe()
		return
	case n >= 2:
		if from > len(s.part) || to-from+1 != len(body) || n == 2 && len(body)%(256<<10) != 0 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if s.keep > 0 && len(body) > s.keep {
			body = body[:s.keep]
		}
		s.part = append(s.part[:from], body...)
	default:
		_, _ = fmt.Sscanf(contentRange, "bytes */%d", &total)
	}
	if total > 0 && len(s.part) == total {
		if s.object != nil {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		s.object, s.part, s.mark = s.part, nil, s.begun
		describe()
		return
	}
	if len(s.part) > 0 {
		w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", len(s.part)-1))
	}
	w.WriteHeader(http.StatusPermanentRedirect)
}

// TestGCSUpload breaks an upload in parts at every request, before and after it was
// carried out, and makes the service keep fewer bytes than were sent.
func TestGCSUpload(t *testing.T) {
	t.Parallel()
	data := make([]byte, 20<<20+777)
	for i := range data {
		data[i] = byte(i >> 3)
	}
	upload := func(t *testing.T, keep int, body []byte, fault func(*http.Request, int) storetest.Fault) (*sessions, *storetest.Proxy, error) {
		s := &sessions{keep: keep}
		server := httptest.NewServer(s)
		t.Cleanup(server.Close)
		p := storetest.NewProxy(t, &storetest.Server{Endpoint: server.URL})
		b := open(t, "gs://bucket?endpoint="+p.URL)
		store.ShortPauses(b)
		p.Set(fault)
		err := store.WriteAll(t.Context(), b, "big", body, store.PutOptions{IfAbsent: true})
		s.mu.Lock()
		defer s.mu.Unlock()
		return s, p, err
	}
	_, p, err := upload(t, 0, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	requests := p.Requests()
	for n := 1; n <= requests; n++ {
		for _, f := range []storetest.Fault{storetest.Cut, storetest.Lose, 503} {
			for _, keep := range []int{0, 3 << 20} {
				for _, size := range []int{len(data), 16 << 20} {
					t.Run(fmt.Sprintf("%d/%d/%d/%d", n, f, keep, size), func(t *testing.T) {
						t.Parallel()
						s, _, err := upload(t, keep, data[:size], once(f, n))
						if err != nil || !bytes.Equal(s.object, data[:size]) {
							t.Errorf("%d bytes there, %v", len(s.object), err)
						}
					})
				}
			}
		}
		t.Run(fmt.Sprintf("%d/for ever", n), func(t *testing.T) {
			t.Parallel()
			s, p, err := upload(t, 0, data, from(503, n))
			if !fleetscore.Unavailable.Is(err) || s.object != nil {
				t.Errorf("%d bytes there, %v; want nothing and kind unavailable", len(s.object), err)
			}
			if p.Requests() > n+2*store.MaxTries {
				t.Errorf("%d requests", p.Requests())
			}
		})
	}
}
