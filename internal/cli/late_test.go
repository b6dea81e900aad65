package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/api"
)

// TestLateIsRedriven: readings that came too late are kept; when the query takes late readings, and they are handed over again, each is
// in one row, once, and isn't kept any more.
func TestLateIsRedriven(t *testing.T) {
	t.Parallel()
	const yaml = `
hub: {key: [Device, Tag], time: TS, disorder: 1s, idle_after: 2s}
queries:
  readings: {%scut: 1s, sql: "SELECT System.Timestamp() AS TS, Device, Tag, COUNT(*) AS N, AVG(Value) AS Value INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, Tag, TumblingWindow(second, 1)"}
`
	p := startServer(t, fmt.Sprintf(yaml, ""))
	server := "--server=http://" + p.addr
	sent := map[string]int64{}
	send := func(tag string, at time.Time) {
		t.Helper()
		p.line(fmt.Sprintf(`{"TS":"%s","Device":"1","Tag":%q,"Value":5}`+"\n", at.UTC().Format("2006-01-02T15:04:05.000000Z"), tag))
		sent[fmt.Sprint(fleetscore.MicrosOf(at.Add(time.Second-1).Truncate(time.Second)), " 1/", tag)]++
	}
	files := func() (list []api.LateFile) {
		t.Helper()
		code, out, stderr := command(t, "late", "ls", "readings", "-o", "json", server)
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
			t.Fatalf("exit %d, %v\n%s%s", code, err, out, stderr)
		}
		return list
	}
	until := func(what string, ok func(aggregator.PartitionStatus) bool) {
		t.Helper()
		var queries api.List[aggregator.Status]
		for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) { // a page of the API, not an event
			if err := p.Get(t.Context(), "/queries", nil, &queries); err == nil && len(queries.Items) == 1 && ok(queries.Items[0].Partitions[0]) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %+v\n%s", what, queries.Items, p.log)
			}
		}
	}
	now := time.Now()
	send("now", now)
	until("rows are committed", func(s aggregator.PartitionStatus) bool { return s.Rows > 0 })
	send("late", now.Add(-30*time.Minute))
	send("late", now.Add(-30*time.Minute+time.Microsecond))
	send("later", now.Add(-40*time.Minute))
	until("late readings are set aside", func(s aggregator.PartitionStatus) bool { return s.Late == 3 })
	for end := time.Now().Add(60 * time.Second); len(files()) == 0; time.Sleep(50 * time.Millisecond) { // they are written with the next commit
		if time.Now().After(end) {
			t.Fatalf("no late readings are kept\n%s", p.log)
		}
		p.reading()
	}
	if code, out, stderr := command(t, "late", "redrive", "readings", "--all", server); code != 0 || !strings.Contains(stderr, "3 readings of") {
		t.Fatalf("redrive before the change: exit %d\n%s%s", code, out, stderr)
	}
	until("they are late again", func(s aggregator.PartitionStatus) bool { return s.Late == 6 })
	for end := time.Now().Add(60 * time.Second); len(files()) == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no late readings are kept\n%s", p.log)
		}
		p.reading()
	}
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, yaml, "late: revise, late_within: 1h, "), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, stderr := command(t, "apply", file, server); code != 0 {
		t.Fatalf("apply: exit %d\n%s%s", code, out, stderr)
	}
	until("the query runs anew", func(s aggregator.PartitionStatus) bool { return s.Late == 0 && s.Position > 0 })
	code, out, stderr := command(t, "late", "redrive", "readings", "--all", server)
	for range 100 { // until the gateway goes by the new configuration
		if code == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
		code, out, stderr = command(t, "late", "redrive", "readings", "--all", server)
	}
	if code != 0 || len(files()) != 0 {
		t.Fatalf("redrive: exit %d, files stay: %+v\n%s%s", code, files(), out, stderr)
	}
	until("they count", func(s aggregator.PartitionStatus) bool { return s.Revised >= 3 })
	var got map[string]int64
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		p.reading() // whose commit holds the revised rows
		got = p.readings()
		for id := range got {
			if _, ok := sent[id]; !ok {
				delete(got, id)
			}
		}
		if len(got) == len(sent) || time.Now().After(end) {
			break
		}
	}
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Errorf("readings per window and sensor (-sent +in rows):\n%s", diff)
	}
	for args, want := range map[string]int{"redrive readings": exitUsage, "redrive readings --all x": exitUsage, "drop readings --all": exitUsage, "redrive readings none.ndjson": 12, "ls none": 12, "ls ../x": exitUsage, "drop readings --all --yes": 0} {
		if code, out, stderr := command(t, append(append([]string{"late"}, strings.Fields(args)...), server)...); code != want || strings.Contains(stderr, "defect") {
			t.Errorf("%s: exit %d, want %d\n%s%s", args, code, want, out, stderr)
		}
	}
}
