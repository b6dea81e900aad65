package gateway

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

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

// Message is text that holds readings, and what is known of all of them besides the text.
type Message struct {
	Format Format
	Body   []byte
	// Keys are the values of the key columns, in their order; a value that is empty or
	// absent is in the text. Each must be good by KeyText.
	Keys        []string
	Value       string // column of a JSON text that is a bare number; empty means that a number isn't a reading
	ArrivalTime bool   // a reading without a time gets the time of its arrival
	Owner       string // value that Hub.OwnKey must have in each reading; empty means any
	// Arrived is when the readings came, if they are handed over again; zero means now.
	Arrived time.Time
	// Way is how the readings came, if that isn't the source.
	Way Way

	lines   *Lines        // what the text was translated from; nil for none
	refused func(*parsed) // is called if readings were rejected, before the others can be stored; nil isn't
	after   []int         // per partition: lines up to this one are stored there already; nil means none
}

// KeyText says why a text can't be the value of a key column; empty if it can.
func KeyText(text []byte) (why string) {
	switch {
	case len(text) == 0:
		return "the key is empty"
	case len(text) > maxKeyBytes:
		return fmt.Sprintf("the key is longer than %d bytes", maxKeyBytes)
	case bytes.IndexByte(text, fleetscore.KeySeparator[0]) >= 0:
		return "the key contains the control character U+001F"
	case !utf8.Valid(text):
		return "the key isn't UTF-8"
	}
	return ""
}

// Take is Begin and Wait for readings of which nothing is known besides their text.
func (g *Gateway) Take(source fleetscore.Source, format Format, body []byte) (Verdicts, error) {
	p, err := g.Begin(source, Message{Format: format, Body: body})
	if err != nil {
		return Verdicts{}, err
	}
	return p.Wait()
}

const takeOp = "take readings"

// Pending is readings on their way into the hub.
type Pending struct {
	g     *Gateway
	way   Way
	out   *parsed
	waits []*waiting
	err   error
}

// Begin parses readings of a source and hands those that are well-formed to the hub. They
// are stored only once Wait said so. Run must be running. The caller bounds how many bytes
// are between Begin and Wait at once; the message's text isn't kept.
func (g *Gateway) Begin(source fleetscore.Source, m Message) (*Pending, error) {
	at := slices.Index(g.cfg.Sources, source)
	if at < 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, takeOp, g.cfg.Name, "the source %q isn't one of %q", source, g.cfg.Sources).WithHint("list the source in the gateway's configuration")
	}
	if err := g.ready(); err != nil {
		return nil, err
	}
	parse := (*parser).lines
	if m.Format == JSON {
		parse = (*parser).value
	}
	out, waits, err := g.parse(parse, m, func(c *committer, _ []*batch) (*sourceState, string) { return c.fixed[at], "" })
	return &Pending{g, cmp.Or(m.Way, Way(source)), out, waits, err}, nil
}

// Wait returns once the readings are synced to disk. After an error some of them may be
// stored nevertheless. The caller can send all readings again: repeats count once. It is
// called once, and ends within the time limit of an append.
func (p *Pending) Wait() (Verdicts, error) {
	g, err := p.g, p.err
	for _, w := range p.waits {
		<-w.done // the code waits even if the client has gone, because the readings' memory is counted until then
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
		return Verdicts{}, fleetscore.Errorf(fleetscore.KindOf(err), takeOp, g.cfg.Name, "the readings could not all be stored: %w", cause).WithHint("%s", hint)
	}
	g.count(p.way, p.out.accepted, p.out.rejected, p.out.newest)
	return Verdicts{p.out.accepted, p.out.rejected, p.out.reasons}, nil
}

// Reject counts a message that was refused as a whole, before its text was read.
func (g *Gateway) Reject(way Way) { g.count(way, 0, 1, 0) }

func (g *Gateway) count(way Way, accepted, rejected int, newest fleetscore.Micros) {
	if r := g.rates[way]; r != nil {
		r.add(g.now(), accepted, rejected, newest)
	}
	g.metrics.readings.WithLabelValues("accepted").Add(float64(accepted))
	g.metrics.readings.WithLabelValues("rejected").Add(float64(rejected))
}

// ready returns an error while no more readings can be taken, because too many wait
// to be aggregated.
func (g *Gateway) ready() error {
	why := g.full()
	if why == "" {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Exhausted, takeOp, g.cfg.Name, "%s", why).
		WithHint("send the readings again later; GET /queries says which query is behind, and hub.backlog_mb sets the limit")
}

// parse parses a body and hands its readings to their partitions, as those of a source and,
// for a feed, with the position where they end. If a defect in parsing panics, this call
// fails, but the parser is returned for the next call.
func (g *Gateway) parse(parse func(*parser, []byte, time.Time) *parsed, m Message, of func(*committer, []*batch) (*sourceState, string)) (*parsed, []*waiting, error) {
	defer g.parsing.begin(g.now)()
	p := <-g.parsers
	sound := false
	defer func() {
		if !sound {
			p = newParser(g.cfg, g.shared)
		}
		g.parsers <- p
	}()
	// While the clock isn't trusted, a reading whose time seems to be in the future
	// may be right.
	now := g.now()
	p.msg, p.now = m, fleetscore.MicrosOf(now)
	if !m.Arrived.IsZero() {
		p.now = fleetscore.MicrosOf(m.Arrived)
	}
	out := parse(p, m.Body, now.Add(g.clock.Unsure()))
	p.msg = Message{}
	sound = true
	if out.newest > 0 {
		g.clock.Witness(out.newest.Time())
	}
	if m.lines != nil {
		m.lines.adjust(out)
	}
	if m.refused != nil && out.rejected > 0 {
		m.refused(out)
	}
	waits, err := g.queue(out, of)
	return out, waits, err
}

// queue hands the readings to their partitions.
func (g *Gateway) queue(out *parsed, of func(*committer, []*batch) (*sourceState, string)) (waits []*waiting, err error) {
	for i, list := range out.batches {
		source, position := of(g.committers[i], list)
		if len(list) == 0 && position == "" {
			continue
		}
		w, e := g.committers[i].put(source, list, position)
		if e != nil {
			err = e
		}
		waits = append(waits, w...)
	}
	return waits, err
}
