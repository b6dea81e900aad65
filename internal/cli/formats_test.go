package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/fleetscore/fleetscore"
)

// TestFormats: a server takes readings in each format over HTTP, with the token of a device where each
// protocol has it, and each of them is in one row. Without a token none is taken.
func TestFormats(t *testing.T) {
	t.Parallel()
	yaml, _ := mqttYAML(t, time.Second, time.Second)
	p := startServer(t, yaml)
	token, _ := p.deviceToken("press-1")
	now := time.Now().UTC().Truncate(time.Second)
	at := now.Format(time.RFC3339)
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(z, "TS,Device,Tag,Value\n%s,press-1,csv,1\n", at)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	point := func(tag string) string { return fmt.Sprintf("m,Device=press-1,Tag=%s Value=1 %d", tag, now.Unix()) }
	messages := "/api/v1/hubs/hub/messages"
	sent := map[string]int64{}
	for _, c := range []struct {
		tag, path, content, encoding, auth, body string
		want                                     int
	}{
		{"csv", messages, "text/csv", "zstd", "Bearer " + token, packed.String(), 200},
		{"event", messages, "application/cloudevents-batch+json", "", "Bearer " + token, fmt.Sprintf(`[{"specversion":"1.0","id":"1","source":"s","type":"t","time":%q,"data":{"Device":"press-1","Tag":"event","Value":1}}]`, at), 200},
		{"v2", "/api/v2/write?org=o&bucket=b&precision=s", "text/plain; charset=utf-8", "", "Token " + token, point("v2"), 204},
		{"v1", "/write?db=d&precision=s", "", "", "basic", point("v1"), 204},
		{"", "/api/v2/write?precision=s", "", "", "Token x", point("refused"), 401},
		{"", "/write?precision=s", "", "", "", point("refused"), 401},
		{"", "/api/v2/write?precision=s", "", "", "Token " + token, strings.ReplaceAll(point("refused"), "press-1", "press-2"), 400},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.addr+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"Content-Type": c.content, "Content-Encoding": c.encoding, "Authorization": c.auth} {
			if value == "basic" {
				r.SetBasicAuth("telegraf", token)
			} else if value != "" {
				r.Header.Set(name, value)
			}
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s: status %d, want %d", c.path, c.tag, resp.StatusCode, c.want)
		}
		if c.tag != "" {
			sent[fmt.Sprint(fleetscore.MicrosOf(now), " press-1/", c.tag)]++
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, "http://"+p.addr+messages, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("WebHook-Request-Origin", "eventgrid.azure.net")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("WebHook-Allowed-Origin") != "eventgrid.azure.net" {
		t.Errorf("handshake: %d %v", resp.StatusCode, resp.Header)
	}
	if t.Failed() {
		t.FailNow()
	}
	p.complete(sent)
	if diff := cmp.Diff(sent, p.readings()); diff != "" {
		t.Errorf("readings per window and sensor (-sent +in rows):\n%s", diff)
	}
}
