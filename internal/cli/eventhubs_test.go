package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// eventHubsSenders sends with Microsoft's client of that time, which speaks to a hub over HTTP, and with a token as
// Microsoft's documents say how to make it. Only the address is another one than the service's.
const eventHubsSenders = `
import base64, hashlib, hmac, json, sys, time, urllib.error, urllib.parse, urllib.request
import requests
from azure.servicebus import ServiceBusService

address, key, events = sys.argv[1], open(sys.argv[2]).read().strip(), json.load(sys.stdin)

class Elsewhere(requests.adapters.HTTPAdapter):
    def send(self, request, **kw):
        request.url = urllib.parse.urlsplit(request.url)._replace(scheme="http", netloc=address).geturl()
        request.headers.pop("Host", None)
        return super().send(request, **kw)

session = requests.Session()
session.mount("https://", Elsewhere())
service = ServiceBusService("fleet", shared_access_key_name="send", shared_access_key_value=key, request_session=session)
service.send_event("readings", events[0], broker_properties={"PartitionKey": "1", "MessageId": "a"})
service.send_event("readings", events[0], broker_properties={"PartitionKey": "1", "MessageId": "a"})
service.send_event("readings", events[1], device_id="press-1")

def token(uri, key, until):
    uri = urllib.parse.quote_plus(uri)
    text = (uri + "\n" + str(until)).encode("utf-8")
    signature = urllib.parse.quote(base64.b64encode(hmac.HMAC(key.encode("utf-8"), text, hashlib.sha256).digest()))
    return "SharedAccessSignature sr={}&sig={}&se={}&skn={}".format(uri, signature, until, "send")

def post(path, media, body, key=key, until=int(time.time() + 60)):
    headers = {"Authorization": token("https://fleet.servicebus.windows.net/readings", key, until), "Content-Type": media}
    try:
        return urllib.request.urlopen(urllib.request.Request("http://" + address + path, body.encode(), headers)).status
    except urllib.error.HTTPError as e:
        return "%d %s" % (e.code, e.read().decode())

batch = json.dumps([{"Body": e, "BrokerProperties": {"PartitionKey": "1"}, "UserProperties": {"Alert": "wind"}} for e in events[2:]])
print(post("/readings/messages?timeout=60&api-version=2014-01", "application/vnd.microsoft.servicebus.json", batch))
print(post("/readings/partitions/0/messages", "application/atom+xml;type=entry;charset=utf-8", events[2]))
print(post("/readings/messages", "application/json", events[0], key="wrong").split("Detail")[1][1:17])
print(post("/readings/messages", "application/json", events[0], until=1).split("Detail")[1][1:13])
print(post("/others/messages", "application/json", events[0]).split("Detail")[1][1:16])
`

// TestEventHubsSenders: senders of Azure Event Hubs that speak HTTP need only another address. What they send is
// in rows once, repeats with one message id too; wrong tokens are refused in the service's words.
func TestEventHubsSenders(t *testing.T) {
	t.Parallel()
	python := testkit.Venv(t, "azure-servicebus==0.21.1", "requests==2.34.2")
	key := filepath.Join(t.TempDir(), "send.key")
	if err := os.WriteFile(key, []byte("dGhlIGtleSBvZiB0aGUgcG9saWN5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startServer(t, fmt.Sprintf(`
hub: {key: [Device, Tag], time: TS, idle_after: 1s, disorder: 1s, own_key: Device, event_hubs: {name: readings, hosts: [fleet.servicebus.windows.net], policies: [{name: send, key_file: %q}]}}
queries:
  readings: {sql: "SELECT System.Timestamp() AS TS, Device, Tag, COUNT(*) AS N, AVG(Value) AS Value INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, Tag, TumblingWindow(second, 1)", cut: 1s}
`, key))
	p.reading() // the gateway takes readings
	at := time.Now().UTC().Truncate(time.Second)
	sent := map[string]int64{}
	var events []string
	for tag := range 4 {
		events = append(events, fmt.Sprintf(`{"TS":"%s","Device":"press-1","Tag":"%d","Value":%d}`, at.Format(time.RFC3339), tag, tag))
		sent[fmt.Sprint(fleetscore.MicrosOf(at), " press-1/", tag)]++
	}
	cmd := testkit.Command(t, python, "-c", eventHubsSenders, p.addr, key)
	input, err := json.Marshal(events)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	if want := "201\n201\nInvalidSignature\nExpiredToken\nInvalidAudience\n"; err != nil || string(out) != want {
		t.Fatalf("%v\n%s\nwant\n%s%s", err, out, want, p.log)
	}
	p.complete(sent)
	got := p.readings()
	for id := range got { // those that p.reading sent
		if _, ok := sent[id]; !ok {
			delete(got, id)
		}
	}
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Errorf("readings per window and sensor (-acknowledged +in rows):\n%s", diff)
	}
}
