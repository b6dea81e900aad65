package gateway

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
)

// readingsOf are the readings of a request, one a line, with every bit of their numbers.
func readingsOf(out *parsed) (list []string) {
	for _, batches := range out.batches {
		for _, b := range batches {
			b := b.finish(&numbering{})
			for i := range b.Len() {
				text := fmt.Sprintf("%q %d", b.Keys[b.KeyIndex[i]], b.Times[i])
				if b.IDs != nil && b.IDs[i] != "" {
					text += fmt.Sprintf(" id %q", b.IDs[i])
				}
				var cells []string
				for _, c := range b.Columns {
					switch {
					case c.Strings != nil && (c.Present == nil || c.Present[i]):
						cells = append(cells, fmt.Sprintf("%q=%q", c.Name, c.Strings[i]))
					case c.Strings == nil && c.Numbers[i] == c.Numbers[i]:
						cells = append(cells, fmt.Sprintf("%q=%x", c.Name, math.Float64bits(c.Numbers[i])))
					}
				}
				slices.Sort(cells)
				list = append(list, text+" "+strings.Join(cells, " "))
			}
		}
	}
	return list
}

// agree compares a parser that has learned shapes with parsers that know none, so that they
// parse every line as JSON. It returns how many lines the first one predicted.
func agree(t *testing.T, p *parser, lines []string) int {
	t.Helper()
	now := time.Unix(1795428000, 0)
	before := p.seen
	var got, want []string
	out := p.lines([]byte(strings.Join(lines, "\n")), now)
	got = append(readingsOf(out), fmt.Sprint(out.accepted, out.rejected, out.newest))
	for _, r := range out.reasons {
		got = append(got, r.Field+": "+r.Reason)
	}
	all := &parsed{}
	for _, line := range lines {
		twin := newParser(p.cfg, newShared(p.shared.partition, 1))
		twin.msg, twin.now = p.msg, p.now
		o := twin.lines([]byte(line), now)
		if twin.seen < o.accepted {
			t.Fatal("the twin predicted a reading")
		}
		want = append(want, readingsOf(o)...)
		all.accepted, all.rejected, all.newest = all.accepted+o.accepted, all.rejected+o.rejected, max(all.newest, o.newest)
		all.reasons = append(all.reasons, o.reasons...)
	}
	want = append(want, fmt.Sprint(all.accepted, all.rejected, all.newest))
	for _, r := range all.reasons[:min(len(all.reasons), maxRejections)] {
		want = append(want, r.Field+": "+r.Reason)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("lines\n%s\nas JSON (-) and predicted (+):\n%s", strings.Join(lines, "\n"), d)
	}
	return out.accepted - (p.seen - before)
}

// TestPredictedAgainstJSON: readings that are read by a shape are those that a parser of JSON
// finds, bit by bit, whatever the values look like.
func TestPredictedAgainstJSON(t *testing.T) {
	t.Parallel()
	pick := func(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }
	times := []string{`"2026-11-23T10:00:05.123Z"`, `"2026-11-23T10:00:05Z"`, `"2026-11-23T23:59:59.999999Z"`, `"2026-02-29T00:00:00Z"`, `"2024-02-29T00:00:00.5Z"`,
		`"2026-11-23T10:00:60Z"`, `"2026-11-23T24:00:00Z"`, `"2026-11-23T10:00:05.1234567Z"`, `"2026-11-23T10:00:05.Z"`, `"2026-11-23 10:00:05"`, `"2026-11-23T10:00:05+02:00"`,
		`"2026-11-23T10:0a:05Z"`, `"1969-11-23T10:00:05Z"`, `"1970-11-23T10:00:05Z"`, `1795428000123`, `"2996-11-23T10:00:05Z"`, `1795428000123.25`, `17954280`, `1795428000123000`, `01795428000123`, `null`, `"2026-11-23T10:00:05Z`}
	values := []string{`0`, `-0`, `1`, `12.5`, `-12.345`, `0.1`, `1e3`, `1E-7`, `00`, `01.5`, `1.`, `.5`, `-`, `9007199254740991`, `9007199254740993`, `123456789.123456789`, `0.000000000000001`,
		`179769313486231580793728971405303415079934132710037826936173778980444968292764750946649017977587207096330286416692887910946555547851940402630657488671505820681908902000708383676273854845817711531764475730270069855571366959622842914819860834936475292719074168444365510704342711559699508093042880`,
		`1e999`, `true`, `false`, `null`, `"x"`, `""`, `"a\"b"`, `"\u00e9"`, `"é"`, "\"\x01\"", `[1]`, `{}`, `nan`}
	keys := []string{`1`, `"1"`, `"pump 7"`, `17`, `0`, `007`, `-3`, `1.0`, `""`, `"é"`, `"a\tb"`, "\"a\x1fb\"", "\"a\x7fb\"", `"\u001f"`, `null`, `true`, `"` + strings.Repeat("k", 513) + `"`}
	predicted := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		cfg := Config{Hub: testHub}.Defaults()
		p := newParser(cfg, newShared(new([fleetscore.Shards]int), 1))
		if seed%3 == 1 {
			p.msg = Message{Keys: []string{pick(r, "", "1", "pump 7"), pick(r, "", "x")}, ArrivalTime: true}
			p.now = 1795428000e6
		}
		space := func() string { return pick(r, "", "", "", "", "", "", " ", "\t") }
		for range 3 { // a parser is used for several requests
			var lines []string
			names := []string{"TS", "Device", "Tag", "Value", "s", "_id"}[r.IntN(8)/7:][:3+r.IntN(3)]
			r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
			odd := r.IntN(6) + 1
			for range r.IntN(40) {
				var b strings.Builder
				for i, n := range names {
					v := map[string]string{"TS": pick(r, times[0], times[1], times[13]), "Device": fmt.Sprint(r.IntN(9)), "Tag": fmt.Sprintf("%q", fmt.Sprint("t", r.IntN(9))), "Value": fmt.Sprint(float64(r.IntN(1e6)) / 1000), "s": `"ok"`, "_id": fmt.Sprintf(`"%d"`, r.IntN(5))}[n]
					if r.IntN(10*odd) == 0 {
						v = map[string]string{"TS": pick(r, times...), "Device": pick(r, keys...), "Tag": pick(r, keys...), "Value": pick(r, values...), "s": pick(r, values...), "_id": pick(r, values...)}[n]
					}
					if r.IntN(200) == 0 {
						n = pick(r, names...)
					}
					fmt.Fprintf(&b, `%s%q:%s%s%s`, map[bool]string{true: "{", false: ","}[i == 0], n, map[bool]string{true: space(), false: ""}[odd == 1], v, map[bool]string{true: space(), false: ""}[odd == 2])
				}
				lines = append(lines, b.String()+pick(r, append(slices.Repeat([]string{"}"}, 20), "}\r", "} ", "", "}}", "},")...)+pick(r, "", "", "", "", "", " "))
			}
			predicted += agree(t, p, lines)
		}
	}
	if predicted < 2000 {
		t.Errorf("only %d readings were predicted", predicted)
	}
}

