package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/aggregator"
)

func (s *server) registerStreams(api huma.API, mux *access.Mux) {
	add(api, huma.Operation{OperationID: "list queries", Method: http.MethodGet, Path: "/queries", Tags: []string{"streams"}, Summary: "How far the queries are"},
		func(context.Context, *struct{}) (*body[List[aggregator.Status]], error) {
			return answerList(s.deps.Queries(), ""), nil
		})
	// The gateway reads its requests itself; the document describes it all the same.
	describe(api, Prefix+"/hubs/{hub}/messages", &huma.Operation{OperationID: "send readings", Method: http.MethodPost, Path: "/hubs/{hub}/messages", Tags: []string{"streams"},
		Summary:     "Readings as JSON objects; answered once they are synced to disk",
		Description: "An object per line (application/x-ndjson), or one object or an array of them (application/json). See docs/http-readings.md.",
		Parameters:  []*huma.Param{{Name: "hub", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}}},
		RequestBody: bytesBody("application/x-ndjson", "a JSON object per line"),
		Responses:   map[string]*huma.Response{"200": {Description: "all are stored"}, "400": {Description: "some are malformed; the others are stored"}}})
	mux.Handle(Prefix+"/hubs/{hub}/messages", s.deps.Gateway)
}
