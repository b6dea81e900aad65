package cli

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/table"
)

const sessionQuery = `
WITH busy AS (
  SELECT Device, SUM(Value) AS Sum, COUNT(*) AS N FROM hub TIMESTAMP BY TS
  GROUP BY Device, SessionWindow(second, 5, 60) OVER (PARTITION BY Device))
SELECT System.Timestamp() AS TS, Device, Sum, N, LAG(N) OVER (PARTITION BY Device LIMIT DURATION(hour, 1)) AS Before INTO sessions FROM busy
SELECT System.Timestamp() AS TS, Device, AVG(Value) AS Mean INTO slides FROM hub TIMESTAMP BY TS GROUP BY Device, SlidingWindow(second, 3) HAVING COUNT(*) > 1
`

// TestSessionsKilled: a server that is killed again and again, within sessions too, makes
// the same rows as the laboratory does of the readings.
func TestSessionsKilled(t *testing.T) {
	t.Parallel()
	yaml := "hub: {key: [Device], disorder: 10s, idle_after: 1h}\nqueries:\n  q:\n    cut: 10s\n    sql: |\n" + strings.ReplaceAll(sessionQuery, "\n", "\n      ") + "\n"
	p := startServer(t, yaml)
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	at := time.Now().Add(-2 * time.Hour).UTC().Truncate(time.Minute)
	from := at
	var all strings.Builder
	const rounds = 10
	for round := range rounds {
		for range 12 { // each request is some readings of about two seconds
			var body strings.Builder
			for range 1 + rnd.IntN(4) {
				at = at.Add(time.Duration(rnd.IntN(1500)) * time.Millisecond)
				fmt.Fprintf(&body, `{"TS":"%s","Device":"d%d","Value":%d.5}`+"\n", at.Add(-time.Duration(rnd.IntN(4000))*time.Millisecond).Format("2006-01-02T15:04:05.000000Z"), rnd.IntN(3), rnd.IntN(100))
			}
			all.WriteString(body.String())
			dead := make(chan struct{})
			if rnd.IntN(12) == 0 || round == rounds-1 {
				wait := time.Duration(rnd.IntN(4000)) * time.Microsecond
				go func() {
					defer close(dead)
					pause(t.Context(), wait)
					p.kill() // while the readings come, or a moment later
				}()
				sent := p.Send(t.Context(), http.MethodPost, "/hubs/hub/messages", nil, "application/x-ndjson", strings.NewReader(body.String()), nil) == nil
				<-dead
				p.start()
				if sent {
					continue
				}
			}
			p.deliver(body.String())
		}
	}
	// A reading much later ends all that is open; it is no part of what is compared.
	end := at.Add(time.Hour)
	last := fmt.Sprintf(`{"TS":"%s","Device":"end","Value":1}`+"\n", end.Format("2006-01-02T15:04:05.000000Z"))
	p.deliver(last)
	file, input := filepath.Join(p.dir, "q.sql"), filepath.Join(p.dir, "readings.ndjson")
	for name, text := range map[string]string{file: sessionQuery, input: all.String()} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr := command(t, "query", "test", file, "--input", "hub="+input, "-o", "ndjson")
	if code != 0 {
		t.Fatalf("query test: exit %d\n%s", code, stderr)
	}
	want := map[string][]string{}
	for line := range strings.Lines(stdout) {
		var r struct {
			Into           string `json:"_into"`
			TS, Device     string
			Sum, N, Before *float64
			Mean           *float64
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		stamp, err := time.Parse(time.RFC3339, r.TS)
		if err != nil {
			t.Fatal(err)
		}
		values := []*float64{r.Sum, r.N, r.Before}
		if r.Into == "slides" {
			values = []*float64{r.Mean}
		}
		want[r.Into] = append(want[r.Into], rowText(fleetscore.MicrosOf(stamp), r.Device, values))
	}
	for _, dataset := range []string{"sessions", "slides"} {
		got := p.datasetRows(dataset, fleetscore.MicrosOf(end)-15*60e6)
		slices.Sort(want[dataset])
		if d := cmp.Diff(want[dataset], got); d != "" || len(got) < 20 {
			t.Errorf("%s from %s on: %d rows; (-laboratory +server):\n%s", dataset, from, len(got), d)
		}
	}
}

// deliver sends readings until they are acknowledged, as a device does.
func (p *process) deliver(lines string) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; pause(p.t.Context(), 20*time.Millisecond) {
		err := p.Send(p.t.Context(), http.MethodPost, "/hubs/hub/messages", nil, "application/x-ndjson", strings.NewReader(lines), nil)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatal(err)
		}
	}
}

