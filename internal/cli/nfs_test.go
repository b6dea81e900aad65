package cli

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestFileServer: a job whose models were read over NFS gives what a job gives that reads
// them from the store; nothing is exported without a flag, and to no other machine.
func TestFileServer(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "nfs-ls", "libnfs-utils")
	testkit.Tool(t, "python3", "python3")
	ref := testkit.Reference(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nfs := l.Addr().String()
	l.Close()
	p := newServer(t, `
fleets:
  stored: {path: models/sensors, model: "model_{Device}_{Tag}"}
  copied: {path: ./copy/sensors, model: "model_{Device}_{Tag}", sync: 1s}
pools: {cpu: {scale: {min: 0, max: 1}}}
pipelines:
  stored: {dataset: history, fleet: stored, features: [Val=Value], pool: cpu}
  copied: {dataset: history, fleet: copied, features: [Val=Value], pool: cpu}
`, func(dir string) {
		if err := os.CopyFS(filepath.Join(dir, "data", "store", "models", "sensors"), os.DirFS(filepath.Join(ref, "models"))); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "copy", "sensors"), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	p.args = []string{"--nfs-listen", nfs}
	p.start()
	port := nfs[strings.LastIndexByte(nfs, ':')+1:]
	read := filepath.Join(testkit.Root(t), "internal", "fileserver", "testdata", "copy.py")
	if out, err := testkit.Command(t, "python3", read, "nfs://127.0.0.1/models?nfsport="+port+"&mountport="+port, filepath.Join(p.dir, "copy")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	server := "--server=http://" + p.addr
	for _, args := range [][]string{
		{"fleet", "sync", "copied"},
		{"dataset", "upload", "history", filepath.Join(ref, "sensor_data.csv")},
		{"job", "submit", "stored", "--wait"}, {"job", "submit", "copied", "--wait"},
	} {
		if code, stdout, stderr := command(t, append(args, server)...); code != 0 {
			t.Fatalf("%v: exit %d\n%s%s", args, code, stdout, stderr)
		}
	}
	stored, copied := p.predictions("stored"), p.predictions("copied")
	if stored.Len() != 17768 {
		t.Errorf("%d predictions, want 17768", stored.Len())
	}
	if d := cmp.Diff(stored, copied); d != "" {
		t.Errorf("predictions differ:\n%.2000s", d)
	}
	for want, args := range map[string][]string{
		"asks for no password":          {"--nfs-listen", "0.0.0.0:0"},
		"not host:port":                 {"--nfs-listen", "2049"},
		"no area of the store":          {"--nfs-listen", "127.0.0.1:0", "--nfs-area", "secrets"},
		"give --nfs-listen 127.0.0.1:2": {"--nfs-area", "models"},
		"the address is in use":         {"--nfs-listen", nfs},
	} {
		if code, _, stderr := command(t, append([]string{"serve", "--listen", "127.0.0.1:0", "--dir", t.TempDir()}, args...)...); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit %d, want %q\n%s", args, code, want, stderr)
		}
	}
	p.stop()
	p.args = nil
	p.start()
	if c, err := net.Dial("tcp", nfs); err == nil {
		c.Close()
		t.Error("without the flag something listens for NFS")
	}
}
