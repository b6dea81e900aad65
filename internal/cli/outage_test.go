package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// historyPipeline scores rows that a test uploads.
const historyPipeline = "\n  history: {dataset: history, fleet: sensors, features: [Value], pool: cpu}\n"

// submit makes a job for five minutes of the rows that fillStore and uploadRows upload:
// the part of 0 to 3.
func (p *process) submit(part int) fleetscore.JobID {
	p.t.Helper()
	var j fleetscore.Job
	at := func(part int) string { return fmt.Sprintf("2026-11-23T00:%02d:00Z", 5*part) }
	if err := p.Post(p.t.Context(), "/jobs", map[string]string{"pipeline": "history", "from": at(part), "to": at(part + 1)}, &j); err != nil {
		p.t.Fatalf("submit: %v\n%s", err, p.log)
	}
	return j.ID
}

// uploadRows uploads the rows of the dataset history.
func (p *process) uploadRows() {
	t, rows := p.t, filepath.Join(p.t.TempDir(), "rows.csv")
	t.Helper()
	if code, _, stderr := command(t, "simulate", "--from", "2026-11-23T00:00:00Z", "--to", "2026-11-23T00:20:00Z", "--out", rows); code != 0 {
		t.Fatal(stderr)
	}
	if code, stdout, stderr := command(t, "dataset", "upload", "history", rows, "--server=http://"+p.addr); code != 0 {
		t.Fatalf("upload: exit %d\n%s%s\n%s", code, stdout, stderr, p.log)
	}
}

// job is a job as the server has it; its state is empty while the server can't say.
func (p *process) job(id fleetscore.JobID) fleetscore.Job {
	p.t.Helper()
	var j fleetscore.Job
	if err := p.Get(p.t.Context(), "/jobs/"+string(id), nil, &j); err != nil && !fleetscore.KindOf(err).Retryable() {
		p.t.Fatal(err)
	}
	return j
}

// ends waits until a job has succeeded.
func (p *process) ends(id fleetscore.JobID) {
	p.t.Helper()
	var j fleetscore.Job
	eventually(p.t, "the job "+string(id)+" ends", func() bool {
		j = p.job(id)
		return j.State.Ended()
	})
	if j.State != fleetscore.JobSucceeded {
		p.t.Errorf("job %s is %s: %s\n%s", id, j.State, j.Reason, p.log)
	}
}

