package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// eKuiper is given this many readings, because it takes about twenty seconds for a million.
const ekuiperReadings = 500_000

// ekuiperRun is what eKuiper took.
type ekuiperRun struct{ CPU, Wall float64 }

const ekuiperConfig = `
basic:
  logLevel: error
  consoleLog: true
  fileLog: false
  ip: 127.0.0.1
  port: %d
  restIp: 127.0.0.1
  restPort: %d
  pprof: false
  gracefulShutdownTimeout: 1s
store: {type: sqlite, extStateType: sqlite}
`

const ekuiperSource = `
default: {fileType: lines, path: %q, interval: 0, sendInterval: 0}
`

// ekuiper lets LF Edge eKuiper average the readings of a file in the windows of the stream
// path. It throws the rows away, and keeps its windows in memory.
func (b *bench) ekuiper(ctx context.Context, file string) (r ekuiperRun, err error) {
	dir := filepath.Join(b.scratch, "ekuiper")
	program := filepath.Join(dir, "kuiperd")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "core", "-o", program, "github.com/lf-edge/ekuiper/v2/cmd/kuiperd")
	build.Dir, build.Stderr = filepath.Join(b.root, "bench", "ekuiper"), os.Stderr
	build.Env = append(os.Environ(), "GOWORK=off")
	if err := build.Run(); err != nil {
		return r, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return r, err
	}
	if err := b.ekuiperFolder(ctx, dir, file, ports); err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, program, "-etc", filepath.Join(dir, "etc"), "-data", filepath.Join(dir, "data"), "-log", filepath.Join(dir, "log"))
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), "KuiperBaseKey="+dir), &out, &out
	if err := cmd.Start(); err != nil {
		return r, err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err != nil {
			err = fmt.Errorf("eKuiper: %w\n%s", err, out.Bytes())
		}
	}()
	url := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	if err := ekuiperUp(ctx, url); err != nil {
		return r, err
	}
	stream := fmt.Sprintf(`CREATE STREAM readings (TS datetime, Device bigint, Tag bigint, Value float) WITH (TYPE="file", FORMAT="json", DATASOURCE=%q, TIMESTAMP="TS")`, filepath.Base(file))
	if _, err := ekuiperAsk(ctx, url+"/streams", map[string]any{"sql": stream}); err != nil {
		return r, err
	}
	stat := fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid)
	_, before, _ := processCPU(stat)
	began := time.Now()
	if _, err := ekuiperAsk(ctx, url+"/rules", map[string]any{"id": "windows",
		"sql":     "SELECT Device, Tag, avg(Value) AS Value, count(*) AS N, window_end() AS TS FROM readings GROUP BY Device, Tag, TUMBLINGWINDOW(ss, 5)",
		"actions": []any{map[string]any{"nop": map[string]any{}}},
		"options": map[string]any{"isEventTime": true, "lateTolerance": "1s", "disableBufferFullDiscard": true}}); err != nil {
		return r, err
	}
	for {
		text, err := ekuiperAsk(ctx, url+"/rules/windows/status", nil)
		if err != nil {
			return r, err
		}
		var status struct {
			Status string `json:"status"`
			Read   int    `json:"source_readings_0_records_in_total"`
			Marked int    `json:"op_4_watermark_0_records_in_total"`
		}
		if err := json.Unmarshal(text, &status); err != nil {
			return r, err
		}
		if status.Status == "stopped" {
			if status.Read != ekuiperReadings || status.Marked != ekuiperReadings {
				return r, fmt.Errorf("%d readings were read and %d got to the windows, of %d", status.Read, status.Marked, ekuiperReadings)
			}
			wall := time.Since(began).Seconds()
			_, after, ok := processCPU(stat)
			if !ok {
				return r, errors.New("its processor time can't be read")
			}
			return ekuiperRun{CPU: after - before, Wall: wall}, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// ekuiperFolder fills the folder that eKuiper is started in.
func (b *bench) ekuiperFolder(ctx context.Context, dir, file string, ports []int) error {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/lf-edge/ekuiper/v2")
	list.Dir, list.Env = filepath.Join(b.root, "bench", "ekuiper"), append(os.Environ(), "GOWORK=off")
	module, err := list.Output()
	if err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(dir, "etc"), os.DirFS(filepath.Join(strings.TrimSpace(string(module)), "etc"))); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"etc/kuiper.yaml":       fmt.Sprintf(ekuiperConfig, ports[0], ports[1]),
		"etc/sources/file.yaml": fmt.Sprintf(ekuiperSource, filepath.Dir(file)),
		"data/none":             "", "log/none": "", "plugins/none": "",
	} {
		name = filepath.Join(dir, name)
		_ = os.Remove(name) // what was copied can't be written
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// ekuiperUp waits until its API answers.
func ekuiperUp(ctx context.Context, url string) (err error) {
	for range 300 {
		if _, err = ekuiperAsk(ctx, url+"/streams", nil); err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// ekuiperAsk sends a request: with a body a POST, else a GET.
func ekuiperAsk(ctx context.Context, url string, body any) ([]byte, error) {
	method, data := http.MethodGet, []byte(nil)
	if body != nil {
		method = http.MethodPost
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s: %s", url, answer.Status, text)
	}
	return text, err
}

// freePorts finds ports of this machine that nothing listens on.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
