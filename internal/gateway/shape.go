package gateway

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
)

// A client writes all its readings alike: the same columns in the same order with the same
// white space. So the parser learns the shape of a reading that it parsed as JSON, and
// reads later ones by comparing the text between the values and by reading the values
// where the shape expects them. Any difference, and any value that isn't written in the
// plainest way, leaves the reading to the parser of JSON. So the result is the same.
//
// A shape is used by one parser.
type shape struct {
	parts []part
	end   string // after the last value
	cells []cell // of the columns that are neither time nor key nor id; the names are set
	timed bool
	keyed bool // every key column has a value, in the order of the columns

	batch *batch // to which the last reading of the shape was added
	round uint64 // of the batch
	at    []int  // the columns of the cells in the batch
}

// part is a value of a shape, and the text before it.
type part struct {
	before string // from the end of the value before; if the value is a text, with its opening quote
	role   role
	at     int // the key column, or the place in cells

	words, masks [2]uint64 // of before, if it has at most 16 bytes
}

// precedes reports whether the part's value begins behind this place of the text.
func (t *part) precedes(b []byte, i int) bool {
	if len(b)-i >= 16 && len(t.before) <= 16 {
		return (word(b[i:])^t.words[0])&t.masks[0]|(word(b[i+8:])^t.words[1])&t.masks[1] == 0
	}
	return len(b)-i >= len(t.before) && string(b[i:i+len(t.before)]) == t.before
}

// prepare makes what precedes compares, eight bytes at once.
func (t *part) prepare() {
	var text, mask [16]byte
	for i := range copy(text[:], t.before) {
		mask[i] = 0xff
	}
	for i := range t.words {
		t.words[i], t.masks[i] = word(text[8*i:]), word(mask[8*i:])
	}
}

func word(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

type role int

const (
	timeText role = iota
	timeNumber
	keyText
	keyNumber
	idText
	idNumber
	numberCell
	textCell
)

const (
	maxShapes   = 4       // that a parser remembers
	maxParts    = 64      // values of a shape
	maxUnused   = 8       // shapes that were learned in vain; after that few readings are looked at
	learnOneOf  = 256     // of these readings one is looked at
	maxShape    = 4 << 10 // bytes of a reading whose shape is learned
	maxExact    = 1 << 53 // a whole number below it is exact in a float64
	exactPowers = 22      // powers of ten up to this one are exact in a float64
)

var powers = func() (p [exactPowers + 1]float64) {
	for i := range p {
		p[i], _ = strconv.ParseFloat("1e"+strconv.Itoa(i), 64)
	}
	return p
}()

// predicted reads the reading that begins at place i into p.reading, if it has a shape that is
// known, and returns the place after it.
func (p *parser) predicted(b []byte, i int) (end int, ok bool) {
	for k, s := range p.shapes {
		if end, ok = p.scan(s, b, i); !ok {
			continue
		}
		if !p.finished(s) {
			return 0, false
		}
		if k > 0 {
			p.shapes[k-1], p.shapes[k] = s, p.shapes[k-1]
		}
		p.unused = 0
		return end, true
	}
	return 0, false
}

// scan reads the values of a reading of a shape.
func (p *parser) scan(s *shape, b []byte, i int) (end int, ok bool) {
	r := &p.reading
	r.found = false
	guess, like := fleetscore.Key(""), 0 // the key that may come, and how far the values are like it
	if s.keyed {
		guess, r.next = p.dict.following(r.place)
	}
	for k := range s.parts {
		t := &s.parts[k]
		if !t.precedes(b, i) {
			return 0, false
		}
		i += len(t.before)
		from := i
		switch t.role {
		case timeText:
			if r.time, i = p.clock.read(b, i); i == from {
				return 0, false
			}
		case timeNumber:
			m := uint64(0)
			if m, i = whole(b, i); i == from {
				return 0, false
			}
			if r.time, ok = p.unit.micros(m); !ok {
				return 0, false
			}
		case keyText, idText, textCell:
			if i = plain(b, i); i < 0 {
				return 0, false
			}
			switch {
			case t.role == textCell && i-from <= maxTextBytes:
				s.cells[t.at].text = p.texts.keep(b[from:i])
			case t.role == idText:
				r.id = p.texts.keep(b[from:i])
			case t.role == keyText && i > from && i-from <= maxKeyBytes:
				p.values[t.at] = b[from:i]
				like = behind(guess, like, b[from:i])
			default:
				return 0, false
			}
		case keyNumber, idNumber:
			if _, i = whole(b, i); i == from {
				return 0, false
			}
			if t.role == idNumber {
				r.id = p.texts.keep(b[from:i])
			} else {
				p.values[t.at] = b[from:i]
				like = behind(guess, like, b[from:i])
			}
		case numberCell:
			if s.cells[t.at].number, i = decimal(b, i); i == from {
				return 0, false
			}
		}
	}
	if len(b)-i < len(s.end) || string(b[i:i+len(s.end)]) != s.end {
		return 0, false
	}
	r.found = guess != "" && like == len(guess)+1
	return i + len(s.end), true
}

// behind returns the place in a key behind a value that begins at a place, and behind the separator after it; below 0
// if the key has another value there.
func behind(key fleetscore.Key, from int, value []byte) int {
	end := from + len(value)
	if from < 0 || end > len(key) || string(key[from:end]) != string(value) || end < len(key) && key[end] != fleetscore.KeySeparator[0] {
		return -1
	}
	return end + 1
}

// finished completes a reading that was scanned; false leaves it to the parser of JSON, which says
// what is wrong.
func (p *parser) finished(s *shape) bool {
	r := &p.reading
	r.cells, r.shape, r.unstamped = s.cells, s, !s.timed
	switch {
	case !s.timed && !p.msg.ArrivalTime:
		return false
	case !s.timed:
		r.time = p.now
	case r.time > p.latest || r.time < leastTime:
		return false
	}
	if s.keyed && len(p.keys) == 0 && p.msg.Owner == "" {
		return true
	}
	for i, v := range p.values {
		if given := p.given(i); given != nil {
			if v == nil {
				v = given
				p.values[i] = v
			} else if !bytes.Equal(v, given) {
				return false
			}
		}
		if v == nil || i == p.owns && p.msg.Owner != "" && string(v) != p.msg.Owner {
			return false
		}
	}
	return true
}

// plain returns the end of a text that has no escapes and is of ASCII characters, which is the
// place of its closing quote; below 0 if the text isn't like that.
func plain(b []byte, i int) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for ; len(b)-i >= 8; i += 8 {
		w := word(b[i:])
		quote, slash := w^('"'*ones), w^('\\'*ones)
		// The high bit of a byte says that the character ends the text. A borrow may set a bit wrongly, but only behind a
		// right one, and the first one counts.
		ends := (quote-ones)&^quote | (slash-ones)&^slash | (w-' '*ones)&^w | w | (w&^high + ones)
		if ends &= high; ends != 0 {
			if i += bits.TrailingZeros64(ends) / 8; b[i] != '"' {
				return -1
			}
			return i
		}
	}
	for ; i < len(b); i++ {
		c := b[i]
		if c == '"' {
			return i
		}
		if c < ' ' || c == '\\' || c >= 0x7f {
			return -1
		}
	}
	return -1
}