// TestDatasetWhy: what an incomplete interval waits for is said, and that there is no such
// dataset.
func TestDatasetWhy(t *testing.T) {
	t.Parallel()
	p := startServer(t, "hub: {key: [Device], disorder: 10s, idle_after: 1h}\nqueries:\n  q: {cut: 1m, sql: 'SELECT System.Timestamp() AS TS, Device, AVG(Value) AS Value INTO slides FROM hub TIMESTAMP BY TS GROUP BY Device, SlidingWindow(second, 3)'}\n")
	at := time.Now().Add(-time.Hour).UTC().Truncate(time.Minute)
	p.deliver(fmt.Sprintf(`{"TS":"%s","Device":"1","Value":1}`+"\n", at.Format(time.RFC3339)))
	p.deliver(fmt.Sprintf(`{"TS":"%s","Device":"1","Value":1}`+"\n", at.Add(90*time.Second).Format(time.RFC3339)))
	p.datasetRows("slides", fleetscore.MicrosOf(at.Add(time.Minute)))
	want := []string{at.Add(time.Minute).Format(time.RFC3339), "rows up to " + at.Add(2*time.Minute).Format("2006-01-02T15:04:05"), "wait for readings of source http: they have reached " + at.Add(90*time.Second).Format("2006-01-02T15:04:05")}
	code, stdout, stderr := command(t, "dataset", "why", "slides", "-o", "csv", "--server=http://"+p.addr)
	for _, w := range want {
		if code != 0 || !strings.Contains(stdout, w) {
			t.Errorf("exit %d: it lacks %q:\n%s%s", code, w, stdout, stderr)
		}
	}
	if code, _, stderr := command(t, "dataset", "why", "slide", "--server=http://"+p.addr); code != 12 {
		t.Errorf("no such dataset: exit %d\n%s", code, stderr)
	}
}

func rowText(stamp fleetscore.Micros, key string, values []*float64) string {
	line := fmt.Sprint(stamp, " ", key)
	for _, v := range values {
		if v == nil {
			line += " -"
			continue
		}
		line += fmt.Sprintf(" %.6f", *v)
	}
	return line
}

// datasetRows waits until a dataset is complete until a time, and returns its rows up to
// then.
func (p *process) datasetRows(dataset string, until fleetscore.Micros) (out []string) {
	p.t.Helper()
	d := catalog.New(p.bucket()).Dataset(dataset)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // the table's log is in another process
		snap, err := d.Snapshot(p.t.Context())
		if err == nil {
			if done, ok := catalog.CompleteUntil(snap, time.Now()); ok && done >= until {
				rows, err := d.ReadRows(p.t.Context(), snap.Files, table.ReadQuery{})
				if err != nil {
					p.t.Fatal(err)
				}
				for i := range rows.Times {
					if rows.Times[i] > until {
						continue
					}
					values := make([]*float64, len(rows.Values))
					for c := range values {
						if x := rows.Values[c][i]; x == x {
							values[c] = &x
						}
					}
					out = append(out, rowText(rows.Times[i], rows.Keys[rows.KeyIndex[i]].String(), values))
				}
				slices.Sort(out)
				return out
			}
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s isn't complete until %s: %v\n%s", dataset, until, err, p.log)
		}
	}
}
