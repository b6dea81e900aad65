package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/fleetscore/fleetscore"
)

// IDField is the column of a reading's message id, by which repeats are recognised.
const IDField = "_id"

// Limits of one reading.
const (
	maxKeyBytes    = 512
	maxNameBytes   = 256
	maxTextBytes   = 16 << 10
	maxColumnCount = 512

	maxRequestColumns = maxBatchColumns // of all readings of a request; a name with numbers and texts counts twice
)

// Rejection is the verdict on a reading that wasn't taken.
type Rejection struct {
	Line   int    `json:"line"`            // of NDJSON, or the place in an array; from 1
	Field  string `json:"field,omitempty"` // the wrong column; empty means the whole line
	Reason string `json:"reason"`
}

// String is the verdict as messages have it.
func (r Rejection) String() string {
	if r.Field == "" {
		return fmt.Sprintf("line %d: %s", r.Line, r.Reason)
	}
	return fmt.Sprintf("line %d, column %s: %s", r.Line, r.Field, r.Reason)
}

// maxRejections bounds the list in an answer; the count is always exact.
const maxRejections = 100

// parsed holds a request's readings per partition, and its rejected ones.
type parsed struct {
	batches  [][]*batch // per partition
	accepted int
	rejected int
	reasons  []Rejection       // the first maxRejections
	rows     []int             // of the reasons: which lines of the translated text; set by Lines.adjust
	newest   fleetscore.Micros // time that a device gave to a reading accepted; 0 if none did
}

func (p *parsed) reject(line int, field, format string, args ...any) {
	p.rejected++
	if len(p.reasons) < maxRejections {
		p.reasons = append(p.reasons, Rejection{line, field, fmt.Sprintf(format, args...)})
	}
}

// parser turns bodies into readings. It is used by one request at a time and reuses
// its memory.
type parser struct {
	cfg    Config
	shared *shared
	unit   unit        // of times that are numbers
	dict   *dictionary // that the request's batches use

	in      bytes.Buffer
	dec     *jsontext.Decoder
	names   map[string]string     // column names seen, so that each is one string
	columns map[columnOf]struct{} // of the request
	reading reading
	values  [][]byte // of the key columns
	text    []byte
	cells   []cell // memory of the reading's cells
	left    int    // bytes of the body from the present reading on
	shapes  []*shape
	unused  int // shapes that were learned since a reading had a shape that was known
	seen    int // readings that had none
	clock   stamps
	texts   texts
	out     *parsed
	msg     Message
	keys    [][]byte          // msg.Keys
	inOrder []int             // the numbers of the key columns
	owns    int               // the key column that must hold msg.Owner; -1 for none
	now     fleetscore.Micros // when the message arrived
	latest  fleetscore.Micros // a reading's time may not lie after it
}

// maxNames bounds the memory that clients can fill with column names.
const maxNames = 10000

func newParser(cfg Config, shared *shared) *parser {
	inOrder := make([]int, len(cfg.Hub.Key))
	for i := range inOrder {
		inOrder[i] = i
	}
	return &parser{cfg: cfg, inOrder: inOrder, shared: shared, unit: timeUnits[cfg.Hub.TimeUnit], owns: slices.Index(cfg.Hub.Key, cfg.Hub.OwnKey), names: map[string]string{}, columns: map[columnOf]struct{}{},
		dec: jsontext.NewDecoder(&bytes.Buffer{}), values: make([][]byte, len(cfg.Hub.Key))}
}

func (p *parser) begin(now time.Time) {
	clear(p.columns)
	p.out = &parsed{batches: make([][]*batch, p.shared.count)}
	if d := p.shared.current.Load(); d != p.dict {
		p.dict, p.reading.place = d, 0
	}
	p.keys = p.keys[:0]
	for _, k := range p.msg.Keys {
		var given []byte
		if k != "" {
			given = []byte(k)
		}
		p.keys = append(p.keys, given)
	}
	p.latest = math.MaxInt64
	if p.cfg.MaxFuture >= 0 {
		p.latest = fleetscore.MicrosOf(now.Add(p.cfg.MaxFuture))
	}
}

