package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/hub/tail"
)

// TestTail: hub tail shows the last readings of a sensor, those from a time on, and what comes later.
func TestTail(t *testing.T) {
	t.Parallel()
	p := startServer(t, `
hub: {key: [Device, Tag], time: TS, retention: {age: 1d, size: 50MB}}
queries:
  readings: "SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, Tag, TumblingWindow(second, 5)"
`)
	at := time.Now().UTC()
	send := func(tag string, value int) {
		t.Helper()
		p.line(fmt.Sprintf(`{"TS":"%s","Device":"1","Tag":%q,"Value":%d}`+"\n", at.Format("2006-01-02T15:04:05.000000Z"), tag, value))
	}
	for i := range 3 {
		send("4", i)
		send("5", i)
	}
	server := "--server=http://" + p.addr
	values := func(args ...string) (out []any) {
		t.Helper()
		code, text, stderr := command(t, append([]string{"hub", "tail", "-o", "jsonl", server}, args...)...)
		if code != 0 {
			t.Fatalf("%q: exit %d\n%s", args, code, stderr)
		}
		for line := range strings.Lines(text) {
			var x tail.Reading
			if err := json.Unmarshal([]byte(line), &x); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			out = append(out, x.Values["Value"])
		}
		return out
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "[0 0 1 1 2 2]"}, {[]string{"--key", "1,4"}, "[0 1 2]"}, {[]string{"--key", "1,4", "--limit", "2"}, "[1 2]"}, {[]string{"--from", at.Add(-time.Minute).Format(time.RFC3339), "--limit", "1"}, "[0]"},
		{[]string{"--from", at.Add(time.Hour).Format(time.RFC3339)}, "[]"}, {[]string{"--offset", "1", "--key", "1,5"}, "[0 1 2]"},
	} {
		if got := fmt.Sprint(values(c.args...)); got != c.want {
			t.Errorf("%q: %s, want %s", c.args, got, c.want)
		}
	}
	for _, c := range []struct{ args, want []string }{
		{[]string{"show"}, []string{"all ", "http ", "log ", "6 messages, 0.0 MB of 50MB, kept for 24h0m0s", "log 0 ", "query readings"}},
		{[]string{"keys"}, []string{"1,4 ", "1,5 ", " 3 ", "http"}},
		{[]string{"keys", "--limit", "1"}, []string{"1,4 ", "there are more keys"}},
		{[]string{"keys", "--key", "1,4", "--from", at.Add(-time.Minute).Format(time.RFC3339), "-o", "json"}, []string{`"readings": 3`, `"last": "` + at.Truncate(time.Microsecond).Format(time.RFC3339Nano)}},
		{[]string{"keys", "--key", "1,6", "-o", "csv"}, []string{"key,readings,per_second,first,last,first_arrived,last_arrived,lag,sources"}},
	} {
		code, out, stderr := command(t, append(append([]string{"hub"}, c.args...), server)...)
		for _, w := range c.want {
			if code != 0 || !strings.Contains(out+stderr, w) {
				t.Errorf("%q: exit %d without %q\n%s%s", c.args, code, w, out, stderr)
			}
		}
	}
	if code, out, _ := command(t, "hub", "tail", "--key", "1,4", server); code != 0 || !strings.Contains(out, "1,4 ") || !strings.Contains(out, "Value=2") || strings.Contains(out, "1,5 ") {
		t.Errorf("as a table: exit %d\n%s", code, out)
	}
	for _, args := range [][]string{{"--from", "soon"}, {"--from", "2026-11-23T10:00:00Z", "--offset", "1"}, {"--partition", "7"}, {"--key", ",4"}, {"-o", "csv"}} {
		if code, out, stderr := command(t, append([]string{"hub", "tail", server}, args...)...); code == 0 || strings.Contains(stderr, "defect") {
			t.Errorf("%q: exit %d\n%s%s", args, code, out, stderr)
		}
	}
	in, err := p.Open(t.Context(), "/hub/readings", url.Values{"follow": {"true"}, "key": {"1", "4"}, "from": {at.Add(-time.Minute).Format(time.RFC3339)}})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	lines := bufio.NewScanner(in)
	for i := range 5 {
		if i >= 3 {
			send("5", i)
			send("4", i)
		}
		if !lines.Scan() || !strings.Contains(lines.Text(), `"key":["1","4"]`) || !strings.Contains(lines.Text(), fmt.Sprintf(`"Value":%d`, i)) {
			t.Fatalf("line %d that comes is %q, %v", i, lines.Text(), lines.Err())
		}
	}
}
