package gateway

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

// TestMessage: what is known of a message besides its text completes its readings, or
// contradicts them.
func TestMessage(t *testing.T) {
	t.Parallel()
	g := start(t, hubtest.New(1), Config{Hub: fleetscore.HubConfig{OwnKey: "Device"}, Sources: []fleetscore.Source{fleetscore.SourceMQTT}})
	both, device := []string{"a", "1"}, []string{"a", ""}
	for _, c := range []struct {
		name     string
		msg      Message
		text     string
		accepted int
		reason   string // of the first rejected reading
	}{
		{"number", Message{Keys: both, Value: "Value", ArrivalTime: true}, "21.5\n", 1, ""},
		{"number without its column", Message{Keys: both, ArrivalTime: true}, "21.5", 0, "not a JSON object"},
		{"number without a time", Message{Keys: both, Value: "Value"}, "21.5", 0, "the event time is missing"},
		{"arrival", Message{Keys: both, ArrivalTime: true}, `[{"Value":1},{"Value":2}]`, 2, ""},
		{"no time", Message{Keys: both}, `{"Value":1}`, 0, "the event time is missing"},
		{"a key in the text", Message{Keys: device, ArrivalTime: true}, `{"Tag":"4","Value":1}`, 1, ""},
		{"a key nowhere", Message{Keys: device, ArrivalTime: true}, `{"Value":1}`, 0, "the key column is missing"},
		{"the same key twice", Message{Keys: both, ArrivalTime: true}, `{"Device":"a","Tag":1}`, 1, ""},
		{"two keys", Message{Keys: both, ArrivalTime: true}, `{"Device":"b","Value":1}`, 0, `differs from "a"`},
		{"its own", Message{Keys: both, ArrivalTime: true, Owner: "a"}, `{"Value":1}`, 1, ""},
		{"of another", Message{ArrivalTime: true, Owner: "a"}, `[{"Device":"a","Tag":1},{"Device":"b","Tag":1}]`, 1, "may only send its own"},
		{"a number of another", Message{Keys: both, Value: "Value", ArrivalTime: true, Owner: "b"}, "1", 0, "may only send its own"},
		{"nothing", Message{Keys: both, ArrivalTime: true}, "", 0, "ends too early"},
	} {
		c.msg.Format, c.msg.Body = JSON, []byte(c.text)
		p, err := g.Begin(fleetscore.SourceMQTT, c.msg)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Wait()
		reason := ""
		if len(got.Reasons) > 0 {
			reason = got.Reasons[0].String()
		}
		if err != nil || got.Accepted != c.accepted || (c.reason == "") != (reason == "") || !strings.Contains(reason, c.reason) {
			t.Errorf("%s: got %d accepted, %q, %v; want %d, %q", c.name, got.Accepted, reason, err, c.accepted, c.reason)
		}
	}
}

// TestOwnKeyOverHTTP: a device can't get around its limit by another way in.
func TestOwnKeyOverHTTP(t *testing.T) {
	t.Parallel()
	g := start(t, hubtest.New(1), Config{Hub: fleetscore.HubConfig{OwnKey: "Device"}})
	g.owner = func(context.Context) string { return "a" }
	for device, want := range map[string]int{"a": 200, "b": 400} {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(`{"TS":"2026-11-23T10:00:05Z","Device":"`+device+`","Tag":"1"}`))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: got %d %s, want %d", device, w.Code, w.Body, want)
		}
	}
}