func (p *parser) end() *parsed { return p.out }

// given is the value of a key column that isn't in the text; nil if it is.
func (p *parser) given(i int) []byte {
	if i < len(p.keys) {
		return p.keys[i]
	}
	return nil
}

func (p *parser) reset(data []byte) {
	p.in = *bytes.NewBuffer(data)
	p.dec.Reset(&p.in)
}

// lines parses NDJSON: every line is judged separately.
func (p *parser) lines(body []byte, now time.Time) *parsed {
	p.begin(now)
	at := 0
	for line := 1; at < len(body); line++ {
		p.left = len(body) - at
		p.blank()
		if end, ok := p.predicted(body, at); ok && (end == len(body) || body[end] == '\n') {
			p.keep(line, end-at)
			at = end + 1
			continue
		}
		text := body[at:]
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			text = text[:i]
		}
		at += len(text) + 1
		if text = bytes.TrimSpace(text); len(text) > 0 {
			p.line(line, text)
		}
	}
	return p.end()
}

// line parses one line of NDJSON.
func (p *parser) line(line int, text []byte) {
	p.reset(text)
	before := p.out.rejected
	err := p.object(line)
	if p.out.rejected > before {
		return // one verdict for a line, whatever else is wrong with it
	}
	if err != nil {
		p.out.reject(line, "", "not a JSON object: %s", reason(err))
	} else if _, err := p.dec.ReadToken(); !errors.Is(err, io.EOF) {
		p.out.reject(line, "", "more follows the JSON object; write one object per line")
	} else {
		p.keep(line, len(text))
		p.learn(text)
	}
}

// value parses one JSON object or an array of them. Invalid JSON ends the parsing,
// because nobody can know where the next reading would begin.
func (p *parser) value(body []byte, now time.Time) *parsed {
	p.begin(now)
	at := skip(body, 0)
	array := at < len(body) && body[at] == '['
	if array {
		at = skip(body, at+1)
	}
	for n := 1; ; n++ {
		if array && n == 1 && at < len(body) && body[at] == ']' {
			at++
			break
		}
		end, ok := p.element(n, body, at)
		if !ok {
			return p.end()
		}
		at = end
		if !array {
			break
		}
		if at = skip(body, at); at < len(body) && body[at] == ']' {
			at++
			break
		} else if at == len(body) || body[at] != ',' {
			why := "the text ends too early"
			if at < len(body) {
				why = fmt.Sprintf("invalid character %q after an element of the array (expecting ',' or ']') at byte %d", rune(body[at]), at+1)
			}
			p.out.reject(n+1, "", "not a JSON object: %s; nothing after it was read", why)
			return p.end()
		}
		at = skip(body, at+1)
	}
	if skip(body, at) < len(body) {
		p.out.reject(p.out.accepted+p.out.rejected+1, "", "more follows the JSON value; for one object per line send Content-Type: application/x-ndjson")
	}
	return p.end()
}

// element parses reading n, which begins at a place of the body, and returns the place after it;
// false if it isn't JSON.
func (p *parser) element(n int, body []byte, at int) (end int, ok bool) {
	p.left = len(body) - at
	p.blank()
	if end, ok := p.predicted(body, at); ok {
		p.keep(n, end-at)
		return end, true
	}
	p.reset(body[at:])
	before := p.out.rejected
	if err := p.object(n); err != nil {
		p.out.reject(n, "", "not a JSON object: %s; nothing after it was read", reasonFrom(err, at))
		return 0, false
	}
	end = at + int(p.dec.InputOffset())
	if p.out.rejected == before {
		p.keep(n, end-at)
		p.learn(body[at:end])
	}
	return end, true
}

// skip returns the place of the next character that is not white space.
func skip(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// reason returns a syntax error without the prefix of the JSON package.
func reason(err error) string { return reasonFrom(err, 0) }

// reasonFrom is reason for a text that begins at a place of the body.
func reasonFrom(err error, at int) string {
	var s *jsontext.SyntacticError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the text ends too early"
	case errors.As(err, &s) && s.Err != nil:
		return fmt.Sprintf("%v at byte %d", s.Err, s.ByteOffset+int64(at)+1)
	}
	return err.Error()
}

