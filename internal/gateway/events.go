package gateway

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	one := func(i int, e json.RawMessage) {
		if why := l.event(i, e, hub); why != "" {
			l.fault(i, "", "%s", why)
		}
	}
	if !batch {
		one(1, text)
	} else if at, err := elements(text, one); err != nil {
		l.fault(at, "", "not a JSON array of events: %v", err)
	}
}

// elements calls fn with the elements of a JSON array and their places, from 1. An error says what is
// wrong with the text from the element at on. The elements are read one by one, because a list
// of many tiny ones would take far more memory than the text.
func elements(text []byte, fn func(int, json.RawMessage)) (at int, err error) {
	in := json.NewDecoder(bytes.NewReader(text))
	if t, err := in.Token(); err != nil || t != json.Delim('[') {
		return 1, errors.New("it doesn't begin with [; nothing was read")
	}
	for at = 1; in.More(); at++ {
		var e json.RawMessage
		if err := in.Decode(&e); err != nil {
			return at, fmt.Errorf("%w; nothing after it was read", err)
		}
		fn(at, e)
	}
	if _, err := in.Token(); err != nil {
		return at, fmt.Errorf("%w; nothing after it was read", err)
	}
	if _, err := in.Token(); err != io.EOF {
		return at, errors.New("more follows the array")
	}
	return 0, nil
}

// event adds the readings of an event, or says why it has none.
func (l *Lines) event(number int, text []byte, hub fleetscore.HubConfig) (why string) {
	var e cloudEvent
	if err := json.Unmarshal(text, &e); err != nil {
		return fmt.Sprintf("not a JSON object of an event: %v", err)
	}
	if e.Version != "1.0" {
		return fmt.Sprintf("specversion is %.20q; send CloudEvents 1.0", e.Version)
	}
	return l.carried(number, e, hub)
}

// carried adds the readings that an event carries, or says why it has none.
func (l *Lines) carried(number int, e cloudEvent, hub fleetscore.HubConfig) (why string) {
	if e.ID == "" || e.Source == "" || e.Type == "" {
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
	add := map[string]string{hub.Time: at, IDField: e.Source + "#" + e.ID}
	if device != "" {
		column := hub.OwnKey
		if column == "" {
			column = hub.Key[0]
		}
		add[column] = device
	}
	return l.data(number, data, add)
}

// data adds the readings of an event's data, a reading or an array of readings, or says why it has
// none. What a reading lacks is added. Each reading after the first gets a message id of its own.
func (l *Lines) data(number int, data []byte, add map[string]string) (why string) {
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return "the event has no data"
	}
	if data[0] != '[' {
		l.reading(number, data, add)
		return ""
	}
	id := add[IDField]
	_, err := elements(data, func(i int, r json.RawMessage) {
		if i > 1 && id != "" {
			add[IDField] = fmt.Sprintf("%s/%d", id, i-1)
		}
		l.reading(number, r, add)
	})
	if err != nil {
		return fmt.Sprintf("the data is not JSON: %v", err)
	}
	return ""
}

