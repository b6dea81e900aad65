package sql

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// Day is the unit of the longest windows.
const Day = 24 * time.Hour

// MaxWindow is the longest window and the longest look back.
const MaxWindow = 7 * Day

var units = []struct {
	names []string
	d     time.Duration
}{
	{[]string{"day", "dd", "d"}, Day},
	{[]string{"hour", "hh"}, time.Hour},
	{[]string{"minute", "mi", "n"}, time.Minute},
	{[]string{"second", "ss", "s"}, time.Second},
	{[]string{"millisecond", "ms"}, time.Millisecond},
	{[]string{"microsecond", "mcs"}, time.Microsecond},
}

// Unit returns the length of a unit of time; long names may be in the plural.
func Unit(name string) (time.Duration, bool) {
	name = strings.ToLower(name)
	for _, u := range units {
		if slices.Contains(u.names, name) || name == u.names[0]+"s" {
			return u.d, true
		}
	}
	return 0, false
}

// UnitNames are the long names of the units, for messages.
func UnitNames() (out []string) {
	for _, u := range units {
		out = append(out, u.names[0])
	}
	return out
}

var windowKinds = map[string]WindowKind{"tumblingwindow": Tumbling, "tumbling": Tumbling, "hoppingwindow": Hopping, "hopping": Hopping,
	"slidingwindow": Sliding, "sliding": Sliding, "sessionwindow": Session, "session": Session}

var windowNames = []string{"TumblingWindow", "HoppingWindow", "SlidingWindow", "SessionWindow", "Windows"}

// windows reads a window or Windows(…) if the next word is one; false if it isn't.
func (p *parser) windows(q *Select) (bool, error) {
	t := p.peek()
	if t.kind != word || !p.after(1).is("(") {
		return false, nil
	}
	_, single := windowKinds[strings.ToLower(t.text)]
	switch {
	case !single && !t.is("Windows"):
		low := strings.ToLower(t.text)
		if near := fleetscore.Nearest(t.text, windowNames); near != "" || strings.HasSuffix(low, "window") {
			err := p.sql.ErrorAt(t.pos, "the window %s is unknown", t.text)
			if near != "" {
				return true, err.WithHint("is %s meant?", near)
			}
			return true, err.WithHint("the windows are TumblingWindow, HoppingWindow, SlidingWindow, SessionWindow, System.Timestamp() and Windows(…)")
		}
		return false, nil
	case len(q.Windows) > 0:
		return true, p.sql.ErrorAt(t.pos, "a query can have only one window").WithHint("write Windows(TumblingWindow(minute, 10), TumblingWindow(minute, 20)) to have the rows of several")
	case single:
		w, err := p.window()
		q.Windows = append(q.Windows, w)
		return true, err
	}
	p.at += 2
	for {
		w, err := p.windowOfSeveral()
		if err != nil {
			return true, err
		}
		q.Windows = append(q.Windows, w)
		if !p.take(",") {
			break
		}
	}
	return true, p.severalAgree(q.Windows)
}

// severalAgree checks the names inside of Windows(…), and reads its last parenthesis.
func (p *parser) severalAgree(ws []Window) error {
	ids := map[string]bool{}
	for _, w := range ws {
		if w.Named != ws[0].Named {
			return p.sql.ErrorAt(w.At, "either all windows or none of Windows() have a name")
		}
		if id := strings.ToLower(w.ID); w.Named && ids[id] {
			return p.sql.ErrorAt(w.At, "two windows have the name '%s'", w.ID)
		}
		ids[strings.ToLower(w.ID)] = true
	}
	return p.need(")")
}

func (p *parser) windowOfSeveral() (Window, error) {
	t := p.peek()
	if p.take("Window", "(") {
		id := p.next()
		if id.kind != text {
			return Window{}, p.sql.ErrorAt(id.pos, "the window's name is expected, not %s", id).WithHint("write for example Window('10 minutes', TumblingWindow(minute, 10))")
		}
		if err := p.need(","); err != nil {
			return Window{}, err
		}
		w, err := p.windowOrStamp()
		w.ID, w.Named, w.At = id.text, true, t.pos
		if err != nil {
			return w, err
		}
		return w, p.need(")")
	}
	return p.windowOrStamp()
}

func (p *parser) windowOrStamp() (Window, error) {
	t := p.peek()
	if p.stamp() {
		return Window{Kind: Snapshot, At: t.pos}, nil
	}
	if _, ok := windowKinds[strings.ToLower(t.text)]; !ok {
		err := p.sql.ErrorAt(t.pos, "a window is expected, not %s", t)
		if near := fleetscore.Nearest(t.text, windowNames[:4]); near != "" {
			return Window{}, err.WithHint("is %s meant?", near)
		}
		return Window{}, err.WithHint("Windows() can't be nested; it takes TumblingWindow, HoppingWindow, SlidingWindow, SessionWindow and System.Timestamp()")
	}
	return p.window()
}

// stamp skips System.Timestamp() or System.Timestamp.
func (p *parser) stamp() bool {
	if !p.take("System", ".", "Timestamp") {
		return false
	}
	p.take("(", ")")
	return true
}

func (p *parser) window() (w Window, err error) {
	t := p.next()
	w.Kind, w.At = windowKinds[strings.ToLower(t.text)], t.pos
	if err = p.need("("); err != nil {
		return w, err
	}
	if p.after(1).is("(") { // Duration(minute, 5), Hop(…), Offset(…)
		err = p.longForm(&w)
	} else {
		err = p.shortForm(&w)
	}
	if err != nil {
		return w, err
	}
	if err = p.need(")"); err != nil {
		return w, err
	}
	if w.Kind == Tumbling {
		w.Hop = w.Size
	}
	if w.Kind == Session && p.take("OVER", "(", "PARTITION", "BY") {
		if w.Over, err = p.list(); err != nil {
			return w, err
		}
		return w, p.need(")")
	}
	return w, nil
}

