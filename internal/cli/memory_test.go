package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// memory is the most memory that the server's process ever had, in bytes.
func (p *process) memory() int64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		testkit.Missing(p.t, "/proc", "run the test on Linux")
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return kb << 10
}

// repeat is a text again and again, without memory for it.
type repeat struct {
	text []byte
	at   int
	left int64
}

func (r *repeat) Read(b []byte) (n int, err error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	for n < len(b) && r.left > 0 {
		c := copy(b[n:min(len(b), n+int(min(r.left, 1<<30)))], r.text[r.at:])
		r.at = (r.at + c) % len(r.text)
		r.left -= int64(c)
		n += c
	}
	return n, nil
}

// TestUploadsTakeBoundedMemory: many uploads at once, of rows, of large models and of
// small ones that become large, and hostile configurations: the server's memory stays
// within what one upload of rows and the models' budget need.
func TestUploadsTakeBoundedMemory(t *testing.T) {
	const (
		uploads = 8
		rowsMB  = 24 // of text, which take six times as much in memory
		growing = 40 // models of 8 KB, which become 8 MB
	)
	bound := int64(400+50*runtime.GOMAXPROCS(0)) << 20
	p := startServer(t, `
hub: {key: [Device]}
fleets:
  uploaded: {path: models/uploaded, model: "model_{Device}", sync: 1h}
pools:
  cpu: {provider: local}
pipelines:
  anomalies: {dataset: rows, fleet: uploaded, features: [Value], pool: cpu}
`)
	idle := p.memory()
	send := func(method, path, contentType string, body io.Reader, status int) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.addr+"/api/v1"+path, body)
		if err != nil {
			t.Error(err)
			return
		}
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Authorization", "Bearer "+p.token())
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != status {
			t.Errorf("%s: %d %s, %v; want %d", path, resp.StatusCode, text, err, status)
		}
	}
	line := "2026-11-23T10:00:00Z,a,1\n"
	var all sync.WaitGroup
	for i := range uploads {
		all.Go(func() {
			rows := io.MultiReader(strings.NewReader("TS,Device,Value\n"), &repeat{text: []byte(line), left: int64(rowsMB<<20/len(line)) * int64(len(line))})
			send(http.MethodPost, fmt.Sprintf("/datasets/rows%d/rows", i), "text/csv", rows, 200)
		})
		all.Go(func() {
			send(http.MethodPut, fmt.Sprintf("/fleets/uploaded/models/model_large%d", i), "application/octet-stream", &repeat{text: []byte("\x80\x04N."), left: 32 << 20}, 200)
		})
		all.Go(func() {
			send(http.MethodPut, "/config", "application/yaml", strings.NewReader(strings.Repeat("a: [", 250<<10)), 400)
		})
		all.Go(func() {
			for n := i; n < growing; n += uploads {
				send(http.MethodPut, fmt.Sprintf("/fleets/uploaded/models/model_%d", n), "application/octet-stream", bytes.NewReader(testkit.GrowingModel(1_000_000, float64(n))), 200)
			}
			send(http.MethodPost, "/fleets/uploaded/sync", "application/json", nil, 200)
		})
	}
	all.Go(func() {
		send(http.MethodPut, "/fleets/uploaded/models/model_endless", "application/octet-stream", &repeat{text: []byte("\x80\x04N."), left: 300 << 20}, 413)
	})
	all.Wait()
	if most := p.memory(); most > bound {
		t.Errorf("the server took %d MB, %d MB before; the bound is %d MB", most>>20, idle>>20, bound>>20)
	} else {
		t.Logf("the server took %d MB, %d MB before", most>>20, idle>>20)
	}
}
