package gateway

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// Answer is the body of an answer of 200.
type Answer struct {
	Accepted int    `json:"accepted"`                     // readings, synced to disk
	Code     string `json:"validationResponse,omitempty"` // of Event Grid's question whether it may send here
}

// Problem is the body of every other answer.
type Problem struct {
	Kind     string      `json:"kind"`
	Op       string      `json:"op"`
	Subject  string      `json:"subject"`
	Message  string      `json:"message"`
	Hint     string      `json:"hint,omitempty"`
	Accepted int         `json:"accepted"` // readings of this request that are stored nevertheless
	Rejected int         `json:"rejected"` // readings that were refused
	Lines    []Rejection `json:"lines,omitempty"`
}

const statusClientGone = 499 // the status that nginx logs; no client reads the answer

// ServeHTTP takes the readings of one request: POST …/hubs/{hub}/messages.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var out Answer
	status, accepted, problem := g.take(w, r, &out)
	out.Accepted = accepted
	g.metrics.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if (status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests) && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", "1")
	}
	if status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	w.WriteHeader(status)
	var body any = out
	if problem != nil {
		body = problem
	}
	_ = json.NewEncoder(w).Encode(body) // the client went away; its readings are stored
}

func (g *Gateway) problem(kind fleetscore.Kind, hint, format string, args ...any) *Problem {
	return &Problem{Kind: kind.String(), Op: "take readings", Subject: g.cfg.Name, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// gridHeader is what Event Grid sends with events in its own schema.
const gridHeader = "aeg-event-type"

func (g *Gateway) take(w http.ResponseWriter, r *http.Request, out *Answer) (status, accepted int, problem *Problem) {
	if name := r.PathValue("hub"); name != "" && name != g.cfg.Name {
		return http.StatusNotFound, 0, g.problem(fleetscore.NotFound, "post to /hubs/"+g.cfg.Name+"/messages", "there is no hub %q", name)
	}
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, 0, g.problem(fleetscore.Invalid, "use POST", "readings must be sent with POST, not with %s", r.Method)
	}
	form, ok := forms[media(r)]
	if !ok {
		return http.StatusUnsupportedMediaType, 0, g.problem(fleetscore.Invalid,
			"send Content-Type: application/x-ndjson (an object per line), application/json (an object, or an array of them), text/csv, application/cloudevents+json or application/cloudevents-batch+json", "the content type %q is unknown", r.Header.Get("Content-Type"))
	}
	way := WayHTTP
	if strings.HasPrefix(media(r), "application/cloudevents") {
		way = WayCloudEvents
	}
	if kind := r.Header.Get(gridHeader); kind != "" && media(r) == "application/json" {
		way = WayCloudEvents
		form = func(g *Gateway, body []byte) *Lines {
			if out.Code = validationCode(body); out.Code != "" {
				return &Lines{}
			}
			l := &Lines{}
			l.GridEvents(body, g.cfg.Hub)
			return l
		}
	}
	status, accepted, problem = g.receive(w, r, way, form)
	if out.Code != "" && status == http.StatusBadRequest { // the question holds no reading
		status, problem = http.StatusOK, nil
	}
	return status, accepted, problem
}

// receive takes the readings of a request whose form is known.
func (g *Gateway) receive(w http.ResponseWriter, r *http.Request, way Way, form form) (status, accepted int, problem *Problem) {
	if err := g.ready(); err != nil {
		_, _, problem := g.refusal(w, err)
		return http.StatusTooManyRequests, 0, problem
	}
	body, arrival, status, problem := g.body(w, r)
	if problem != nil {
		return status, 0, problem
	}
	defer arrival.release()
	g.metrics.body.Add(float64(len(body)))

	m := Message{Format: NDJSON, Body: body}
	if form == nil {
		m.Format = JSON
	} else if lines := form(g, body); lines != nil {
		if text := int64(cap(lines.Text)); !arrival.take(text) {
			return http.StatusServiceUnavailable, 0, g.full503()
		}
		m = lines.Message()
	}
	m.Way = way
	if g.owner != nil {
		m.Owner = g.owner(r.Context())
	}
	p, err := g.Begin(fleetscore.SourceHTTP, m)
	g.intake.reuse(body)
	if err != nil {
		return g.refusal(w, err)
	}
	out, err := p.Wait()
	if err != nil {
		return g.refusal(w, err)
	}
	return g.answer(out)
}

// refusal is the HTTP answer when readings can't be stored for now.
func (g *Gateway) refusal(w http.ResponseWriter, err error) (status, accepted int, problem *Problem) {
	var e *fleetscore.Error
	if !errors.As(err, &e) {
		return http.StatusServiceUnavailable, 0, g.problem(fleetscore.Internal, "", "%v", err)
	}
	if e.Kind == fleetscore.Exhausted {
		w.Header().Set("Retry-After", "10")
	}
	return http.StatusServiceUnavailable, 0, &Problem{Kind: e.Kind.String(), Op: e.Op, Subject: e.Subject, Message: e.Err.Error(), Hint: e.Hint}
}

// answer is the HTTP answer to verdicts.
func (g *Gateway) answer(out Verdicts) (status, accepted int, problem *Problem) {
	accepted, rejected := out.Accepted, out.Rejected
	switch {
	case rejected > 0:
		text := judged(accepted, rejected)
		if len(out.Reasons) > 0 {
			text += "; " + out.Reasons[0].String()
		}
		problem := g.problem(fleetscore.Invalid, "correct these lines and send them again", "%s", text)
		problem.Accepted, problem.Rejected, problem.Lines = accepted, rejected, out.Reasons
		return http.StatusBadRequest, 0, problem
	case accepted == 0:
		return http.StatusBadRequest, 0, g.problem(fleetscore.Invalid, "", "the body holds no reading")
	}
	return http.StatusOK, accepted, nil
}

// judged says how many readings of a body are malformed, and what becomes of the others.
func judged(accepted, rejected int) string {
	switch {
	case accepted == 0 && rejected == 1:
		return "the reading is malformed"
	case accepted == 0:
		return fmt.Sprintf("all %d readings are malformed; none is stored", rejected)
	}
	are, others := "are", fmt.Sprintf("the other %d are stored", accepted)
	if rejected == 1 {
		are = "is"
	}
	if accepted == 1 {
		others = "the other one is stored"
	}
	return fmt.Sprintf("%d of %d readings %s malformed; %s", rejected, accepted+rejected, are, others)
}

// form translates a body into lines; it returns nil for a body that is lines already. A nil
// form is one JSON value.
type form func(g *Gateway, body []byte) *Lines

func asLines(*Gateway, []byte) *Lines { return nil }

// forms are those of content types.
var forms = map[string]form{
	"application/json": nil, "application/x-ndjson": asLines, "application/ndjson": asLines, "application/jsonl": asLines, "application/x-jsonlines": asLines,
	"text/csv": func(g *Gateway, body []byte) *Lines {
		l := &Lines{}
		l.CSV(body, nil, g.cfg.Hub)
		return l
	},
	"application/cloudevents+json": func(g *Gateway, body []byte) *Lines {
		l := &Lines{}
		l.CloudEvents(body, false, g.cfg.Hub)
		return l
	},
	"application/cloudevents-batch+json": func(g *Gateway, body []byte) *Lines {
		l := &Lines{}
		l.CloudEvents(body, true, g.cfg.Hub)
		return l
	},
}

func media(r *http.Request) string {
	m, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return m
}

// Agree answers the question of a sender of CloudEvents whether it may send here, as Event
// Grid asks before its first event (CloudEvents HTTP Webhooks, section 4). Events themselves need a token.
func Agree(w http.ResponseWriter, r *http.Request) {
	origin := r.Header.Get("WebHook-Request-Origin")
	if origin == "" {
		w.Header().Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("WebHook-Allowed-Origin", origin)
	w.Header().Set("WebHook-Allowed-Rate", "*")
	w.Header().Set("Allow", http.MethodPost)
	w.WriteHeader(http.StatusOK)
}

// influxProblem is the body of an answer to senders of line protocol.
type influxProblem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Error   string `json:"error"` // the same, as version 1 has it
}

// ServeInflux takes lines of InfluxDB's line protocol, as InfluxDB 2 (POST /api/v2/write) and
// InfluxDB 1 (POST /write) take them. Organization, bucket and database are ignored.
func (g *Gateway) ServeInflux(w http.ResponseWriter, r *http.Request) {
	status, problem := http.StatusMethodNotAllowed, g.problem(fleetscore.Invalid, "use POST", "readings must be sent with POST, not with %s", r.Method)
	if r.Method == http.MethodPost {
		precision := r.URL.Query().Get("precision")
		unit, ok := units[precision]
		if status, problem = http.StatusBadRequest, g.problem(fleetscore.Invalid, "write ns, us, ms, s, m or h", "the precision %q is unknown", precision); ok {
			status, _, problem = g.receive(w, r, WayInflux, func(g *Gateway, body []byte) *Lines {
				l := &Lines{arrival: true}
				l.Influx(body, unit, g.cfg.Hub)
				return l
			})
		}
	}
	g.metrics.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	w.Header().Set("Cache-Control", "no-store")
	if problem == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if (status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests) && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", "1")
	}
	text := problem.Message
	if problem.Hint != "" {
		text += " (" + problem.Hint + ")"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(influxProblem{problem.Kind, text, text}) // the client went away
}

// hubsProblem is the body of an answer of Event Hubs that isn't good.
type hubsProblem struct {
	XMLName struct{} `xml:"Error"`
	Code    int
	Detail  string
}

// RefuseEventHubs answers a sender of Event Hubs as the service does.
func RefuseEventHubs(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/xml; charset=utf-8")
	w.WriteHeader(status)
	_ = xml.NewEncoder(w).Encode(hubsProblem{Code: status, Detail: detail}) // the client went away
}

const (
	hubsBatch      = "application/vnd.microsoft.servicebus.json"
	hubsProperties = "BrokerProperties"
)

// ServeEventHubs takes an event, or a batch of events, as Azure Event Hubs takes it over HTTP:
// POST /{hub}/messages, to a partition, or for a publisher. It follows Microsoft's "Event Hubs REST API".
func (g *Gateway) ServeEventHubs(w http.ResponseWriter, r *http.Request) {
	status, problem := g.takeHubs(w, r)
	g.metrics.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	if problem == nil {
		w.Header().Set("Content-Type", "application/xml; charset=utf-8")
		w.WriteHeader(status)
		return
	}
	detail := problem.Message
	if problem.Hint != "" {
		detail += " (" + problem.Hint + ")"
	}
	RefuseEventHubs(w, status, detail)
}

func (g *Gateway) takeHubs(w http.ResponseWriter, r *http.Request) (status int, problem *Problem) {
	cfg := g.cfg.Hub.EventHubs
	if cfg == nil {
		cfg = &fleetscore.EventHubsConfig{}
	}
	name := cfg.Name
	if name == "" {
		name = g.cfg.Name
	}
	if got := r.PathValue("hub"); !strings.EqualFold(got, name) {
		return http.StatusNotFound, g.problem(fleetscore.NotFound, "send to /"+name+"/messages", "there is no event hub %q", got)
	}
	if p := r.PathValue("partition"); p != "" {
		if _, err := strconv.ParseUint(p, 10, 16); err != nil {
			return http.StatusBadRequest, g.problem(fleetscore.Invalid, "", "the partition %.20q is not a number", p)
		}
	}
	var properties brokerProperties
	if text := r.Header.Get(hubsProperties); text != "" {
		if !strings.Contains(text, `"`) {
			text = strings.ReplaceAll(text, "'", `"`) // as Python writes a dictionary, and as the service takes it
		}
		if err := json.Unmarshal([]byte(text), &properties); err != nil {
			return http.StatusBadRequest, g.problem(fleetscore.Invalid, "", "the header %s is not JSON: %v", hubsProperties, err)
		}
	}
	status, _, problem = g.receive(w, r, WayEventHubs, func(_ *Gateway, body []byte) *Lines {
		l := &Lines{arrival: cfg.ArrivalTime}
		if media(r) == hubsBatch {
			l.HubsEvents(body)
		} else {
			l.HubsEvent(1, body, properties.MessageID)
		}
		return l
	})
	switch status {
	case http.StatusOK:
		status = http.StatusCreated
	case http.StatusTooManyRequests: // the service says so that it is busy
		status = http.StatusServiceUnavailable
	}
	if status == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", "1")
	}
	return status, problem
}
