package obs

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestLogIsJSONBeyondTerminals(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	l := NewLogger(&b)
	l.Debug("hidden")
	l.Info("shown", "job", "j1", "took", 1500*time.Millisecond)
	var record map[string]any
	if err := json.Unmarshal(b.Bytes(), &record); err != nil || record["msg"] != "shown" || record["job"] != "j1" || record["took"] != "1.5s" {
		t.Errorf("got %q, %v; want one record", b.String(), err)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	Handler(NewRegistry()).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "go_goroutines") {
		t.Errorf("got %d, %s", w.Code, w.Body)
	}
}
