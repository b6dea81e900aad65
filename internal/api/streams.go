package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/gateway/kafka"
	"github.com/fleetscore/fleetscore/internal/hub/tail"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/sensor"
	"github.com/fleetscore/fleetscore/internal/table"
)

type acceptClockInput struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
}

// Hub is what comes into the hub.
type Hub struct {
	gateway.Stats
	Problem    string         `json:"problem" doc:"why this server takes no readings for now"`
	Kafka      []kafka.Topic  `json:"kafka" doc:"the topics that this server reads"`
	Log        HubLog         `json:"log" doc:"all partitions together"`
	Partitions []HubPartition `json:"partitions" doc:"of the log; empty while it isn't open"`
	Readers    []HubReader    `json:"readers" doc:"queries, and the archive"`
}

// HubLog is how much the log holds, and may hold.
type HubLog struct {
	Messages     uint64              `json:"messages"`
	SizeBytes    uint64              `json:"size_bytes"`
	LimitBytes   int64               `json:"limit_bytes" doc:"size of hub.retention; 0 means without limit"`
	Age          fleetscore.Duration `json:"age" doc:"age of hub.retention"`
	Oldest       *time.Time          `json:"oldest" doc:"about when the oldest message arrived"`
	OverdueBytes int64               `json:"overdue_bytes" doc:"what is kept beyond hub.retention, because a query or the archive needs it or the clock is not trusted; an estimate"`
}

// HubPartition is a part of the log.
type HubPartition struct {
	Partition    int        `json:"partition"`
	First        uint64     `json:"first" doc:"offset of the oldest message"`
	Last         uint64     `json:"last" doc:"offset of the newest message"`
	Messages     uint64     `json:"messages"`
	SizeBytes    uint64     `json:"size_bytes"`
	Oldest       *time.Time `json:"oldest" doc:"about when the oldest message arrived"`
	OverdueBytes int64      `json:"overdue_bytes" doc:"what is kept beyond hub.retention"`
}

// HubReader is how far a query, or the archive, has read the log.
type HubReader struct {
	Name      string     `json:"name"`
	Positions []uint64   `json:"positions" doc:"by partition, offset of the last message that it took; of the archive, that it stored"`
	Lag       uint64     `json:"lag" doc:"messages of the log that it hasn't taken"`
	Until     *time.Time `json:"until" doc:"the time until which a query's rows are complete"`
	Problem   string     `json:"problem" doc:"why a query has stopped"`
}

// Rejected is a message with readings that were rejected.
type Rejected struct {
	ID      string    `json:"id"`
	Source  string    `json:"source" doc:"the way by which it came: mqtt or kafka"`
	Topic   string    `json:"topic"`
	From    string    `json:"from" doc:"who sent it last, or where it lay in the topic"`
	Reason  string    `json:"reason" doc:"why it was rejected last"`
	Arrived time.Time `json:"arrived" doc:"when it came last"`
	First   time.Time `json:"first" doc:"when it came first"`
	Times   int64     `json:"times" doc:"how often it came"`
	Bytes   int       `json:"size_bytes"`
	Text    string    `json:"text" doc:"the message; characters that aren't UTF-8 are replaced"`
}

// Redriven is what became of messages that were handed over again.
type Redriven struct {
	Taken    int             `json:"taken" doc:"messages whose readings are all stored; they aren't kept any more"`
	Rejected int             `json:"rejected" doc:"messages that were rejected again; they stay"`
	Items    []RedrivenAgain `json:"items"`
}

// RedrivenAgain is a message that was rejected again.
type RedrivenAgain struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

type rejectedInput struct {
	Before string `query:"before" doc:"the field next of the previous page; empty begins with the newest"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"how many"`
}

type someRejectedInput struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		IDs []string `json:"ids,omitempty" maxItems:"1000" doc:"the messages"`
		All bool     `json:"all,omitempty" doc:"all messages that are there now"`
	}
}

func rejectedOf(r ledger.Rejected) Rejected {
	return Rejected{r.ID, string(r.Source), r.Topic, r.From, r.Reason, r.Arrived, r.First, r.Times, len(r.Text), strings.ToValidUTF8(string(r.Text), "\ufffd")}
}

