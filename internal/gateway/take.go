package gateway

import (
	"errors"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Format is how readings are written.
type Format int

// The formats.
const (
	NDJSON Format = iota // a JSON object per line
	JSON                 // one object, or an array of them
)

// Verdicts are the outcomes of the readings of one call of Take.
type Verdicts struct {
	Accepted int         // synced to disk
	Rejected int         // malformed
	Reasons  []Rejection // of the first 100 that were rejected
}

// Take parses readings of a source, stores those that are well-formed, and returns
// once they are synced to disk. After an error some readings may be stored
// nevertheless. The caller can send all readings again: repeats count once. Run must
// be running. The caller bounds how many bytes are in such calls at once; body isn't
// kept.
func (g *Gateway) Take(source fleetscore.Source, format Format, body []byte) (Verdicts, error) {
	const op = "take readings"
	at := slices.Index(g.cfg.Sources, source)
	if at < 0 {
		return Verdicts{}, fleetscore.Errorf(fleetscore.Invalid, op, g.cfg.Name, "the source %q isn't one of %q", source, g.cfg.Sources).WithHint("list the source in the gateway's configuration")
	}
	if err := g.ready(); err != nil {
		return Verdicts{}, err
	}
	parse := (*parser).lines
	if format == JSON {
		parse = (*parser).value
	}
	out, waits, err := g.parse(at, parse, body)
	for _, w := range waits {
		<-w.done // this ends within the time limit of an append; the code waits even if the client has gone, because the readings' memory is counted until then
		if w.err != nil && err == nil {
			err = w.err
		}
	}
	if err != nil {
		hint, cause := "send all readings again: repeats count once", err
		var e *fleetscore.Error
		if errors.As(err, &e) && e.Hint != "" && e.Err != nil {
			hint, cause = hint+"; "+e.Hint, e.Err
		}
		return Verdicts{}, fleetscore.Errorf(fleetscore.KindOf(err), op, g.cfg.Name, "the readings could not all be stored: %w", cause).WithHint("%s", hint)
	}
	g.rate.add(g.now(), out.accepted, out.rejected)
	g.metrics.readings.WithLabelValues("accepted").Add(float64(out.accepted))
	g.metrics.readings.WithLabelValues("rejected").Add(float64(out.rejected))
	return Verdicts{out.accepted, out.rejected, out.reasons}, nil
}

// ready returns an error while no more readings can be taken, because too many wait
// to be aggregated.
func (g *Gateway) ready() error {
	why := g.full()
	if why == "" {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Exhausted, "take readings", g.cfg.Name, "%s", why).
		WithHint("send the readings again later; GET /queries says which query is behind, and hub.backlog_mb sets the limit")
}

// parse parses a body and hands its readings to their partitions. If a defect in
// parsing panics, this call fails, but the parser is returned for the next call.
func (g *Gateway) parse(source int, parse func(*parser, []byte, time.Time) *parsed, body []byte) (*parsed, []*waiting, error) {
	defer g.parsing.begin(g.now)()
	p := <-g.parsers
	sound := false
	defer func() {
		if !sound {
			p = newParser(g.cfg, &g.partition, len(g.committers))
		}
		g.parsers <- p
	}()
	// While the clock isn't trusted, a reading whose time seems to be in the future
	// may be right.
	out := parse(p, body, g.now().Add(g.clock.Unsure()))
	sound = true
	if out.accepted > 0 {
		g.clock.Witness(out.newest.Time())
	}
	waits, err := g.queue(source, out)
	return out, waits, err
}

// queue hands the readings to their partitions.
func (g *Gateway) queue(source int, out *parsed) (waits []*waiting, err error) {
	for i, list := range out.batches {
		if len(list) == 0 {
			continue
		}
		w, e := g.committers[i].put(source, list)
		if e != nil {
			err = e
		}
		waits = append(waits, w...)
	}
	return waits, err
}
