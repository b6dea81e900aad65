package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
)

// Problem is the form of an error in an answer.
type Problem struct {
	Kind    string `json:"kind" enum:"internal,invalid,not_found,conflict,unavailable,exhausted,corrupt" doc:"the kind of error, which says what can be done"`
	Op      string `json:"op" doc:"the operation that failed"`
	Subject string `json:"subject" doc:"the name of the thing that it was done to"`
	Message string `json:"message" doc:"why the operation failed"`
	Hint    string `json:"hint" doc:"what to do"`

	status int
}

var problemType = reflect.TypeFor[Problem]()

// Error returns the message.
func (p *Problem) Error() string { return p.Message }

// GetStatus returns the HTTP status of the answer.
func (p *Problem) GetStatus() int { return p.status }

// problemOf translates an error. Operation and subject are those of the outermost
// Error, the hint is the first in the chain.
func problemOf(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	kind := fleetscore.KindOf(err)
	p = &Problem{Kind: kind.String(), Message: err.Error(), status: kind.HTTPStatus()}
	var e *fleetscore.Error
	if !errors.As(err, &e) {
		return p
	}
	p.Op, p.Subject, p.Hint = e.Op, e.Subject, e.Hint
	if e.Err == nil {
		p.Message = strings.ReplaceAll(kind.String(), "_", " ")
		return p
	}
	p.Message = e.Err.Error()
	for inner := e; p.Hint == "" && errors.As(inner.Err, &inner); {
		p.Hint = inner.Hint
		p.Message = strings.TrimSuffix(p.Message, " ("+inner.Hint+")")
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return tooLarge(large.Limit, p.Subject)
	}
	return p
}

func tooLarge(limit int64, subject string) *Problem {
	return &Problem{Kind: fleetscore.Exhausted.String(), Op: "read request", Subject: subject,
		Message: fmt.Sprintf("the body is larger than the limit of %d MiB", limit>>20),
		Hint:    "send it in several parts", status: http.StatusRequestEntityTooLarge}
}

// transform turns the errors that huma makes itself (a parameter that can't be
// parsed, a body that doesn't match its schema) into Problems.
func transform(ctx huma.Context, status string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := &Problem{Op: ctx.Operation().OperationID, Message: m.Detail}
	switch {
	case m.Status == http.StatusRequestEntityTooLarge:
		return tooLarge(ctx.Operation().MaxBodyBytes, ""), nil
	case m.Status == http.StatusRequestTimeout:
		p.Kind, p.Hint = fleetscore.Unavailable.String(), "send the whole body in time"
	case m.Status >= 500:
		p.Kind = fleetscore.Internal.String()
	default:
		p.Kind = fleetscore.Invalid.String()
		p.Hint = "the document at /api/v1/openapi.json says what is expected"
	}
	var parts []string
	for _, d := range m.Errors {
		text := d.Message
		if d.Location != "" {
			text = d.Location + ": " + text
		}
		parts = append(parts, text)
	}
	if len(parts) > 0 {
		p.Message = strings.Join(parts, "; ")
	}
	return p, nil
}

// statusContext answers 400 where huma would answer 422: every wrong request is of
// kind invalid, also if huma found the error.
type statusContext struct{ humaContext }

type humaContext huma.Context // so that the field isn't named like the method Context

func (c statusContext) Unwrap() huma.Context { return c.humaContext }

func (c statusContext) SetStatus(code int) {
	if code == http.StatusUnprocessableEntity {
		code = http.StatusBadRequest
	}
	c.humaContext.SetStatus(code)
}

// writeProblem answers with an error if huma doesn't handle the request.
func writeProblem(w http.ResponseWriter, err error) {
	p := problemOf(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.status)
	b, _ := json.Marshal(p)         // strings only: can't fail
	_, _ = w.Write(append(b, '\n')) // the client has gone
}