// placeOf reads the field next of a page. The message that it names may be gone.
func placeOf(next string) (r ledger.Rejected, err error) {
	if next == "" {
		return r, nil
	}
	at, id, _ := strings.Cut(next, "/")
	us, err := strconv.ParseInt(at, 10, 64)
	if err != nil || id == "" {
		return r, fleetscore.Errorf(fleetscore.Invalid, "list rejected messages", next, "it is no field next of a page")
	}
	return ledger.Rejected{ID: id, Arrived: time.UnixMicro(us)}, nil
}

// some calls fn with the messages that a request names.
func (s *server) some(ctx context.Context, in *someRejectedInput, fn func(ledger.Rejected) error) error {
	if in.Body.All == (len(in.Body.IDs) > 0) {
		return fleetscore.Errorf(fleetscore.Invalid, "choose rejected messages", "", "name ids, or all of them")
	}
	for _, id := range in.Body.IDs {
		r, err := s.deps.Ledger.OneRejected(ctx, id)
		if err == nil {
			err = fn(r)
		}
		if err != nil {
			return err
		}
	}
	if !in.Body.All {
		return nil
	}
	begun := s.now()
	for before := (ledger.Rejected{}); ; {
		list, err := s.deps.Ledger.Rejected(ctx, before, 100)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, r := range list {
			if before = r; r.Arrived.After(begun) {
				continue
			}
			if err := fn(r); err != nil {
				return err
			}
		}
	}
}

// Replay asks for rows of a query that are made again of readings that were kept.
type Replay struct {
	Query   string    `json:"-"`
	From    time.Time `json:"from" doc:"rows later than this time"`
	To      time.Time `json:"to,omitempty" doc:"and up to this time; by default now"`
	Into    string    `json:"into,omitempty" doc:"the dataset; by default that of the query with _replay behind its name"`
	Archive bool      `json:"archive,omitempty" doc:"of the archive, and what of the hub isn't archived yet, instead of the hub alone"`
	Of      string    `json:"of,omitempty" doc:"which of the query's datasets, if it writes several"`
}

// Replayed says what a replay has made.
type Replayed struct {
	Dataset  string     `json:"dataset"`
	From     time.Time  `json:"from"`
	To       time.Time  `json:"to"`
	Readings int64      `json:"readings" doc:"that were counted"`
	Repeats  int64      `json:"repeats"`
	Rows     int64      `json:"rows"`
	Added    int64      `json:"added" doc:"rows that the dataset didn't have"`
	Replaced int64      `json:"replaced" doc:"rows that took the place of others with the same key and time"`
	Same     int64      `json:"same" doc:"rows that were there already"`
	Since    *time.Time `json:"since,omitempty" doc:"arrival from which on all readings are kept; absent if none was removed"`
}

type replayInput struct {
	Name   string `path:"name"`
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   Replay
}

func (s *server) replay(ctx context.Context, in *replayInput) (*body[Replayed], error) {
	in.Body.Query = in.Name
	out, err := s.deps.Replay(ctx, in.Body)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "replay query", in.Name+" into dataset "+out.Dataset)
	return answer(out), nil
}

