package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestEdges: what people and programs meet at the server's edges: pages, errors
// with what to do, and requests that are refused.
func TestEdges(t *testing.T) {
	t.Parallel()
	models := filepath.Join(testkit.Root(t), "examples", "fleet", "models")
	p := startServer(t, fmt.Sprintf(crashFleet, models))
	base := "http://" + p.addr
	p.reading() // the gateway opens after the API
	ask := func(method, path, body string, header ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+p.token())
		for i := 0; i+1 < len(header); i += 2 {
			if header[i] == "Host" {
				r.Host = header[i+1]
			}
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	const ndjson = "application/x-ndjson"
	for _, c := range []struct {
		method, path, body string
		header             []string
		status             int
		want               string
	}{
		{"GET", "/", "", nil, 200, "Pool cpu"},
		{"GET", "/style.css", "", nil, 200, "--ink"},
		{"GET", "/nowhere", "", nil, 404, "there is no such page"},
		{"GET", "/jobs/none", "", nil, 404, "none"},
		{"GET", "/sensors/anomalies", "", nil, 400, "the address has no key"},
		{"GET", "/metrics", "", nil, 200, "fleetscore_gateway_readings_total"},
		{"GET", "/api/v1/health", "", nil, 200, `"status":"ok"`},
		{"GET", "/api/v1/openapi.json", "", nil, 200, "/hubs/{hub}/messages"},
		{"GET", "/api/v1/config", "", nil, 200, "TumblingWindow"},
		{"GET", "/api/v1/jobs/none", "", nil, 404, `"kind":"not_found"`},
		{"GET", "/api/v1/jobs?state=odd", "", nil, 400, `"kind":"invalid"`},
		{"GET", "/api/v1/store/..%2f..%2fsecrets%2fnode-token", "", nil, 400, "invalid"},
		{"POST", "/api/v1/jobs", `{"pipeline":"none"}`, []string{"Content-Type", "application/json"}, 404, "there is no such pipeline"},
		{"POST", "/api/v1/jobs", `{"pipeline":"anomalies"}`, []string{"Content-Type", "application/json", "Sec-Fetch-Site", "cross-site"}, 403, "another site"},
		{"GET", "/", "", []string{"Host", "evil.example"}, 421, "doesn't answer under another name"},
		{"POST", "/api/v1/nodes", `{"node":"x","pool":"cpu","slots":1}`, []string{"Content-Type", "application/json"}, 403, "only nodes may do this"},
		{"POST", "/api/v1/leases/x/complete", `{}`, []string{"Content-Type", "application/json", "Authorization", "Bearer guess"}, 401, "the token is wrong"},
		{"POST", "/api/v1/hubs/hub/messages", `{"TS":"2026-11-23T10:00:00Z","Device":"1","Tag":"x"}` + "\nnonsense\n", []string{"Content-Type", ndjson}, 400, `"line":2`},
		{"POST", "/api/v1/hubs/other/messages", "{}", []string{"Content-Type", ndjson}, 404, "no hub"},
		{"PUT", "/api/v1/config", "hub: {partitons: 2}\n", []string{"Content-Type", "application/yaml"}, 400, "fleet.yaml:1: hub.partitons: unknown key"},
		{"POST", "/api/v1/datasets/readings/rows", "TS,Device,Tag,Value\n", []string{"Content-Type", "text/csv"}, 409, "query readings writes this dataset"},
		{"POST", "/api/v1/datasets/mine/rows", "TS,Device,Tag,Value\n2026-11-23T10:00:00Z,1,x,five\n", []string{"Content-Type", "text/csv"}, 400, "has a number in the first row"},
		{"POST", "/api/v1/datasets/mine/rows", "TS,Device,Tag,Value\n2026-11-23T10:00:00Z,1,x,5\n", []string{"Content-Type", "text/csv"}, 200, `"rows":1`},
		{"POST", "/api/v1/datasets/mine/rows", "TS,Device,Tag,Value\n2026-11-23T10:00:00Z,1,x,five\n", []string{"Content-Type", "text/csv"}, 400, "line 2"},
	} {
		status, text := ask(c.method, c.path, c.body, c.header...)
		if status != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s %s: %d, want %d with %q\n%.600s", c.method, c.path, status, c.status, c.want, text)
		}
	}
	st, err := os.Stat(filepath.Join(p.dir, "data", "secrets", "node-token"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the nodes' token: %v, %v", st.Mode(), err)
	}
	token, err := os.ReadFile(filepath.Join(p.dir, "data", "secrets", "node-token"))
	if err != nil || strings.Contains(p.log.String(), string(token)) {
		t.Errorf("the nodes' token stands in the log, or %v", err)
	}
	server := "--server=" + base
	for _, args := range [][]string{{"job", "list"}, {"schedule", "list"}, {"pool", "list"}, {"node", "list"}, {"dataset", "list"}, {"dataset", "show", "readings"}, {"store", "ls"}, {"apply", p.file}} {
		for _, how := range []string{"table", "json", "jsonl", "csv"} {
			if code, stdout, stderr := command(t, append(args, server, "-o", how)...); code != 0 || how == "json" && !strings.ContainsAny(stdout, "[{") {
				t.Errorf("%v -o %s: exit %d\n%s%s", args, how, code, stdout, stderr)
			}
		}
	}
	if code, stdout, _ := command(t, "store", "cat", "data/readings/_delta_log/00000000000000000000.json", server); code != 0 || !strings.Contains(stdout, "metaData") {
		t.Errorf("store cat: exit %d\n%s", code, stdout)
	}
	if code, _, stderr := command(t, "serve", "--listen", p.addr, "--dir", t.TempDir()); code != fleetscore.Conflict.ExitCode() || !strings.Contains(stderr, "is in use") {
		t.Errorf("a port in use: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := command(t, "serve", "--listen", "127.0.0.1:0", "--dir", filepath.Join(p.dir, "data")); code != fleetscore.Conflict.ExitCode() || !strings.Contains(stderr, "has it open") {
		t.Errorf("a folder in use: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := command(t, "serve", "--listen", "0.0.0.0:0", "--dir", t.TempDir()); code != 10 || !strings.Contains(stderr, "--tls-cert") {
		t.Errorf("plain HTTP beyond this machine: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := command(t, "job", "list", "--server", "http://127.0.0.1:1"); code != 11 || !strings.Contains(stderr, "check that the server is running") {
		t.Errorf("no server: exit %d\n%s", code, stderr)
	}
}