// reading adds one reading, which is a JSON object, and what it lacks.
func (l *Lines) reading(number int, text []byte, add map[string]string) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil || members == nil {
		l.fault(number, "", "the data is not a JSON object, nor an array of them")
		return
	}
	compact := bytes.NewBuffer(make([]byte, 0, len(text)))
	if err := json.Compact(compact, text); err != nil {
		l.fault(number, "", "not JSON: %v", err)
		return
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

// gridEvent is what is read of an event in Event Grid's own schema, which is older than CloudEvents.
type gridEvent struct {
	ID      string          `json:"id"`
	Topic   string          `json:"topic"`
	Subject string          `json:"subject"`
	Type    string          `json:"eventType"`
	Time    string          `json:"eventTime"`
	Data    json.RawMessage `json:"data"`
}

// GridEvents adds the readings of a batch of events in Event Grid's schema, as CloudEvents does.
func (l *Lines) GridEvents(text []byte, hub fleetscore.HubConfig) {
	at, err := elements(text, func(i int, raw json.RawMessage) {
		var e gridEvent
		why := ""
		if err := json.Unmarshal(raw, &e); err != nil {
			why = fmt.Sprintf("not a JSON object of an event: %v", err)
		} else {
			why = l.carried(i, cloudEvent{ID: e.ID, Source: e.Topic + e.Subject, Type: e.Type, Time: e.Time, Data: e.Data}, hub)
		}
		if why != "" {
			l.fault(i, "", "%s", why)
		}
	})
	if err != nil {
		l.fault(at, "", "not a JSON array of events: %v", err)
	}
}

// validationCode is the code of Event Grid's question whether it may send here; empty if
// the text isn't such a question.
func validationCode(text []byte) (code string) {
	_, _ = elements(text, func(_ int, raw json.RawMessage) { // without a code, the readings are judged
		var e gridEvent
		var data struct {
			Code string `json:"validationCode"`
		}
		if json.Unmarshal(raw, &e) == nil && e.Type == "Microsoft.EventGrid.SubscriptionValidationEvent" && json.Unmarshal(e.Data, &data) == nil {
			code = data.Code
		}
	})
	return code
}

// brokerProperties are what is read of the properties that a sender of Event Hubs gives an
// event. A partition and its key are of no use here: a reading's place follows from its own key.
type brokerProperties struct {
	MessageID string `json:"MessageId"`
}

// hubsEvent is an event of a batch, as Event Hubs and Service Bus take it.
type hubsEvent struct {
	Body             json.RawMessage
	IsBodyBase64     bool
	BrokerProperties brokerProperties
}

// HubsEvents adds the readings of a batch of events (application/vnd.microsoft.servicebus.json).
func (l *Lines) HubsEvents(text []byte) {
	at, err := elements(text, func(i int, raw json.RawMessage) {
		var e hubsEvent
		if err := json.Unmarshal(raw, &e); err != nil {
			l.fault(i, "", "not an event such as {\"Body\": \"…\"}: %v", err)
			return
		}
		body := []byte(e.Body)
		var inner string
		if json.Unmarshal(e.Body, &inner) == nil {
			body = []byte(inner)
		}
		if e.IsBodyBase64 {
			decoded, err := base64.StdEncoding.DecodeString(inner)
			if err != nil {
				l.fault(i, "", "the body is not base64: %v", err)
				return
			}
			body = decoded
		}
		l.HubsEvent(i, body, e.BrokerProperties.MessageID)
	})
	if err != nil {
		l.fault(at, "", `not a JSON array of events such as [{"Body": "…"}]: %v`, err)
	}
}

// HubsEvent adds the readings of the body of an event, which holds JSON objects or arrays of them, one after
// the other. A reading without a message id gets that of the event, if it has one.
func (l *Lines) HubsEvent(number int, body []byte, id string) {
	in := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(body, []byte("\ufeff"))))
	for n := 0; ; n++ {
		var value json.RawMessage
		err := in.Decode(&value)
		if err == io.EOF {
			if n == 0 {
				l.fault(number, "", "the event has no body")
			}
			return
		}
		if err != nil {
			l.fault(number, "", "the body is not JSON: %v; nothing after it was read", err)
			return
		}
		add := map[string]string{IDField: id}
		if n > 0 && id != "" {
			add[IDField] = fmt.Sprintf("%s.%d", id, n)
		}
		if why := l.data(number, value, add); why != "" {
			l.fault(number, "", "%s", why)
		}
	}
}

// units are the names of units of time in requests of InfluxDB's protocols.
var units = map[string]time.Duration{"": 1, "ns": 1, "n": 1, "us": time.Microsecond, "u": time.Microsecond, "µ": time.Microsecond,
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour}