// whole reads digits without leading zeros, of a number below 1e19; the place stays if there
// is no such number. The caller finds a fraction or exponent, because it isn't the text
// that follows.
func whole(b []byte, i int) (v uint64, end int) {
	from := i
	for ; i < len(b) && b[i]-'0' < 10; i++ {
		v = v*10 + uint64(b[i]-'0')
	}
	if n := i - from; n > 19 || n > 1 && b[from] == '0' {
		return 0, from
	}
	return v, i
}

// decimal reads a number without exponent whose digits are exact in a float64; the place
// stays if there is no such number. One division by an exact power of ten rounds once, as
// strconv does.
func decimal(b []byte, i int) (v float64, end int) {
	from := i
	negative := i < len(b) && b[i] == '-'
	if negative {
		i++
	}
	first := i
	m := uint64(0)
	for ; i < len(b) && b[i]-'0' < 10; i++ {
		m = m*10 + uint64(b[i]-'0')
	}
	n := i - first
	if n == 0 || n > 1 && b[first] == '0' {
		return 0, from
	}
	fraction := 0
	if i < len(b) && b[i] == '.' {
		i++
		point := i
		for ; i < len(b) && b[i]-'0' < 10; i++ {
			m = m*10 + uint64(b[i]-'0')
		}
		if fraction = i - point; fraction == 0 {
			return 0, from
		}
	}
	if n+fraction > 18 || m >= maxExact {
		return 0, from
	}
	v = float64(m)
	if fraction > 0 {
		v /= powers[fraction]
	}
	if negative {
		v = math.Copysign(v, -1)
	}
	return v, i
}

// stamps reads times of the form 2006-01-02T15:04:05.000Z, with up to 6 digits of the second's
// fraction. It remembers the day and the second that it read last.
type stamps struct {
	day  [11]byte
	base fleetscore.Micros // of the day

	last   [3]uint64 // the text of the second, in words of which two overlap
	second fleetscore.Micros
}

