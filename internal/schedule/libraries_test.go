package schedule

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// question is what the libraries are asked.
type question struct {
	line, zone string
	after      time.Time
}

func anyOf[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// randomField is a field as people write them, and as they rarely do.
func randomField(r *rand.Rand, f field, star int) string {
	if r.IntN(10) < star {
		return "*"
	}
	value := func(v int) string {
		if f.names != nil && v-f.low < len(f.names) && r.IntN(3) == 0 {
			return anyOf(r, f.names[v-f.low], strings.ToLower(f.names[v-f.low]))
		}
		return fmt.Sprint(v)
	}
	var terms []string
	for range 1 + r.IntN(2) {
		a := f.low + r.IntN(f.high-f.low+1)
		b := a + r.IntN(f.high-a+1)
		step := 1 + r.IntN(f.high)
		switch k := r.IntN(12); {
		case k < 5:
			terms = append(terms, value(a))
		case k < 7:
			terms = append(terms, value(a)+"-"+value(b))
		case k < 8:
			terms = append(terms, fmt.Sprintf("%d-%d/%d", a, b, step))
		case k < 9:
			terms = append(terms, fmt.Sprintf("%d/%d", a, step))
		case k < 10 && f.monthday:
			terms = append(terms, anyOf(r, "L", "L", "LW", fmt.Sprintf("%dW", a), "?"))
		case k < 10 && f.weekday:
			return value(a) + anyOf(r, "#1", "#2", "#4", "#5", "L")
		case k < 10 && r.IntN(4) == 0:
			terms = append(terms, fmt.Sprintf("%d-%d", b, a))
		default:
			terms = append(terms, fmt.Sprintf("*/%d", step))
		}
	}
	return strings.Join(terms, ",")
}

func randomQuestion(r *rand.Rand) question {
	q := question{zone: anyOf(r, "UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "America/Santiago", "Australia/Sydney")}
	var parts []string
	for i, star := range []int{2, 3, 6, 8, 6} {
		parts = append(parts, randomField(r, fields[i], star))
	}
	q.line = strings.Join(parts, " ")
	q.after = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(r.IntN(2*365*24*60)) * time.Minute)
	zone, err := time.LoadLocation(q.zone)
	if err != nil {
		panic(err)
	}
	if _, change := q.after.In(zone).ZoneBounds(); !change.IsZero() && r.IntN(2) == 0 {
		q.after = change.Add(-time.Duration(r.IntN(8*60)) * time.Minute)
	}
	return q
}

// decided says which rule of docs/schedules.md answers a question on which the two
// libraries don't agree; empty if there is none.
func decided(q question, ours []string) string {
	parts := strings.Fields(strings.ToUpper(q.line))
	day, weekday := parts[2], parts[4]
	zone, err := time.LoadLocation(q.zone)
	if err != nil {
		panic(err)
	}
	at := func(text string) time.Time {
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			panic(err)
		}
		return t
	}
	switch {
	case ours == nil && slices.ContainsFunc(parts, func(p string) bool { return hasRange(p, func(low, high int) bool { return high < low }) }):
		return "a range that goes backwards"
	case slices.ContainsFunc(parts, func(p string) bool { return hasRange(p, func(low, high int) bool { return high == low }) }):
		return "a range of one value"
	case (day[0] == '*' || weekday[0] == '*') && day != "*" && weekday != "*":
		return "a star with a step, and both days"
	case ours == nil && strings.Contains(day, "31W"):
		return "31W in months of 30 days"
	case ours == nil:
		return ""
	case strings.ContainsAny(day, "W?"), strings.Contains(weekday, "?"), strings.Contains(weekday, "L"):
		return "L, W and ?"
	case strings.HasSuffix(weekday, "SUN") && strings.Contains(weekday, "-"):
		return "a range to SUN"
	case strings.Contains(day+weekday, ",*"):
		return "a star that isn't the first"
	case strings.Contains(strings.ReplaceAll(weekday, "*/", ""), "/"):
		return "a step from a day of the week on"
	case day != "*" && strings.Contains(weekday, "#"):
		return "a day and #"
	}
	_, change := q.after.In(zone).ZoneBounds()
	if !change.IsZero() && !at(ours[len(ours)-1]).Before(change.Add(-3*time.Hour)) {
		return "a gap or a fold"
	}
	return ""
}

// hasRange reports whether a field has such a range.
func hasRange(part string, such func(low, high int) bool) bool {
	for term := range strings.SplitSeq(part, ",") {
		span, _, _ := strings.Cut(term, "/")
		from, to, ok := strings.Cut(span, "-")
		f := fields[4]
		if !slices.Contains(f.names, from) && !slices.Contains(f.names, to) {
			f = fields[3]
		}
		number := func(text string) int {
			if n, err := strconv.Atoi(text); err == nil {
				return n
			}
			return f.low + slices.Index(f.names, text)
		}
		if ok && such(number(from), number(to)) {
			return true
		}
	}
	return false
}

// TestCronAsTwoLibraries asks croniter and cronsim. Where they agree we say the same;
// where they don't, a rule of docs/schedules.md decides.
func TestCronAsTwoLibraries(t *testing.T) {
	t.Parallel()
	python := testkit.Venv(t, "croniter==7.0.0", "cronsim==2.8", "tzdata==2026.6")
	r := rand.New(rand.NewPCG(10, uint64(time.Now().UnixNano())))
	var questions []question
	var stdin bytes.Buffer
	for range 1000 {
		q := randomQuestion(r)
		line, err := json.Marshal([]string{q.line, q.zone, q.after.Format(time.RFC3339)})
		if err != nil {
			t.Fatal(err)
		}
		questions = append(questions, q)
		stdin.Write(append(line, '\n'))
	}
	cmd := testkit.Command(t, python, filepath.Join("testdata", "libraries.py"))
	cmd.Stdin = &stdin
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	agreed, rules := 0, map[string]int{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for i := 0; lines.Scan(); i++ {
		var answers [2][]string
		if err := json.Unmarshal(lines.Bytes(), &answers); err != nil {
			t.Fatal(err)
		}
		q, ours := questions[i], answer(questions[i])
		switch {
		case answers[0] != nil && slices.Equal(answers[0], answers[1]):
			// Where they read a line differently they can still agree by accident, such as
			// on a Sunday that one of them leaves out for its gap, the other for its number.
			accident := slices.Contains([]string{"a range of one value", "a step from a day of the week on"}, decided(q, ours))
			if agreed++; !slices.Equal(ours, answers[0]) && !accident {
				t.Errorf("%q in %s after %s:\nours %q\nboth %q", q.line, q.zone, q.after.Format(time.RFC3339), ours, answers[0])
			}
		case answers[0] == nil && answers[1] == nil: // such as values that both refuse, and 30 February
		case decided(q, ours) == "":
			t.Errorf("%q in %s after %s: no rule decides\nours     %q\ncroniter %q\ncronsim  %q", q.line, q.zone, q.after.Format(time.RFC3339), ours, answers[0], answers[1])
		default:
			rules[decided(q, ours)]++
		}
	}
	t.Logf("of %d lines the libraries agree on %d; rules for the others: %v", len(questions), agreed, rules)
	if agreed < len(questions)/3 {
		t.Errorf("the libraries agree on %d of %d lines only: the test compares too little", agreed, len(questions))
	}
}

// answer is what we say; nil if the line is refused.
func answer(q question) (out []string) {
	s, err := Parse(cronIn(q.zone, q.line))
	if err != nil {
		return nil
	}
	at := q.after
	for range 8 {
		due, ok := s.Next(at)
		if !ok {
			break
		}
		out, at = append(out, due.Format("2006-01-02T15:04:05Z")), due
	}
	return out
}
