package gateway

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// cloudEvent is what is read of an event by CloudEvents 1.0, in its JSON format.
type cloudEvent struct {
	Version string          `json:"specversion"`
	ID      string          `json:"id"`
	Source  string          `json:"source"`
	Type    string          `json:"type"`
	Time    string          `json:"time"`
	Data    json.RawMessage `json:"data"`
	Base64  []byte          `json:"data_base64"`
}

// iotTelemetry is the type of IoT Hub's events that carry a device's message.
const iotTelemetry = "Microsoft.Devices.DeviceTelemetry"

// telemetry is the data of such an event.
type telemetry struct {
	Body   json.RawMessage `json:"body"`
	System struct {
		Device   string `json:"iothub-connection-device-id"`
		Enqueued string `json:"iothub-enqueuedtime"`
	} `json:"systemProperties"`
}

// readTelemetry reads the data of such an event, or says what is wrong with it.
func readTelemetry(data []byte) (t telemetry, why string) {
	if err := json.Unmarshal(data, &t); err != nil {
		return t, fmt.Sprintf("the data isn't that of %s: %v", iotTelemetry, err)
	}
	var encoded string
	if json.Unmarshal(t.Body, &encoded) == nil { // a message without the content type of JSON
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return t, "the body is neither JSON nor base64"
		}
		t.Body = raw
	}
	return t, ""
}

// CloudEvents adds the readings of an event, or of a batch of events. An event's data is a reading or an array of readings. What a reading
// lacks comes from its event: the time, and with IoT Hub's events the device. A reading
// without a message id gets one from its event's source and id, so that an event that is
// delivered again counts once.
func (l *Lines) CloudEvents(text []byte, batch bool, hub fleetscore.HubConfig) {
	var events []json.RawMessage
	if batch {
		if err := json.Unmarshal(text, &events); err != nil {
			l.fault(1, "", "not a JSON array of events: %v; no event was read", err)
			return
		}
	} else {
		events = []json.RawMessage{text}
	}
	for i, e := range events {
		if why := l.event(i+1, e, hub); why != "" {
			l.fault(i+1, "", "%s", why)
		}
	}
}

// event adds the readings of an event, or says why it has none.
func (l *Lines) event(number int, text []byte, hub fleetscore.HubConfig) (why string) {
	var e cloudEvent
	if err := json.Unmarshal(text, &e); err != nil {
		return fmt.Sprintf("not a JSON object of an event: %v", err)
	}
	switch {
	case e.Version != "1.0":
		return fmt.Sprintf("specversion is %.20q; send CloudEvents 1.0", e.Version)
	case e.ID == "" || e.Source == "" || e.Type == "":
		return "the event lacks id, source or type"
	}
	data, device, at := []byte(e.Data), "", e.Time
	if len(e.Base64) > 0 {
		data = e.Base64
	}
	if e.Type == iotTelemetry {
		t, why := readTelemetry(data)
		if why != "" {
			return why
		}
		data, device = t.Body, t.System.Device
		if t.System.Enqueued != "" {
			at = t.System.Enqueued
		}
	}
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return "the event has no data"
	}
	readings := []json.RawMessage{data}
	if data[0] == '[' {
		if err := json.Unmarshal(data, &readings); err != nil {
			return fmt.Sprintf("the data is not JSON: %v", err)
		}
	}
	for i, r := range readings {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(r, &members); err != nil || members == nil {
			l.fault(number, "", "the data is not a JSON object, nor an array of them")
			continue
		}
		add := map[string]string{hub.Time: at, IDField: e.Source + "#" + e.ID}
		if i > 0 {
			add[IDField] = fmt.Sprintf("%s/%d", add[IDField], i)
		}
		if device != "" {
			column := hub.OwnKey
			if column == "" {
				column = hub.Key[0]
			}
			add[column] = device
		}
		compact := bytes.NewBuffer(make([]byte, 0, len(r)))
		if err := json.Compact(compact, r); err != nil {
			l.fault(number, "", "not JSON: %v", err)
			continue
		}
		object := compact.Bytes()
		l.Text = append(l.Text, object[:len(object)-1]...)
		more := len(members) > 0
		for _, name := range slices.Sorted(maps.Keys(add)) {
			if _, there := members[name]; there || add[name] == "" {
				continue
			}
			if more {
				l.Text = append(l.Text, ',')
			}
			more = true
			l.Text = append(appendText(l.Text, []byte(name)), ':')
			l.Text = appendText(l.Text, []byte(add[name]))
		}
		l.object(number)
	}
	return ""
}

// units are the names of units of time in requests of InfluxDB's protocols.
var units = map[string]time.Duration{"": 1, "ns": 1, "n": 1, "us": time.Microsecond, "u": time.Microsecond, "µ": time.Microsecond,
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour}
