package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/simulator"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestUploadForms uploads the same rows in the forms that people have, into datasets
// with the hub's columns and with others.
func TestUploadForms(t *testing.T) {
	t.Parallel()
	models := filepath.Join(testkit.Root(t), "examples", "fleet", "models")
	p := startServer(t, fmt.Sprintf(crashFleet, models))
	server := "--server=http://" + p.addr
	dir := t.TempDir()
	const text = "TS,Device,Tag,Value\n2026-11-25 10:00:00,1,x,5\n2026-11-25 11:00:00,2,x,6\n"
	file := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var packed, columns bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device", "Tag"}, ValueNames: []string{"Value"}, Keys: []fleetscore.Key{"1\x1fx", "2\x1fx"},
		KeyIndex: []uint32{0, 1}, Times: []fleetscore.Micros{1795600800e6, 1795604400e6}, Values: [][]float64{{5, 6}}}
	if err := table.WriteRowsParquet(&columns, rows); err != nil {
		t.Fatal(err)
	}
	plain := file("plain.csv", []byte(text))
	upload := func(wantCode int, want string, args ...string) {
		t.Helper()
		if code, stdout, stderr := command(t, append([]string{"dataset", "upload", server}, args...)...); code != wantCode || !strings.Contains(stdout+stderr, want) {
			t.Errorf("%v: exit %d, want %d with %q\n%s%s", args, code, wantCode, want, stdout, stderr)
		}
	}
	done := func(added, same int) string { return fmt.Sprintf("mine     2     %d      0         %d ", added, same) }
	upload(0, done(2, 0), "mine", plain)
	upload(0, done(0, 2), "mine", file("rows.csv.gz", packed.Bytes()))
	upload(0, done(0, 2), "mine", file("rows.parquet", columns.Bytes()))
	upload(0, done(0, 2), "mine", file("rows.tsv", []byte(strings.ReplaceAll(text, ",", "\t"))))
	upload(0, done(0, 2), "mine", "--time-unit", "s", file("epoch.csv", []byte("TS,Device,Tag,Value\n1795600800,1,x,5\n1795604400,2,x,6\n")))
	upload(0, done(0, 2), "mine", file("a/Device=1/x.csv", []byte("TS,Tag,Value\n2026-11-25 10:00,x,5\n")), file("a/Device=2/x.csv", []byte("TS,Tag,Value\n2026-11-25 11:00,x,6\n")))
	upload(0, "other    1 ", "other", "--time", "at", "--key", "machine", "--value", "bar", file("other.csv", []byte("at;machine;bar;text\n2026-11-25;a;1;x\n")))
	upload(0, "other    1 ", "other", file("again.csv", []byte("at,machine,bar,more\n2026-11-26,a,1,2\n"))) // the dataset knows its columns

	upload(10, `has "ts": upper and lower case count`, "mine", file("case.csv", []byte(strings.ToLower(text))))
	upload(10, "--time-unit", "mine", file("number.csv", []byte("TS,Device,Tag,Value\n1795600800,1,x,5\n")))
	upload(10, "with --value", "fresh", file("words.csv", []byte("TS,Device,Tag,Value\n2026-11-25,1,x,high\n")))
	upload(10, "--bad-rows skip:1%", "mine", file("bad.csv", []byte(text+"never,1,x,5\nnever,2,x,5\n")))
	upload(0, "2 rows: column TS: not a time", "mine", "--bad-rows", "skip:50%", filepath.Join(dir, "bad.csv"))
	upload(12, "no such file", "mine", filepath.Join(dir, "none.csv"))
	upload(13, "query readings writes it", "readings", plain)

	if code, stdout, stderr := command(t, "dataset", "show", "nobody", server); code != 12 || !strings.Contains(stderr, "fleetscore dataset list") || strings.Contains(stderr, "GET ") {
		t.Errorf("a dataset that isn't there: exit %d\n%s%s", code, stdout, stderr)
	}

	// The API takes compressed bodies and Parquet, too.
	for media, body := range map[string][]byte{"text/csv": packed.Bytes(), "application/vnd.apache.parquet": columns.Bytes()} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.addr+"/api/v1/datasets/mine/rows", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", media)
		r.Header.Set("Authorization", "Bearer "+p.token())
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || !strings.Contains(string(answer), `"same":2`) {
			t.Errorf("%s: %d %s, %v", media, resp.StatusCode, answer, err)
		}
	}
}

// TestUploadInParts: many rows are sent in parts by time, and counted together.
func TestUploadInParts(t *testing.T) {
	t.Parallel()
	models := filepath.Join(testkit.Root(t), "examples", "fleet", "models")
	p := startServer(t, fmt.Sprintf(crashFleet, models))
	c, err := client.New(client.Config{Server: "http://" + p.addr, TokenFile: filepath.Join(p.dir, "data", "secrets", "admin-token")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Keys: []fleetscore.Key{"1", "2"}, Values: make([][]float64, 1)}
	for i := range 50 {
		rows.KeyIndex, rows.Times, rows.Values[0] = append(rows.KeyIndex, uint32(i%2)), append(rows.Times, fleetscore.Micros(1795600800e6-1e6*(i/2))), append(rows.Values[0], float64(i))
	}
	u := upload{partRows: 7}
	until := fleetscore.Micros(1795600800e6 - 5e6)
	done, err := u.send(t.Context(), c, "parts", rows, &until)
	if err != nil || done.Rows != 50 || done.Added != 50 || done.Version < 5 || done.CompleteUntil.Unix() != 1795600800-5 {
		t.Errorf("got %+v, %v", done, err)
	}
}

// TestSimulateKeepsToTheBodyLimit: however many sensors there are and however long
// ago the readings begin, no body is larger than a server takes.
func TestSimulateKeepsToTheBodyLimit(t *testing.T) {
	t.Parallel()
	var largest, lines int
	enough := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		largest = max(largest, len(body))
		if lines += bytes.Count(body, []byte{'\n'}); lines >= 50_000*2 {
			select {
			case <-enough:
			default:
				close(enough)
			}
		}
		fmt.Fprintln(w, "{}")
	}))
	defer srv.Close()
	c, err := client.New(client.Config{Server: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cfg := simulator.Config{Devices: 12_500, Tags: 4, Interval: 30 * time.Second}.Defaults()
	s := &simulation{cfg: cfg}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { <-enough; cancel() }()
	if _, err := s.send(ctx, overHTTP(c, "hub"), io.Discard, time.Now().Add(-2*time.Minute)); err == nil {
		t.Error("it ended without an error")
	}
	const most = 2 << 20
	if largest > most || lines < 100_000 {
		t.Errorf("a body has %d bytes, more than %d, or only %d readings came", largest, most, lines)
	}
}