// TestStoreAnswers500: while the store answers every request with an error of its own,
// readings are taken, health and commands say so, and a job waits; when the store is
// well again the job ends and each reading is counted once, without anybody's help.
func TestStoreAnswers500(t *testing.T) {
	t.Parallel()
	s3 := storetest.S3(t)
	behind, err := url.Parse(s3.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var due, ill atomic.Bool // it is to fall ill with the next write of results; it is ill
	var refused atomic.Int64
	well := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(behind)
		r.Out.Host = r.In.Host // it is a part of what clients sign
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/predictions/history/") && due.Load() {
			ill.Store(true)
		}
		if !ill.Load() {
			well.ServeHTTP(w, r)
			return
		}
		refused.Add(1)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>InternalError</Code><Message>We encountered an internal error. Please try again.</Message></Error>`)
	}))
	t.Cleanup(front.Close)
	bucket := strings.Replace(s3.NewBucket(t), "?", "/fleet/one?", 1)
	p := startServer(t, "store: "+s3.Through(bucket, front.URL)+"\n"+strings.TrimSpace(fmt.Sprintf(crashFleet, "models/sensors"))+historyPipeline)
	server := "--server=http://" + p.addr
	p.fillStore(filepath.Join(testkit.Root(t), "examples", "fleet", "models"))
	p.reading()
	p.rows(1)

	due.Store(true)
	id := p.submit(0)
	eventually(t, "the job writes", ill.Load)
	due.Store(false)
	for range 3 {
		p.reading()
	}
	eventually(t, "health tells of the store", func() bool {
		status, page := p.page(api.Prefix + "/health")
		return status == http.StatusServiceUnavailable && strings.Contains(page, "InternalError") && refused.Load() > 20
	})
	if code, _, stderr := command(t, "store", "ls", server); code != fleetscore.Unavailable.ExitCode() || !strings.Contains(stderr, "InternalError") {
		t.Errorf("store ls: exit %d\n%s", code, stderr)
	}
	if j := p.job(id); j.State.Ended() {
		t.Errorf("the job ended as %s: %s", j.State, j.Reason)
	}
	ill.Store(false)

	p.ends(id)
	eventually(t, "all readings are counted", func() bool { return p.countedIn(bucket) == 4 })
	eventually(t, "the server is well", func() bool { status, _ := p.page(api.Prefix + "/health"); return status == http.StatusOK })
}

// countedIn is how many readings the rows of the dataset readings hold.
func (p *process) countedIn(address string) (n int64) {
	p.t.Helper()
	b, err := store.Open(p.t.Context(), address)
	if err != nil {
		p.t.Fatal(err)
	}
	d := table.OpenDelta(store.Sub(b, "data/readings"))
	snap, err := d.Snapshot(p.t.Context())
	if err != nil || snap == nil {
		p.t.Fatal(snap, err)
	}
	rows, err := d.ReadRows(p.t.Context(), snap.Files, table.ReadQuery{})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, v := range rows.Column("N") {
		n += int64(v)
	}
	return n
}

// TestModelsFolderVanishes: a fleet's folder of models vanishes while a job waits for its
// nodes. The job, and another one after it, are scored by the generation that the job
// pinned; the fleet says what is wrong; when the folder is back, a new generation is made
// of it by itself.
func TestModelsFolderVanishes(t *testing.T) {
	t.Parallel()
	models := filepath.Join(t.TempDir(), "models")
	if err := os.CopyFS(models, os.DirFS(filepath.Join(testkit.Root(t), "examples", "fleet", "models"))); err != nil {
		t.Fatal(err)
	}
	yaml := strings.TrimSpace(fmt.Sprintf(crashFleet, models)) + historyPipeline
	for old, now := range map[string]string{`model: "model_{Device}_{Tag}"}`: `model: "model_{Device}_{Tag}", sync: 1s}`,
		"cpu: {provider: local, slots: 1, scale: {min: 1, max: 2, idle_after: 2s}}": "cpu: {provider: static, slots: 1}"} {
		if !strings.Contains(yaml, old) {
			t.Fatalf("%q isn't in the fleet", old)
		}
		yaml = strings.Replace(yaml, old, now, 1)
	}
	p := startServer(t, yaml)
	server := "--server=http://" + p.addr
	p.uploadRows()
	fleet := func() (f api.Fleet) {
		t.Helper()
		if err := p.Get(t.Context(), "/fleets/sensors", nil, &f); err != nil && !fleetscore.KindOf(err).Retryable() {
			t.Fatal(err)
		}
		return f
	}
	eventually(t, "there is a generation", func() bool { return fleet().Generation != "" })
	first := fleet().Generation
	id := p.submit(0)
	var j fleetscore.Job
	t.Cleanup(func() { t.Logf("the job was %s: %s", j.State, j.Reason) })
	eventually(t, "the job waits for nodes", func() bool { j = p.job(id); return j.State == fleetscore.JobQueued })

	away := models + "-away"
	if err := os.Rename(models, away); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the fleet says that its folder is gone", func() bool { return strings.Contains(fleet().Problem, models) })
	token := filepath.Join(t.TempDir(), "token")
	code, text, stderr := command(t, "token", "create", "node", "lab", server)
	if err := os.WriteFile(token, []byte(text), 0o600); code != 0 || err != nil {
		t.Fatal(code, stderr, err)
	}
	n := exec.Command(os.Args[0], "node", "--pool", "cpu", server)
	n.Env = append(os.Environ(), asCommand+"=1", "FLEETSCORE_NODE_TOKEN_FILE="+token)
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = n.Process.Signal(syscall.SIGTERM)
		_ = n.Wait() // its status is the signal's
	})
	p.ends(id)
	p.ends(p.submit(1))
	if got := fleet().Generation; got != first {
		t.Errorf("without its folder the fleet has another generation, %s", got)
	}

	one, err := os.ReadFile(filepath.Join(away, "model_1_pressure"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(away, "model_2_pressure"), one, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, models); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new generation is made", func() bool { f := fleet(); return f.Generation != first && f.Problem == "" })
	p.ends(p.submit(2))
}