// blank forgets the reading before.
func (p *parser) blank() {
	r := &p.reading
	r.id, r.cells, r.shape, r.unstamped, r.found = "", nil, nil, false, false
	for i := range p.values {
		p.values[i] = nil
	}
}

// object reads one reading into p.reading. An error says that the text isn't JSON.
// For any other fault the reading is rejected and the object read to its end.
func (p *parser) object(line int) error {
	p.blank() // what was predicted of it
	p.reading.cells, p.text = p.cells[:0], p.text[:0]
	defer func() { p.cells = p.reading.cells }()
	rejected, timed := false, false
	reject := func(field, format string, args ...any) {
		if !rejected {
			p.out.reject(line, field, format, args...)
		}
		rejected = true
	}
	if kind := p.dec.PeekKind(); kind == '0' && p.msg.Value != "" {
		raw, err := p.dec.ReadValue()
		if err != nil {
			return err
		}
		if why := p.cell(p.msg.Value, raw); why != "" {
			reject(p.msg.Value, "%s", why)
		}
		p.complete(false, reject)
		return nil
	} else if kind != '{' && kind > 0 {
		if err := p.dec.SkipValue(); err != nil {
			return err
		}
		reject("", "not a JSON object")
		return nil
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return err
	}
	for p.dec.PeekKind() != '}' {
		raw, err := p.dec.ReadValue()
		if err != nil {
			return err
		}
		name, ok := p.name(raw)
		if raw, err = p.dec.ReadValue(); err != nil {
			return err
		}
		switch {
		case rejected:
		case !ok:
			reject("", "a column's name is empty or longer than %d bytes", maxNameBytes)
		case name == p.cfg.Hub.Time:
			if why := p.time(raw); why != "" {
				reject(name, "%s", why)
			}
			timed = true
		case slices.Contains(p.cfg.Hub.Key, name):
			i := slices.Index(p.cfg.Hub.Key, name)
			if why := p.keyValue(i, raw); why != "" {
				reject(name, "%s", why)
			} else if given := p.given(i); given != nil && !bytes.Equal(given, p.values[i]) {
				reject(name, "the value differs from %q in the topic", given)
			}
		default:
			if why := p.cell(name, raw); why != "" {
				reject(name, "%s", why)
			}
		}
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return err
	}
	p.complete(timed, reject)
	return nil
}

// complete adds what the message says of all its readings, and rejects a reading that
// still lacks its time or a key, or that its sender may not send.
func (p *parser) complete(timed bool, reject func(field, format string, args ...any)) {
	switch {
	case timed:
	case p.msg.ArrivalTime:
		p.reading.time, p.reading.unstamped = p.now, true
	default:
		reject(p.cfg.Hub.Time, "the event time is missing")
	}
	for i, v := range p.values {
		if v == nil && p.given(i) != nil {
			v = p.given(i)
			p.values[i] = v
		}
		switch {
		case v == nil:
			reject(p.cfg.Hub.Key[i], "the key column is missing")
		case i == p.owns && p.msg.Owner != "" && string(v) != p.msg.Owner:
			reject(p.cfg.Hub.Key[i], "%.64q is not the sender: %q may only send its own readings", v, p.msg.Owner)
		}
	}
}

// name interns a column's name.
func (p *parser) name(raw jsontext.Value) (string, bool) {
	n := len(p.text)
	text, err := jsontext.AppendUnquote(p.text, raw)
	if err != nil || len(text) == n || len(text)-n > maxNameBytes {
		return "", false
	}
	name, ok := p.names[string(text[n:])]
	if !ok {
		name = string(text[n:])
		if len(p.names) < maxNames {
			p.names[name] = name
		}
	}
	return name, true
}