// FuzzPredicted: a line that is parsed after another one gives the same as on its own.
func FuzzPredicted(f *testing.F) {
	f.Add(`{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":1,"Value":1.5,"s":"x"}`, `{"TS":"2026-11-23T10:00:05.5Z","Device":"b","Tag":2,"Value":-2,"s":""}`)
	f.Add(`{"TS":1795428000123456789,"Device":"a","Tag":1}`, `{"TS":1795428000123456790,"Device":"a","Tag":12345678901234567890}`)
	f.Add(`{"TS":1795428000123,"Device":"a","Tag":1,"_id":7}`, `{"TS":1795428000124,"Device":"a","Tag":1e0,"_id":8}`)
	f.Fuzz(func(t *testing.T, first, second string) {
		if strings.Contains(first+second, "\n") {
			return
		}
		for _, unit := range []string{"s", "ms", "us", "ns"} {
			cfg := Config{Hub: testHub}.Defaults()
			cfg.Hub.TimeUnit = unit
			agree(t, newParser(cfg, newShared(new([fleetscore.Shards]int), 1)), []string{first, second, first, second})
		}
	})
}

// TestArrays: an array gives what its elements give, wherever its white space is.
func TestArrays(t *testing.T) {
	t.Parallel()
	one := `{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"x","Value":1}`
	for body, want := range map[string]string{
		"[]":                                   "0 0",
		" [ ] ":                                "0 0",
		one:                                    "1 0",
		" " + one + "\n":                       "1 0",
		"[" + one + "," + one + "]":            "2 0",
		" [\n" + one + " ,\r\n" + one + "\t] ": "2 0",
		"[" + one + "," + one + ",]":           "2 1 not a JSON object",
		"[" + one + " " + one + "]":            "1 1 invalid character '{' after an element",
		"[" + one + "," + one:                  "2 1 the text ends too early",
		"[" + one + "]]":                       "1 1 more follows",
		one + one:                              "1 1 more follows",
		"[" + one + ",3," + one + "]":          "2 1 not a JSON object",
		"[" + one + `,{"TS":1},` + one:         "2 2 as milliseconds",
		"":                                     "0 1 the text ends too early",
		"[":                                    "0 1 the text ends too early",
	} {
		p := newParser(Config{Hub: testHub}.Defaults(), newShared(new([fleetscore.Shards]int), 1))
		for range 2 { // the second time its readings are predicted
			out := p.value([]byte(body), time.Unix(1795428000, 0))
			got := fmt.Sprint(out.accepted, out.rejected)
			for _, r := range out.reasons {
				got += " " + r.Reason
			}
			if !strings.HasPrefix(got, want[:3]) || !strings.Contains(got, want[min(4, len(want)):]) {
				t.Errorf("%q gives %q, want %q", body, got, want)
			}
		}
	}
}

// TestFullDictionary: when the keys' memory is used up, a new dictionary begins in the middle of a
// request, and no reading changes its key.
func TestFullDictionary(t *testing.T) {
	t.Parallel()
	shared := newShared(new([fleetscore.Shards]int), 1)
	p := newParser(Config{Hub: testHub}.Defaults(), shared)
	shared.current.Load().bytes = maxDictionaryBytes - 50*(entryBytes+4)
	var lines []string
	for i := range 100 {
		lines = append(lines, fmt.Sprintf(`{"TS":"2026-11-23T10:00:05Z","Device":"%d","Tag":"x","Value":%d}`, i, i))
	}
	before := shared.current.Load()
	agree(t, p, append(lines, lines...))
	if shared.current.Load() == before {
		t.Error("the full dictionary is still in use")
	}
}
