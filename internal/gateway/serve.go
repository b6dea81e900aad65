package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Answer is the body of an answer of 200.
type Answer struct {
	Accepted int `json:"accepted"` // readings, synced to disk
}

// Problem is the body of every other answer.
type Problem struct {
	Kind     string      `json:"kind"`
	Op       string      `json:"op"`
	Subject  string      `json:"subject"`
	Message  string      `json:"message"`
	Hint     string      `json:"hint,omitempty"`
	Accepted int         `json:"accepted"` // readings of this request that are stored all the same
	Rejected int         `json:"rejected"` // readings that were refused
	Lines    []Rejection `json:"lines,omitempty"`
}

const statusClientGone = 499 // as nginx logs it; nobody reads the answer

// ServeHTTP takes the readings of one request: POST …/hubs/{hub}/messages.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, accepted, problem := g.take(w, r)
	g.metrics.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if status == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", "1")
	}
	if status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	w.WriteHeader(status)
	var body any = Answer{accepted}
	if problem != nil {
		body = problem
	}
	_ = json.NewEncoder(w).Encode(body) // the client went away; its readings are stored
}

func (g *Gateway) problem(kind fleetscore.Kind, hint, format string, args ...any) *Problem {
	return &Problem{Kind: kind.String(), Op: "take readings", Subject: g.cfg.Name, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func (g *Gateway) take(w http.ResponseWriter, r *http.Request) (status, accepted int, problem *Problem) {
	if name := r.PathValue("hub"); name != "" && name != g.cfg.Name {
		return http.StatusNotFound, 0, g.problem(fleetscore.NotFound, "post to /hubs/"+g.cfg.Name+"/messages", "there is no hub %q", name)
	}
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, 0, g.problem(fleetscore.Invalid, "use POST", "readings are posted, not %s", r.Method)
	}
	parse := (*parser).lines
	switch media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media {
	case "application/json":
		parse = (*parser).value
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines":
	default:
		return http.StatusUnsupportedMediaType, 0, g.problem(fleetscore.Invalid,
			"send Content-Type: application/x-ndjson (an object per line) or application/json (an object, or an array of them)", "content type %q isn't known", r.Header.Get("Content-Type"))
	}
	if why := g.full(); why != "" {
		w.Header().Set("Retry-After", "10")
		return http.StatusServiceUnavailable, 0, g.problem(fleetscore.Exhausted, "send them again later; GET /queries says which query is behind, and hub.backlog_mb sets the bound", "%s", why)
	}
	body, arrival, status, problem := g.body(w, r)
	if problem != nil {
		return status, 0, problem
	}
	defer arrival.release()
	g.metrics.body.Add(float64(len(body)))

	out, waits, err := g.parse(parse, body)
	for _, w := range waits {
		<-w.done // within the limit of an append, even if the client has gone: until then the readings take up memory that counts
		if w.err != nil && err == nil {
			err = w.err
		}
	}
	return g.verdict(out, err)
}

// parse parses a body and hands its readings to their partitions. A defect in
// parsing costs this request, not the parser's place.
func (g *Gateway) parse(parse func(*parser, []byte, time.Time) *parsed, body []byte) (*parsed, []*waiting, error) {
	defer g.parsing.begin(g.now)()
	p := <-g.parsers
	sound := false
	defer func() {
		if !sound {
			p = newParser(g.cfg, &g.partition, len(g.committers))
		}
		g.parsers <- p
	}()
	// While the clock isn't trusted a reading that seems to come from the future may
	// be right.
	out := parse(p, body, g.now().Add(g.clock.Unsure()))
	sound = true
	if out.accepted > 0 {
		g.clock.Witness(out.newest.Time())
	}
	waits, err := g.queue(out)
	return out, waits, err
}

// queue hands the readings to their partitions.
func (g *Gateway) queue(out *parsed) (waits []*waiting, err error) {
	for i, list := range out.batches {
		if len(list) == 0 {
			continue
		}
		w, e := g.committers[i].put(list)
		if e != nil {
			err = e
		}
		waits = append(waits, w...)
	}
	return waits, err
}

func (g *Gateway) verdict(out *parsed, err error) (status, accepted int, problem *Problem) {
	if err != nil {
		hint, cause := "send all of them again: repeats count once", err
		var e *fleetscore.Error
		if errors.As(err, &e) && e.Hint != "" && e.Err != nil {
			hint, cause = hint+"; "+e.Hint, e.Err
		}
		problem := g.problem(fleetscore.KindOf(err), hint, "the readings could not all be stored: %v", cause)
		return http.StatusServiceUnavailable, 0, problem
	}
	g.rate.add(g.now(), out.accepted, out.rejected)
	g.metrics.readings.WithLabelValues("accepted").Add(float64(out.accepted))
	g.metrics.readings.WithLabelValues("rejected").Add(float64(out.rejected))
	switch {
	case out.rejected > 0:
		text := fmt.Sprintf("%d of %d readings are malformed; the other %d are stored", out.rejected, out.accepted+out.rejected, out.accepted)
		if out.accepted == 0 {
			text = fmt.Sprintf("all %d readings are malformed; none is stored", out.rejected)
			if out.rejected == 1 {
				text = "the reading is malformed"
			}
		}
		problem := g.problem(fleetscore.Invalid, "mend these lines and send them again", "%s", text)
		problem.Accepted, problem.Rejected, problem.Lines = out.accepted, out.rejected, out.reasons
		return http.StatusBadRequest, 0, problem
	case out.accepted == 0:
		return http.StatusBadRequest, 0, g.problem(fleetscore.Invalid, "", "the body holds no reading")
	}
	return http.StatusOK, out.accepted, nil
}