// parts are the lengths that a kind of window takes: their names in the long form, and
// whether they may be left out.
func (w *Window) parts() []part {
	switch w.Kind {
	case Tumbling:
		return []part{{"Duration", &w.Size, false}, {"Offset", &w.Offset, true}}
	case Hopping:
		return []part{{"Duration", &w.Size, false}, {"Hop", &w.Hop, false}, {"Offset", &w.Offset, true}}
	case Sliding:
		return []part{{"Duration", &w.Size, false}}
	}
	return []part{{"Timeout", &w.Timeout, false}, {"MaxDuration", &w.Max, false}}
}

type part struct {
	name     string
	to       *time.Duration
	optional bool
}

func (p *parser) shortForm(w *Window) error {
	u, err := p.unit()
	if err != nil {
		return err
	}
	for _, part := range w.parts() {
		t := p.peek()
		if !p.take(",") {
			if part.optional {
				break
			}
			return p.sql.ErrorAt(t.pos, "%s needs its %s before %s", w.Kind, strings.ToLower(part.name), t).WithHint("%s", windowForms[w.Kind])
		}
		if *part.to, err = p.length(u, part); err != nil {
			return err
		}
	}
	return p.noMore(w)
}

func (p *parser) longForm(w *Window) error {
	for i, part := range w.parts() {
		t := p.peek()
		if i > 0 && !p.take(",") {
			if part.optional {
				break
			}
			return p.sql.ErrorAt(t.pos, "%s needs its %s before %s", w.Kind, part.name, t).WithHint("%s", windowForms[w.Kind])
		}
		if t = p.peek(); !p.take(part.name, "(") {
			return p.sql.ErrorAt(t.pos, "%s is expected, not %s", part.name, t).WithHint("%s", windowForms[w.Kind])
		}
		u, err := p.unit()
		if err != nil {
			return err
		}
		if err = p.need(","); err != nil {
			return err
		}
		if *part.to, err = p.length(u, part); err != nil {
			return err
		}
		if err = p.need(")"); err != nil {
			return err
		}
	}
	return p.noMore(w)
}

func (p *parser) noMore(w *Window) error {
	if t := p.peek(); t.is(",") {
		return p.sql.ErrorAt(t.pos, "%s takes no more than that", w.Kind).WithHint("%s", windowForms[w.Kind])
	}
	return nil
}

var windowForms = map[WindowKind]string{
	Tumbling: "write TumblingWindow(second, 5), with an offset TumblingWindow(second, 5, 1), or TumblingWindow(Duration(second, 5), Offset(millisecond, -1))",
	Hopping:  "write HoppingWindow(second, size, hop), or HoppingWindow(Duration(minute, 1), Hop(second, 10), Offset(millisecond, -1))",
	Sliding:  "write SlidingWindow(second, 5) or SlidingWindow(Duration(second, 5))",
	Session:  "write SessionWindow(minute, timeout, maximum) OVER (PARTITION BY Device), or SessionWindow(Timeout(second, 30), MaxDuration(minute, 10))",
}

func (p *parser) unit() (time.Duration, error) {
	t := p.next()
	u, ok := Unit(t.text)
	if !ok || t.kind != word && t.kind != text {
		err := p.sql.ErrorAt(t.pos, "%s is not a unit of time", t)
		if near := fleetscore.Nearest(t.text, UnitNames()); near != "" && t.kind != endOfText {
			return 0, err.WithHint("is %s meant?", near)
		}
		return 0, err.WithHint("the units are %s", strings.Join(UnitNames(), ", "))
	}
	return u, nil
}

// length reads a number of units. Offsets may be negative; all else is positive and at
// most 7 days.
func (p *parser) length(u time.Duration, part part) (time.Duration, error) {
	t := p.peek()
	minus := part.name == "Offset" && p.take("-")
	n := p.next()
	x, err := strconv.ParseFloat(n.text, 64)
	if n.kind != number || err != nil {
		return 0, p.sql.ErrorAt(t.pos, "a number is expected, not %s", n).WithHint("the length of a window is a constant")
	}
	x *= float64(u.Microseconds())
	switch {
	case x > float64(MaxWindow.Microseconds()):
		return 0, p.sql.ErrorAt(t.pos, "%s of the unit is longer than 7 days", n.text)
	case x != math.Trunc(x):
		return 0, p.sql.ErrorAt(t.pos, "%s of the unit is not a whole number of microseconds", n.text)
	case x == 0 && part.name != "Offset":
		return 0, p.sql.ErrorAt(t.pos, "the length must be more than 0")
	}
	d := time.Duration(x) * time.Microsecond
	if minus {
		d = -d
	}
	return d, nil
}

// duration reads DURATION(unit, n).
func (p *parser) duration() (time.Duration, error) {
	if err := p.need("DURATION", "("); err != nil {
		return 0, err
	}
	u, err := p.unit()
	if err != nil {
		return 0, err
	}
	if err = p.need(","); err != nil {
		return 0, err
	}
	d, err := p.length(u, part{name: "Duration"})
	if err != nil {
		return 0, err
	}
	return d, p.need(")")
}

// literal builds a constant.
func literal(at int, v value.Value) *Literal { return &Literal{At: at, Value: v} }