// read returns a time and the place of the quote after it; the place stays if the time
// has another form.
func (s *stamps) read(b []byte, i int) (fleetscore.Micros, int) {
	if len(b)-i < len("2006-01-02T15:04:05Z\"") {
		return 0, i
	}
	t := b[i:]
	if text := [3]uint64{word(t), word(t[8:]), word(t[11:])}; text != s.last {
		second, ok := s.whole(t)
		if !ok {
			return 0, i
		}
		s.last, s.second = text, second
	}
	m, n := s.second, len("2006-01-02T15:04:05")
	if t[n] == '.' {
		scale := fleetscore.Micros(100_000)
		for n++; n < len(t) && t[n]-'0' < 10; n++ {
			m += fleetscore.Micros(t[n]-'0') * scale
			scale /= 10
		}
		if n == 20 || n > 26 {
			return 0, i
		}
	}
	if n >= len(t) || t[n] != 'Z' {
		return 0, i
	}
	return m, i + n + 1
}

// whole reads a time up to its second.
func (s *stamps) whole(t []byte) (fleetscore.Micros, bool) {
	if [11]byte(t) != s.day {
		m, err := table.ParseTime(string(t[:10]))
		if err != nil || t[10] != 'T' {
			return 0, false
		}
		s.day, s.base = [11]byte(t), m
	}
	hour, minute, second := two(t[11:]), two(t[14:]), two(t[17:])
	if hour > 23 || minute > 59 || second > 59 || t[13] != ':' || t[16] != ':' {
		return 0, false
	}
	return s.base + fleetscore.Micros((hour*60+minute)*60+second)*1e6, true
}

// two is a number of two digits; 99 or more if they aren't digits.
func two(b []byte) uint {
	tens, ones := uint(b[0]-'0'), uint(b[1]-'0')
	if tens > 9 || ones > 9 {
		return 255
	}
	return tens*10 + ones
}

// learn remembers the shape of a reading that was accepted as JSON.
func (p *parser) learn(text []byte) {
	p.seen++
	if len(text) > maxShape || p.unused >= maxUnused && p.seen%learnOneOf != 0 {
		return
	}
	s := p.shapeOf(text)
	if s == nil || slices.ContainsFunc(p.shapes, func(o *shape) bool { return o.end == s.end && slices.Equal(o.parts, s.parts) }) {
		return
	}
	p.unused++
	if len(p.shapes) < maxShapes {
		p.shapes = append(p.shapes, s)
	} else {
		p.shapes[maxShapes-1] = s
	}
}

// shapeOf is the shape of an object; nil if it has none that could be scanned.
func (p *parser) shapeOf(text []byte) *shape {
	s := &shape{}
	p.reset(text)
	if t, err := p.dec.ReadToken(); err != nil || t.Kind() != '{' {
		return nil
	}
	before := 0
	for p.dec.PeekKind() != '}' {
		raw, err := p.dec.ReadValue()
		if err != nil {
			return nil
		}
		p.text = p.text[:0]
		name, ok := p.name(raw)
		if raw, err = p.dec.ReadValue(); err != nil || !ok {
			return nil
		}
		kind := raw.Kind()
		end := int(p.dec.InputOffset())
		from := end - len(raw)
		if kind == '"' {
			from, end = from+1, end-1
		} else if kind != '0' {
			return nil
		}
		t := part{before: string(text[before:from]), at: slices.Index(p.cfg.Hub.Key, name)}
		before = end
		isText := kind == '"'
		switch {
		case name == p.cfg.Hub.Time:
			t.role, s.timed = pickRole(isText, timeText, timeNumber), true
		case t.at >= 0:
			t.role = pickRole(isText, keyText, keyNumber)
		case name == IDField:
			t.role = pickRole(isText, idText, idNumber)
		default:
			t.role, t.at = pickRole(isText, textCell, numberCell), len(s.cells)
			s.cells = append(s.cells, cell{name: name, isText: isText})
		}
		s.parts = append(s.parts, t)
	}
	if len(s.parts) == 0 || len(s.parts) > maxParts {
		return nil
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return nil
	}
	s.end = string(text[before:p.dec.InputOffset()])
	var keys []int
	for i := range s.parts {
		s.parts[i].prepare()
		if role := s.parts[i].role; role == keyText || role == keyNumber {
			keys = append(keys, s.parts[i].at)
		}
	}
	s.keyed = slices.Equal(keys, p.inOrder)
	s.at = make([]int, len(s.cells))
	return s
}

func pickRole(isText bool, text, number role) role {
	if isText {
		return text
	}
	return number
}
