package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/gateway/kafka"
)

type acceptClockInput struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
}

// Hub is what comes into the hub.
type Hub struct {
	gateway.Stats
	Kafka []kafka.Topic `json:"kafka" doc:"the topics that this server reads"`
}

func (s *server) registerStreams(api huma.API, mux *access.Mux) {
	add(api, huma.Operation{OperationID: "list queries", Method: http.MethodGet, Path: "/queries", Tags: []string{"streams"}, Summary: "How far the queries have come"},
		func(context.Context, *struct{}) (*body[List[aggregator.Status]], error) {
			return answerList(s.deps.Queries(), ""), nil
		})
	add(api, huma.Operation{OperationID: "show hub", Method: http.MethodGet, Path: "/hub", Tags: []string{"streams"}, Summary: "What comes in by which way"},
		func(context.Context, *struct{}) (*body[Hub], error) { return answer(s.deps.Hub()), nil })
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
