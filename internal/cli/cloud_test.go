package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestCloudStore runs the whole path over a cloud's store: models and rows go in,
// readings are windowed, a job is scored by nodes that have no credentials, and
// its predictions are committed; a restart goes on with all of it.
func TestCloudStore(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB) *storetest.Server{"S3": storetest.S3, "Azure": storetest.Azure} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := strings.Replace(start(t).NewBucket(t), "?", "/fleet/one?", 1)
			cloudStore(t, address)
		})
	}
}

func cloudStore(t *testing.T, address string) {
	models := filepath.Join(testkit.Root(t), "examples", "fleet", "models")
	text := "store: " + address + "\n" + strings.TrimSpace(fmt.Sprintf(crashFleet, "models/sensors")) +
		"\n  history: {dataset: history, fleet: sensors, features: [Value], pool: cpu}\n"
	p := startServer(t, text)
	server := "--server=http://" + p.addr
	rows := p.fillStore(models)
	p.reading()
	if code, stdout, stderr := command(t, "job", "submit", "history", "--wait", server); code != 0 {
		t.Fatalf("job: exit %d\n%s%s\n%s", code, stdout, stderr, p.log)
	}
	checkCloudPredictions(t, address, models, rows)
	p.rows(1)

	code, stdout, stderr := command(t, "store", "ls", "predictions/history/_delta_log/", server)
	if code != 0 || !strings.Contains(stdout, "00000000000000000001.json") {
		t.Errorf("store ls: exit %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = command(t, "store", "cat", "predictions/history/_delta_log/00000000000000000001.json", server)
	if code != 0 || !strings.Contains(stdout, `"add"`) {
		t.Errorf("store cat: exit %d\n%s%s", code, stdout, stderr)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "data", "store")); !os.IsNotExist(err) {
		t.Errorf("a store lies in the server's folder too (%v)", err)
	}

	p.stop()
	p.start()
	p.rows(1)
	if code, stdout, _ := command(t, "job", "list", "-o", "json", server); code != 0 || !strings.Contains(stdout, `"succeeded"`) {
		t.Errorf("jobs after a restart: exit %d\n%s", code, stdout)
	}
	// Its hub and ledger belong to this store: it takes no other.
	other := strings.Replace(text, "/fleet/one?", "/fleet/two?", 1)
	if err := os.WriteFile(filepath.Join(p.dir, "other.yaml"), []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "apply", filepath.Join(p.dir, "other.yaml"), server); code != 13 || !strings.Contains(stderr, "store") {
		t.Errorf("another store: exit %d\n%s", code, stderr)
	}
}

// fillStore uploads models of the fleet sensors and rows of the dataset history, and
// returns the rows' file.
func (p *process) fillStore(models string) (rows string) {
	t, server := p.t, "--server=http://"+p.addr
	t.Helper()
	files, err := os.ReadDir(models)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(models, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Send(t.Context(), http.MethodPut, "/fleets/sensors/models/"+f.Name(), nil, "application/octet-stream", bytes.NewReader(data), nil); err != nil {
			t.Fatalf("upload %s: %v\n%s", f.Name(), err, p.log)
		}
	}
	if code, _, stderr := command(t, "fleet", "sync", "sensors", server); code != 0 {
		t.Fatalf("fleet sync: exit %d\n%s\n%s", code, stderr, p.log)
	}
	rows = filepath.Join(t.TempDir(), "rows.csv")
	if code, _, stderr := command(t, "simulate", "--from", "2026-11-23T00:00:00Z", "--to", "2026-11-23T00:20:00Z", "--out", rows); code != 0 {
		t.Fatal(stderr)
	}
	if code, stdout, stderr := command(t, "dataset", "upload", "history", rows, server); code != 0 {
		t.Fatalf("upload: exit %d\n%s%s\n%s", code, stdout, stderr, p.log)
	}
	return rows
}

// checkCloudPredictions compares what was committed to what the one-shot finds.
func checkCloudPredictions(t *testing.T, address, models, rows string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "scored")
	if code, stdout, stderr := command(t, "score", "--data", rows, "--models", models, "--model", "model_{Device}_{Tag}", "--key", "Device,Tag",
		"--time", "TS", "--feature", "Value", "--out", out); code != 0 && code != exitPartly {
		t.Fatalf("score: exit %d\n%s%s", code, stdout, stderr)
	}
	want := map[string]string{}
	for _, l := range readTable(t, filepath.Join(out, "predictions.csv")) {
		at, err := table.ParseTime(l["TS"])
		if err != nil {
			t.Fatal(err)
		}
		want[fmt.Sprint(at, " ", l["Device"], "/", l["Tag"])] = l["Prediction"]
	}
	b, err := store.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	d := catalog.New(b).Predictions("history")
	snap, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.ReadPredictions(t.Context(), snap.Files, table.ReadQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Len() != len(want) || got.Len() == 0 {
		t.Errorf("%d predictions in the store, the one-shot finds %d", got.Len(), len(want))
	}
	for i, at := range got.Times {
		id := fmt.Sprint(at, " ", got.Keys[got.KeyIndex[i]])
		if w := want[id]; w != fmt.Sprint(got.Prediction[i]) {
			t.Fatalf("%s: %v in the store, %q by the one-shot", id, got.Prediction[i], w)
		}
	}
	for i, err := range b.List(t.Context(), "logs/history/", store.ListOptions{}) {
		if err != nil || i.SizeBytes == 0 {
			t.Errorf("log %s: %d bytes, %v", i.Name, i.SizeBytes, err)
		}
		return
	}
	t.Error("the job left no log in the store")
}

// TestScoreOverURLs scores data and models that lie in a cloud, into it, as it
// does on disk.
func TestScoreOverURLs(t *testing.T) {
	t.Parallel()
	s := storetest.S3(t)
	address := s.NewBucket(t)
	at := func(path string) string { return strings.Replace(address, "?", "/"+path+"?", 1) }
	b, err := store.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rows, models := filepath.Join(dir, "rows.csv"), filepath.Join(testkit.Root(t), "examples", "fleet", "models")
	if code, _, stderr := command(t, "simulate", "--from", "2026-11-23T00:00:00Z", "--to", "2026-11-23T00:20:00Z", "--out", rows); code != 0 {
		t.Fatal(stderr)
	}
	files, err := filepath.Glob(filepath.Join(models, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range append(files, rows) {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name := "in/models/" + filepath.Base(f)
		if f == rows {
			name = "in/rows.csv"
		}
		if err := store.WriteAll(t.Context(), b, fleetscore.BlobName(name), data, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	score := func(data, models, out string) {
		t.Helper()
		if code, stdout, stderr := command(t, "score", "--data", data, "--models", models, "--model", "model_{Device}_{Tag}", "--key", "Device,Tag",
			"--time", "TS", "--feature", "Value", "--out", out); code != 0 {
			t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
		}
	}
	score(rows, models, filepath.Join(dir, "scored"))
	score(at("in/rows.csv"), at("in/models"), at("scored"))
	for _, name := range []string{"predictions.csv", "coverage.csv"} {
		want, err := os.ReadFile(filepath.Join(dir, "scored", name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := store.ReadAll(t.Context(), b, fleetscore.BlobName("scored/"+name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes in the cloud, %d on disk, %v", name, len(got), len(want), err)
		}
	}
	if _, err := b.Stat(t.Context(), "scored/manifest.json"); err != nil {
		t.Error(err)
	}
}
