package formula

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Evaluate reads a formula and evaluates it once. One that can't be read fails like one
// that can't be evaluated: at its first error, and the pool stays as it is.
func Evaluate(src string, s State) Result {
	f, problems := Parse(src)
	if f == nil {
		r := (&Formula{}).Eval(s)
		r.Err = problems[0]
		return r
	}
	return f.Eval(s)
}

// ReadState reads a state in JSON:
//
//	{"now": "2026-11-23T10:00:00Z", "current": {"$TargetDedicatedNodes": 3},
//	 "samples": {"$PendingTasks": [["2026-11-23T09:59:30Z", 7]]}}
//
// "period" (such as "30s"), the time between two samples, and "seed", of rand(), may be
// left out.
func ReadState(text []byte) (State, error) {
	var in struct {
		Now     string                       `json:"now"`
		Current map[string]json.RawMessage   `json:"current"`
		Samples map[string][]json.RawMessage `json:"samples"`
		Period  fleetscore.Duration          `json:"period"`
		Seed    uint64                       `json:"seed"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return State{}, bad("", "%w", err)
	}
	if d.More() {
		return State{}, bad("", "something follows the object")
	}
	s := State{Current: map[string]float64{}, Samples: map[string][]Sample{}, Period: in.Period.D(), Seed: in.Seed}
	var ok bool
	if s.Now, ok = ParseTime(in.Now); !ok {
		return State{}, bad("now", "%q isn't a time", in.Now)
	}
	if s.Period < 0 || s.Period > 0 && s.Period < time.Second {
		return State{}, bad("period", "%s is shorter than a second", s.Period)
	}
	for name, raw := range in.Current {
		var err error
		if name == Option {
			err = json.Unmarshal(raw, &s.Option)
		} else {
			err = number64(raw, s.Current, name)
		}
		if err != nil {
			return State{}, bad("current."+name, "%w", err)
		}
	}
	for name, list := range in.Samples {
		s.Samples[name] = make([]Sample, 0, len(list))
		for _, raw := range list {
			sample, err := readSample(raw)
			if err != nil {
				return State{}, bad("samples."+name, "%s: %w", fleetscore.Printable(string(raw[:min(len(raw), 80)])), err)
			}
			s.Samples[name] = append(s.Samples[name], sample)
		}
	}
	return s, s.Validate()
}

func bad(subject, format string, args ...any) *fleetscore.Error {
	return fleetscore.Errorf(fleetscore.Invalid, "read state", subject, format, args...).
		WithHint(`a state has the form {"now": "2026-11-23T10:00:00Z", "current": {"$TargetDedicatedNodes": 3}, "samples": {"$PendingTasks": [["2026-11-23T09:59:30Z", 7]]}}`)
}

// number64 reads a number; null isn't one.
func number64(raw json.RawMessage, into map[string]float64, name string) error {
	var v *float64
	if err := json.Unmarshal(raw, &v); err != nil {
		return err
	}
	if v == nil {
		return errors.New("a number is expected")
	}
	into[name] = *v
	return nil
}

func readSample(raw json.RawMessage) (Sample, error) {
	var pair []json.RawMessage
	if err := json.Unmarshal(raw, &pair); err != nil || len(pair) != 2 {
		return Sample{}, errors.New("a pair of time and value is expected")
	}
	var at string
	if err := json.Unmarshal(pair[0], &at); err != nil {
		return Sample{}, err
	}
	t, ok := ParseTime(at)
	if !ok {
		return Sample{}, fmt.Errorf("%q isn't a time", at)
	}
	value := map[string]float64{}
	err := number64(pair[1], value, "")
	return Sample{t, value[""]}, err
}

// wireError is an Error in JSON; its message has the place, as the service's has.
type wireError struct {
	Code    string `json:"code"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// MarshalJSON writes the result as it is shown to programs.
func (r Result) MarshalJSON() ([]byte, error) {
	out := struct {
		Error     *wireError       `json:"error,omitempty"`
		Targets   map[string]int64 `json:"targets"`
		Option    string           `json:"option"`
		Variables map[string]Value `json:"variables"`
		Result    string           `json:"result"`
		Samples   []Read           `json:"samples"`
	}{nil, r.Targets, r.Option, r.Variables, r.Text(), append([]Read{}, r.Reads...)}
	if e := r.Err; e != nil {
		out.Error = &wireError{e.Code, e.Line, e.Column, e.Located(), e.Hint}
	}
	return json.Marshal(out)
}
