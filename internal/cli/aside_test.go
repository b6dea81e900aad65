package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestSetAsideIsSeen: readings that came late or several times are counted in
// the state of the query, named in the reason of a job over their interval, in the
// server's log and on the overview.
func TestSetAsideIsSeen(t *testing.T) {
	t.Parallel()
	p := startServer(t, fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models")))
	p.reading() // the gateway takes readings, and a first cut begins
	p.rows(1)
	send := func(at time.Time) {
		t.Helper()
		line := fmt.Sprintf(`{"TS":"%s","Device":"1","Tag":"pressure","Value":5}`+"\n", at.UTC().Format("2006-01-02T15:04:05.000000Z"))
		if err := p.Send(t.Context(), http.MethodPost, "/hubs/hub/messages", nil, "application/x-ndjson", strings.NewReader(line), nil); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	for range 3 {
		send(now) // one counts, two repeat it
	}
	send(now.Add(-time.Hour))
	var q aggregator.PartitionStatus
	for end := time.Now().Add(30 * time.Second); q.Late == 0 || q.Repeats < 2; time.Sleep(20 * time.Millisecond) { // a page of the API, not an event
		if time.Now().After(end) {
			t.Fatalf("the query says %+v", q)
		}
		var queries api.List[aggregator.Status]
		if err := p.Get(t.Context(), "/queries", nil, &queries); err != nil {
			t.Fatal(err)
		}
		q = aggregator.PartitionStatus{}
		for _, part := range queries.Items[0].Partitions {
			q.Late, q.Repeats = q.Late+part.Late, q.Repeats+part.Repeats
		}
	}
	if q.Late != 1 || q.Repeats != 2 {
		t.Errorf("the query says %+v, want 1 late and 2 repeats", q)
	}
	from, to := now.Add(-2*time.Hour).UTC().Format(time.RFC3339), now.Add(time.Second).UTC().Format(time.RFC3339)
	told := func(reason string) bool {
		return strings.HasPrefix(reason, "of the interval's readings") && strings.Contains(reason, "1 came too late for its window") && strings.Contains(reason, "2 were repeats")
	}
	var j fleetscore.Job
	for end := time.Now().Add(30 * time.Second); !told(j.Reason); { // until commits have the counts
		if time.Now().After(end) {
			t.Fatalf("the job is %s: %q", j.State, j.Reason)
		}
		p.reading()
		j = fleetscore.Job{}
		_, stdout, stderr := command(t, "job", "submit", "anomalies", "--from", from, "--to", to, "--wait", "-o", "json", "--server=http://"+p.addr)
		if err := json.Unmarshal([]byte(stdout), &j); err != nil {
			t.Fatalf("%v\n%s%s", err, stdout, stderr)
		}
	}
	_, page := p.page("/")
	if want := "1 late, 0 early and 2 repeated readings"; !strings.Contains(page, want) {
		t.Errorf("the overview lacks %q:\n%s", want, page)
	}
	p.stop()
	if !strings.Contains(p.log.String(), "readings are set aside or repeated") {
		t.Errorf("the log doesn't say it:\n%s", p.log)
	}
}