func (p *parser) keyValue(i int, raw jsontext.Value) (why string) {
	n := len(p.text)
	switch raw.Kind() {
	case '"':
		text, err := jsontext.AppendUnquote(p.text, raw)
		if err != nil {
			return "not a text"
		}
		p.text = text
	case '0':
		p.text = append(p.text, raw...)
	default:
		return "a key must be a text or a number"
	}
	v := p.text[n:len(p.text):len(p.text)]
	if why := KeyText(v); why != "" {
		return why
	}
	p.values[i] = v
	return ""
}

// cell takes any other column; null is the same as absent.
func (p *parser) cell(name string, raw jsontext.Value) (why string) {
	c := cell{name: name}
	switch raw.Kind() {
	case 'n':
		return ""
	case 't':
		c.number = 1
	case 'f':
	case '0':
		v, err := strconv.ParseFloat(string(raw), 64)
		if err != nil {
			return fmt.Sprintf("the number %.40s doesn't fit into 64 bits", raw)
		}
		c.number = v
	case '"':
		if slices.Contains(p.cfg.Numbers, name) {
			return "the value is a text; queries calculate with this column, so send a number"
		}
		n := len(p.text)
		text, err := jsontext.AppendUnquote(p.text, raw)
		if err != nil || len(text)-n > maxTextBytes {
			return fmt.Sprintf("the text is longer than %d bytes", maxTextBytes)
		}
		c.isText, c.text = true, string(text[n:])
	default:
		return "the value is an object or array; send numbers, texts, true or false"
	}
	if name == IDField {
		p.reading.id = c.text
		if !c.isText {
			p.reading.id = string(raw)
		}
		return ""
	}
	if len(p.reading.cells) == maxColumnCount {
		return fmt.Sprintf("the reading has more than %d columns", maxColumnCount)
	}
	p.reading.cells = append(p.reading.cells, c)
	return ""
}

// keep adds the reading that was read to its partition's batch.
func (p *parser) keep(line, size int) {
	r := &p.reading
	r.bytes = size
	r.place = p.place(r)
	at := p.dict.now.Load().keys[r.place].partition
	if p.msg.after != nil && line <= p.msg.after[at] {
		return
	}
	list := p.out.batches[at]
	var b *batch
	added := len(r.cells)
	if n := len(list); n > 0 && list[n-1].dict == p.dict {
		b = list[n-1]
		added = b.missing(r)
	}
	if added > 0 && !p.enter(r) {
		p.out.reject(line, "", "the request has more than %d different columns; send readings with other columns in a request of their own", maxRequestColumns)
		return
	}
	if b == nil || !b.room(added, 1, len(r.cells), r.bytes) {
		if len(list) > 0 {
			list[len(list)-1].through = line - 1
		}
		b = p.shared.batch(p.dict)
		if len(list) == 0 { // later ones show that not all readings fit into one
			b.expect(min(p.left, maxBatchBytes)/max(size, minLine)/p.shared.count + 1)
		}
		p.out.batches[at] = append(list, b)
	}
	b.add(r)
	p.out.accepted++
	if !r.unstamped {
		p.out.newest = max(p.out.newest, r.time)
	}
}

// place returns the place of the reading's key in the dictionary.
func (p *parser) place(r *reading) uint32 {
	if r.found {
		return r.next
	}
	r.key = r.key[:0]
	for i, v := range p.values {
		if i > 0 {
			r.key = append(r.key, fleetscore.KeySeparator...)
		}
		r.key = append(r.key, v...)
	}
	place, ok := p.dict.find(r.key, r.place)
	if !ok {
		p.dict = p.shared.renew(p.dict)
		place, _ = p.dict.find(r.key, 0) // there is room for one
	}
	return place
}

// minLine is fewer bytes than any reading has.
const minLine = 16

// columnOf is a column of a request.
type columnOf struct {
	name   string
	isText bool
}

// enter notes the reading's columns as columns of the request; false if there are too
// many. This limit bounds the memory that a body with many tiny columns can take.
func (p *parser) enter(r *reading) bool {
	for i := range r.cells {
		c := columnOf{r.cells[i].name, r.cells[i].isText}
		if _, ok := p.columns[c]; ok {
			continue
		}
		if len(p.columns) == maxRequestColumns {
			return false
		}
		p.columns[c] = struct{}{}
	}
	return true
}
