package cli

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// most is the memory that a server may take while readings' bodies attack it: the
// bodies' 256 MiB, as much again that the garbage collector hasn't freed, and the rest.
const most = 900 << 20

// peak is the most memory that the server's process ever took.
func (r *running) peak() int64 {
	r.t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(r.cmd.Process.Pid), "status"))
	if errors.Is(err, os.ErrNotExist) {
		testkit.Missing(r.t, "/proc", "run the test on Linux")
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		r.t.Fatalf("no VmHWM: %v\n%s", err, status)
	}
	kb, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return kb << 10
}

// honest sends a reading as a device does: again while the server says 503.
func (r *running) honest(token string) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		status := r.send(token, "", strings.NewReader(fmt.Sprintf(`{"TS":%d,"Device":"1","Tag":"pressure","Value":5}`, time.Now().UnixMilli())))
		if status == http.StatusOK {
			return
		}
		if status != http.StatusServiceUnavailable || time.Now().After(end) {
			r.t.Errorf("an honest reading gets %d", status)
			return
		}
		time.Sleep(100 * time.Millisecond) // shorter than Retry-After
	}
}

// send posts a body of readings; 0 if there is no answer.
func (r *running) send(token, encoding string, body io.Reader) (status int) {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url+"/api/v1/hubs/hub/messages", body)
	if err != nil {
		r.t.Error(err)
		return 0
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Authorization", "Bearer "+token)
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0 // the server ended the connection
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // the status is what counts
	return resp.StatusCode
}

// TestHostileBodies: a device's token lets nobody use up the server's memory, or keep
// the readings of others out: not by small bodies that are large once decompressed,
// not by bodies of unknown size that don't end, not by announcing much and sending
// nothing.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	r := launch(t, "")
	token := r.token("device", "attacker")
	r.honest(token)

	line := []byte(`{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1","Value":1}` + "\n")
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range (15 << 20) / len(line) {
		if _, err := z.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 120 {
		group.Go(func() { r.send(token, "gzip", bytes.NewReader(bomb.Bytes())) })
	}
	r.honest(token)
	group.Wait()
	if p := r.peak(); p > most {
		t.Errorf("after bodies of %d bytes that become 15 MB, %d MB", bomb.Len(), p>>20)
	}

	held := func(header string, sent []byte) {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second)) // the server may have ended it, or not read
		_, _ = fmt.Fprintf(c, "POST /api/v1/hubs/hub/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\nContent-Type: application/x-ndjson\r\n%s\r\n\r\n", token, header)
		_, _ = c.Write(sent)
	}
	for range 100 {
		held("Content-Length: 16000000", nil)
	}
	r.honest(token)
	chunk := append(fmt.Appendf(nil, "%x\r\n", 8<<20), bytes.Repeat([]byte("x"), 8<<20)...)
	for range 100 {
		group.Go(func() { held("Transfer-Encoding: chunked", append(chunk, "\r\n"...)) })
	}
	group.Wait()
	r.honest(token)
	if p := r.peak(); p > most {
		t.Errorf("with connections held, %d MB", p>>20)
	} else {
		t.Logf("at most %d MB", p>>20)
	}
}