func (s *server) registerRejected(api huma.API) {
	const tag = "streams"
	add(api, huma.Operation{OperationID: "list rejected messages", Method: http.MethodGet, Path: "/rejected", Tags: []string{tag}, Summary: "Messages by MQTT and records of Kafka with readings that were rejected, the newest first"},
		func(ctx context.Context, in *rejectedInput) (*body[List[Rejected]], error) {
			before, err := placeOf(in.Before)
			if err != nil {
				return nil, err
			}
			list, err := s.deps.Ledger.Rejected(ctx, before, in.Limit+1)
			if err != nil {
				return nil, err
			}
			next := ""
			if len(list) > in.Limit {
				list = list[:in.Limit]
				last := list[in.Limit-1]
				next = fmt.Sprintf("%d/%s", last.Arrived.UnixMicro(), last.ID)
			}
			out := make([]Rejected, len(list))
			for i, r := range list {
				out[i] = rejectedOf(r)
			}
			return answerList(out, next), nil
		})
	add(api, huma.Operation{OperationID: "show rejected message", Method: http.MethodGet, Path: "/rejected/{id}", Tags: []string{tag}, Summary: "A message that was rejected"},
		func(ctx context.Context, in *struct {
			ID string `path:"id"`
		}) (*body[Rejected], error) {
			r, err := s.deps.Ledger.OneRejected(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return answer(rejectedOf(r)), nil
		})
	add(api, huma.Operation{OperationID: "redrive rejected messages", Method: http.MethodPost, Path: "/rejected/redrive", Tags: []string{tag}, Summary: "Hand rejected messages over again, by the configuration in force"},
		func(ctx context.Context, in *someRejectedInput) (*body[Redriven], error) {
			out := Redriven{Items: []RedrivenAgain{}}
			err := s.some(ctx, in, func(r ledger.Rejected) error {
				why, err := s.deps.Redrive(ctx, r)
				switch {
				case err != nil:
					return err
				case why == "":
					out.Taken++
				default:
					out.Rejected++
					out.Items = append(out.Items, RedrivenAgain{r.ID, why})
				}
				return nil
			})
			s.audit(ctx, in.Author, "redrive rejected messages", fmt.Sprintf("%d taken, %d rejected again", out.Taken, out.Rejected))
			if err != nil {
				return nil, err
			}
			return answer(out), nil
		})
	add(api, huma.Operation{OperationID: "drop rejected messages", Method: http.MethodPost, Path: "/rejected/drop", Tags: []string{tag}, Summary: "Remove rejected messages"},
		func(ctx context.Context, in *someRejectedInput) (*body[Dropped], error) {
			var out Dropped
			err := s.some(ctx, in, func(r ledger.Rejected) error {
				n, err := s.deps.Ledger.RemoveRejected(ctx, r)
				out.Dropped += n
				return err
			})
			s.audit(ctx, in.Author, "drop rejected messages", fmt.Sprintf("%d dropped", out.Dropped))
			if err != nil {
				return nil, err
			}
			return answer(out), nil
		})
}

// readKeys answers what the log says of keys, an object per line.
func (s *server) readKeys(w http.ResponseWriter, r *http.Request) error {
	q, err := tailQuery(r.URL.Query())
	if err != nil {
		return err
	}
	limit := 100
	if text := r.URL.Query().Get("limit"); text != "" {
		limit, _ = strconv.Atoi(text) // tailQuery has checked it
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, n := json.NewEncoder(w), 0
	control := http.NewResponseController(w)
	var cut *time.Timer
	err = s.deps.Keys(r.Context(), q, func(k tail.Key) error {
		if n++; limit > 0 && n > limit {
			return errEnough
		}
		if n == 1 { // others wait until this viewer has taken them
			cut = time.AfterFunc(keysTimeout, func() { _ = control.SetWriteDeadline(time.Unix(1, 0)) }) // not all writers have deadlines
		}
		return out.Encode(k)
	})
	if n > 0 {
		if !cut.Stop() {
			panic(http.ErrAbortHandler) // so that the client notices that the answer isn't complete
		}
		return nil // there are enough, or the client went away
	}
	return err
}

// keysTimeout is how long a viewer may take the keys of the log that were read for it.
const keysTimeout = time.Minute

var errEnough = errors.New("enough was read")

// readReadings answers readings of the log, an object per line, as they are read.
func (s *server) readReadings(w http.ResponseWriter, r *http.Request) error {
	q, err := tailQuery(r.URL.Query())
	if err != nil {
		return err
	}
	flush := http.NewResponseController(w)
	begun := false
	begin := func() {
		begun = true
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusOK)
	}
	if q.Follow { // the sender of the request waits for the header
		begin()
		_ = flush.Flush() // the client went away, which the next line notices
	}
	out := json.NewEncoder(w)
	err = s.deps.Tail(r.Context(), q, func(x tail.Reading) error {
		if !begun {
			begin()
		}
		err := out.Encode(x)
		if err == nil && q.Follow {
			err = flush.Flush()
		}
		return err
	})
	if begun {
		return nil // what was read is right; more can't be said
	}
	if err == nil {
		begin()
	}
	return err
}

// tailQuery reads the parameters of a request for readings.
func tailQuery(v url.Values) (q tail.Query, err error) {
	const op = "read readings"
	fail := func(name string) (tail.Query, error) {
		return q, fleetscore.Errorf(fleetscore.Invalid, op, name, "the value %.64q is wrong", v.Get(name)).WithHint("GET /api/v1/openapi.json describes the parameters")
	}
	q.Partition = -1
	for name, into := range map[string]*int{"partition": &q.Partition, "limit": &q.Limit} {
		if text := v.Get(name); text != "" {
			if *into, err = strconv.Atoi(text); err != nil || *into < 0 {
				return fail(name)
			}
		}
	}
	if text := v.Get("offset"); text != "" {
		if q.Offset, err = strconv.ParseUint(text, 10, 64); err != nil || q.Offset == 0 {
			return fail("offset")
		}
	}
	if text := v.Get("from"); text != "" {
		t, err := table.ParseTime(text)
		if err != nil || q.Offset > 0 {
			return fail("from")
		}
		q.From = t.Time()
	}
	if text := v.Get("follow"); text != "" {
		if q.Follow, err = strconv.ParseBool(text); err != nil {
			return fail("follow")
		}
	}
	if keys := v["key"]; len(keys) > 0 {
		if q.Key, err = fleetscore.NewKey(keys...); err != nil {
			return fail("key")
		}
	}
	if q.Limit == 0 && q.From.IsZero() && q.Offset == 0 && !q.Follow {
		q.Limit = lastReadings
	}
	return q, nil
}

// lastReadings is how many are the last ones, unless a request says it.
const lastReadings = 20

func (s *server) registerTail(api huma.API, mux *access.Mux) {
	const path = Prefix + "/hub/readings"
	param := func(name, text string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: text, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	describe(api, path, &huma.Operation{OperationID: "tail readings", Method: http.MethodGet, Path: "/hub/readings", Tags: []string{"streams"}, Summary: "Readings of the log, an object per line",
		Description: "Without from, offset and follow: the last readings, in the order of their arrival.",
		Parameters: []*huma.Param{param("key", "a value of the key, once for each key column, in their order"), param("partition", "the only partition to read"), param("from", "arrivals from this time on"),
			param("offset", "the first message of the partition"), param("follow", "true goes on with what comes"), param("limit", "the most readings; the last 20 by default")},
		Responses: map[string]*huma.Response{"200": {Description: "readings as application/x-ndjson"}}})
	mux.HandleFunc("GET "+path, problems(s.readReadings))
	const keys = Prefix + "/hub/keys"
	describe(api, keys, &huma.Operation{OperationID: "read keys", Method: http.MethodGet, Path: "/hub/keys", Tags: []string{"streams"}, Summary: "What the log says of each key, an object per line, in the order of the keys",
		Description: "Without from and offset: of the last 1,000 messages of each partition.",
		Parameters: []*huma.Param{param("key", "a value of the key, once for each key column, in their order"), param("partition", "the only partition to read"), param("from", "arrivals from this time on"),
			param("offset", "the first message of the partition"), param("limit", "the most keys; the first 100 by default, 0 means all")},
		Responses: map[string]*huma.Response{"200": {Description: "keys as application/x-ndjson"}}})
	mux.HandleFunc("GET "+keys, problems(s.readKeys))
}

type sensorsInput struct {
	Dataset string   `query:"dataset" doc:"only the sensors of this dataset"`
	Key     []string `query:"key,explode" maxItems:"100" doc:"only this sensor: a value of the key, once for each key column, in their order"`
	Silent  string   `query:"silent" doc:"only those without rows for at least this long, such as 10m"`
	Flat    string   `query:"flat" doc:"only those that have had the same value for at least this long"`
	Skewed  string   `query:"skewed" doc:"only those whose clock is off by at least this"`
	After   string   `query:"after" doc:"next of the answer before; empty begins with the first sensor"`
	Limit   int      `query:"limit" minimum:"1" maximum:"10000" default:"100" doc:"how many"`
}

// SensorList is a part of the sensors that were asked for.
type SensorList struct {
	List[sensor.Sensor]
	Total int64 `json:"total" doc:"how many sensors were asked for"`
}

// query checks what a request asks for.
func (in *sensorsInput) query() (q sensor.Query, err error) {
	q = sensor.Query{Dataset: in.Dataset, After: in.After, Limit: in.Limit}
	for name, f := range map[string]struct {
		text string
		into *time.Duration
	}{"silent": {in.Silent, &q.Silent}, "flat": {in.Flat, &q.Flat}, "skewed": {in.Skewed, &q.Skewed}} {
		if f.text == "" {
			continue
		}
		d, err := fleetscore.ParseDuration(f.text)
		if err != nil || d <= 0 {
			return q, fleetscore.Errorf(fleetscore.Invalid, "list sensors", name, "%q is no time such as 10m", f.text)
		}
		*f.into = d.D()
	}
	if len(in.Key) > 0 {
		q.Key, err = fleetscore.NewKey(in.Key...)
	}
	return q, err
}

func (s *server) registerSensors(api huma.API) {
	add(api, huma.Operation{OperationID: "list sensors", Method: http.MethodGet, Path: "/sensors", Tags: []string{"streams"}, Summary: "The last state of sensors, by dataset and key"},
		func(_ context.Context, in *sensorsInput) (*body[SensorList], error) {
			q, err := in.query()
			if err != nil {
				return nil, err
			}
			list, next, total := s.deps.Sensors.List(q)
			return answer(SensorList{answerList(list, next).Body, total}), nil
		})
	add(api, huma.Operation{OperationID: "count sensors", Method: http.MethodGet, Path: "/sensors/summary", Tags: []string{"streams"}, Summary: "How many sensors are known, silent, flat-lined, or have wrong clocks, by dataset"},
		func(context.Context, *struct{}) (*body[List[sensor.Counts]], error) {
			return answerList(s.deps.Sensors.Counts(), ""), nil
		})
}

// Dropped says how many messages were removed.
type Dropped struct {
	Dropped int64 `json:"dropped"`
}

func (s *server) registerStreams(api huma.API, mux *access.Mux) {
	add(api, huma.Operation{OperationID: "list queries", Method: http.MethodGet, Path: "/queries", Tags: []string{"streams"}, Summary: "How far the queries have come"},
		func(context.Context, *struct{}) (*body[List[aggregator.Status]], error) {
			return answerList(s.deps.Queries(), ""), nil
		})
	add(api, huma.Operation{OperationID: "replay query", Method: http.MethodPost, Path: "/queries/{name}/replay", Tags: []string{"streams"}, Summary: "Make rows of a query again, of readings that were kept, and put them into a dataset",
		Description: "Readings go by their times alone, in whatever order they came. The rows are put into the dataset by one commit; the answer comes after it."}, s.replay)
	add(api, huma.Operation{OperationID: "show hub", Method: http.MethodGet, Path: "/hub", Tags: []string{"streams"}, Summary: "What comes in by which way"},
		func(ctx context.Context, _ *struct{}) (*body[Hub], error) { return answer(s.deps.Hub(ctx)), nil })
	add(api, huma.Operation{OperationID: "read clock", Method: http.MethodGet, Path: "/clock", Tags: []string{"streams"}, Summary: "The time that the server acts by, and whether it trusts the machine's clock"},
		func(context.Context, *struct{}) (*body[clock.State], error) { return answer(s.deps.Clock.State()), nil })
	add(api, huma.Operation{OperationID: "accept clock", Method: http.MethodPost, Path: "/clock/accept", Tags: []string{"streams"}, Summary: "Trust the machine's clock as it is now"},
		func(ctx context.Context, in *acceptClockInput) (*body[clock.State], error) {
			before := s.deps.Clock.State()
			after := s.deps.Clock.Accept()
			if !before.Trusted {
				s.audit(ctx, in.Author, "accept clock", before.Reason)
			}
			return answer(after), nil
		})
	s.registerSensors(api)
	s.registerRejected(api)
	s.registerTail(api, mux)
	// The gateway reads its requests itself; the document describes them
	// nevertheless.
	describe(api, Prefix+"/hubs/{hub}/messages", &huma.Operation{OperationID: "send readings", Method: http.MethodPost, Path: "/hubs/{hub}/messages", Tags: []string{"streams"},
		Summary:     "Send readings as JSON objects; the answer comes after they are synced to disk",
		Description: "An object per line (application/x-ndjson), or one object or an array of them (application/json), rows (text/csv), or CloudEvents. See docs/http-readings.md.",
		Parameters:  []*huma.Param{{Name: "hub", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}}},
		RequestBody: bytesBody("application/x-ndjson", "a JSON object per line"),
		Responses:   map[string]*huma.Response{"200": {Description: "all readings are stored"}, "400": {Description: "some readings are malformed; the others are stored"}}})
	mux.Handle(Prefix+"/hubs/{hub}/messages", s.deps.Gateway)
	mux.HandleFunc("OPTIONS "+Prefix+"/hubs/{hub}/messages", gateway.Agree)
}
