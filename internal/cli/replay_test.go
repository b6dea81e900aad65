package cli

import (
	"encoding/csv"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator/archive"
	"github.com/fleetscore/fleetscore/internal/catalog"
	hubs "github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// replayFleet runs the reference architecture's own query.
const replayFleet = `
hub: {key: [Device, Tag], time: TS, archive: {every: 10s}}
datasets:
  again: {files: "again/{date}/{Device}.csv"}
queries:
  readings: |
    SELECT [Device], [Tag], AVG([Value]) AS [Value], System.TimeStamp AS [TS]
    INTO [sensordata] FROM [hub] TIMESTAMP BY [TS] GROUP BY [Device], [Tag], TumblingWindow(second, 5)
`

// TestReplayReference: the reference architecture's data, sent to a server as readings in random
// order and replayed by its own query, gives exactly the rows of that data.
func TestReplayReference(t *testing.T) {
	t.Parallel()
	f, err := os.Open(filepath.Join(testkit.Reference(t), "sensor_data.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var readings, want []string
	for _, r := range lines[1:] {
		readings = append(readings, fmt.Sprintf(`{"TS":%q,"Device":%q,"Tag":%q,"Value":%s}`, strings.Replace(r[0], " ", "T", 1)+"Z", r[1], r[2], r[3]))
		want = append(want, row(t, r[0], r[1]+","+r[2], r[3]))
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(readings), func(i, j int) { readings[i], readings[j] = readings[j], readings[i] })
	p := startServer(t, replayFleet)
	for part := range slices.Chunk(readings, 1000) {
		p.line(strings.Join(part, "\n"))
	}
	server := "--server=http://" + p.addr
	replay := func(args ...string) (code int, stdout, stderr string) {
		return command(t, append([]string{"query", "replay", "readings", "--from", "2018-08-28T00:00:00Z", "--to", "2018-08-30T00:00:00Z", server}, args...)...)
	}
	slices.Sort(want)
	check := func(dataset, say string, args ...string) {
		t.Helper()
		code, stdout, stderr := replay(append(args, "--into", dataset)...)
		if code != 0 || !strings.Contains(strings.Join(strings.Fields(stdout), "  "), say) {
			t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
		}
		d := catalog.New(p.bucket()).Dataset(dataset)
		snap, err := d.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows, err := d.ReadRows(t.Context(), snap.Files, table.ReadQuery{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i, at := range rows.Times {
			got = append(got, row(t, at.Time().Format("2006-01-02 15:04:05.000"), strings.Join(rows.Keys[rows.KeyIndex[i]].Values(), ","), fmt.Sprint(rows.Values[0][i])))
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q into %s (-want +got):\n%.2000s", args, dataset, d)
		}
	}
	check("again", "17,768  0") // added, replaced, same
	check("again", "0  0  17,768")
	check("archived", "17,768  0", "--archive") // some of it isn't archived yet, perhaps
	if code, stdout, stderr := replay(); code != 0 || !strings.Contains(stdout, "sensordata_replay") {
		t.Errorf("into no dataset: exit %d\n%s%s", code, stdout, stderr)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--into", "sensordata"}, "query readings writes the dataset sensordata"}, {[]string{"--into", "Again/x"}, "Again/x"}, {[]string{"--of", "others"}, "it doesn't write the dataset others"},
		{[]string{"--from", "yesterday"}, "write a time such as"}, {[]string{"--from", "2018-09-01T00:00:00Z"}, "isn't after its beginning"},
	} {
		if code, stdout, stderr := replay(c.args...); code == 0 || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: exit %d\n%s%s", c.args, code, stdout, stderr)
		}
	}
	if code, _, stderr := command(t, "query", "replay", "reading", "--from", "2018-08-28T00:00:00Z", server); code != 12 || !strings.Contains(stderr, "is readings meant?") {
		t.Errorf("a query that isn't there: exit %d\n%s", code, stderr)
	}
	p.until("the archive to have all readings", func() bool { return p.archived() == len(readings) })
	p.until("the files to have all rows", func() bool { return p.exported() == len(readings) })
	p.stop()
	if err := os.RemoveAll(filepath.Join(p.dir, "data", "hub")); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.reading() // once the new hub is open
	if code, stdout, stderr := replay("--into", "nothing"); code != 0 || strings.Contains(stdout, "17,768") {
		t.Errorf("of a new hub: exit %d\n%s%s", code, stdout, stderr)
	}
	check("from_the_archive", "17,768  0", "--archive")
}

// until waits for something that becomes true by itself.
func (p *process) until(what string, ok func() bool) {
	p.t.Helper()
	for range 1200 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond) // files of a store, not an event
	}
	p.t.Fatalf("waiting for %s in vain:\n%s", what, p.log)
}

// archived is how many readings the archive has.
func (p *process) archived() (n int) {
	p.t.Helper()
	hub := fleetscore.HubConfig{Key: []string{"Device", "Tag"}, Time: "TS", Archive: &fleetscore.ArchiveConfig{Namespace: "fleetscore"}}
	err := archive.Read(p.t.Context(), p.bucket(), hub, math.MinInt64, func(m hubs.Message) error { n += m.Readings.Len(); return nil })
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// exported is how many rows the files of the dataset again have.
func (p *process) exported() (n int) {
	p.t.Helper()
	for info, err := range p.bucket().List(p.t.Context(), "exports/again/2018/08/", store.ListOptions{}) {
		if err != nil {
			p.t.Fatal(err)
		}
		data, err := store.ReadAll(p.t.Context(), p.bucket(), info.Name)
		if err != nil {
			p.t.Fatal(err)
		}
		n += strings.Count(string(data), "\n") - 1 // without the header
	}
	return n
}

// row is a row as a text; the file writes 84.5 as 84.50 in places.
func row(t *testing.T, at, key, value string) string {
	t.Helper()
	var x float64
	if _, err := fmt.Sscan(value, &x); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(at, " ", key, " ", x)
}
