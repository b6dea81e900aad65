package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const fleetYAML = `
hub: {key: [Device, Tag], time: TS, disorder: %s, mqtt: {listen: "%s", topic: readings/+}}
queries:
  readings: |
    SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value
    INTO readings FROM hub TIMESTAMP BY TS
    GROUP BY Device, Tag, TumblingWindow(second, 5)
`

// server is the running program that is measured.
type server struct {
	cmd     *exec.Cmd
	dir     string
	stays   bool // the folder
	address string
	mqtt    string // its address for MQTT
	flight  int    // messages of a connection by MQTT
	token   string
}

func startServer(ctx context.Context, s setting) (*server, error) {
	dir, err := s.Folder, error(nil)
	if dir == "" {
		dir, err = os.MkdirTemp("", "fleetscore-stream-")
	} else {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "fleet.yaml")
	mqtt, err := freeAddress()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, fleetYAML, s.Disorder, mqtt), 0o644); err != nil {
		return nil, err
	}
	srv := &server{dir: dir, stays: s.Folder != "", mqtt: mqtt, flight: s.InFlight}
	srv.cmd = exec.CommandContext(ctx, s.Binary, "up", file, "--dir", filepath.Join(dir, "server"), "--listen", "127.0.0.1:0")
	srv.cmd.Cancel = func() error { return srv.cmd.Process.Signal(syscall.SIGINT) }
	srv.cmd.WaitDelay = 10 * time.Second
	srv.cmd.Env = append(os.Environ(), "FLEETSCORE_LOG_LEVEL=warn")
	out, err := srv.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := srv.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := regexp.MustCompile(`portal at http://([^/, ]+)`).FindStringSubmatch(lines.Text()); m != nil {
			srv.address = m[1]
			token, err := os.ReadFile(filepath.Join(dir, "server", "secrets", "admin-token"))
			if err != nil {
				return nil, err
			}
			srv.token = strings.TrimSpace(string(token))
			go func() { // the server must not wait for a reader of its output
				for lines.Scan() {
					fmt.Fprintln(os.Stderr, lines.Text())
				}
			}()
			if _, err := srv.taken(ctx, 0); err != nil {
				srv.stop()
				return nil, err
			}
			return srv, nil
		}
	}
	srv.stop()
	return nil, errors.New("the server did not start")
}

// freeAddress is an address that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGINT) // it ended already
	_ = s.cmd.Wait()                         // its status is the signal's
	if !s.stays {
		_ = os.RemoveAll(s.dir)
	}
}

// state is how far the query is.
type state struct {
	rows, other int64
	windows     int
	held        int64
}

// query has the fields of a query's status that are used here.
type query struct {
	Problem    string `json:"problem"`
	Partitions []struct {
		Counted  int64 `json:"counted"`
		Repeats  int64 `json:"repeats"`
		Late     int64 `json:"late"`
		Early    int64 `json:"early"`
		Filtered int64 `json:"filtered"`
		Rows     int64 `json:"rows"`
		Windows  int   `json:"open_windows"`
		Held     int64 `json:"held_bytes"`
	} `json:"partitions"`
}

// taken waits until the query has taken this many readings.
func (s *server) taken(ctx context.Context, readings int64) (state, error) {
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/api/v1/queries", nil)
		if err != nil {
			return state{}, err
		}
		req.Header.Set("Authorization", "Bearer "+s.token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return state{}, err
		}
		var list struct {
			Items []query `json:"items"`
		}
		err = json.NewDecoder(resp.Body).Decode(&list)
		_ = resp.Body.Close()
		if err != nil {
			return state{}, err
		}
		if len(list.Items) == 0 { // the server begins to answer before its configuration is in force
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if len(list.Items) != 1 || list.Items[0].Problem != "" {
			return state{}, fmt.Errorf("queries: %+v", list.Items)
		}
		var st state
		var counted int64
		for _, p := range list.Items[0].Partitions {
			counted += p.Counted
			st.rows, st.windows, st.held = st.rows+p.Rows, st.windows+p.Windows, st.held+p.Held
			st.other += p.Repeats + p.Late + p.Early + p.Filtered
		}
		if counted+st.other >= readings {
			return st, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return state{}, ctx.Err()
}

// cpu is the CPU time of the server so far, in seconds.
func (s *server) cpu() float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	const ticks = 100 // per second; Linux always shows this unit to programs
	_, rest, _ := strings.Cut(string(data), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / ticks
}

// peak is the server's peak memory in MB.
func (s *server) peak() float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(string(rest))[0], 64)
			return kb * 1024 / 1e6
		}
	}
	return 0
}
