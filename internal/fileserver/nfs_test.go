package fileserver_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fileserver"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// address is where a file server of a test listens.
type address string

func (a address) url(path string) string {
	host, port, _ := strings.Cut(string(a), ":")
	return fmt.Sprintf("nfs://%s%s?nfsport=%s&mountport=%s", host, path, port, port)
}

// serveStore runs a file server until the test ends.
func serveStore(t *testing.T, b store.Bucket, cfg fileserver.Config) address {
	t.Helper()
	return serveAt(t, b, cfg, time.Now)
}

func serveAt(t *testing.T, b store.Bucket, cfg fileserver.Config, now func() time.Time) address {
	t.Helper()
	s, err := fileserver.New(cfg, fileserver.Deps{Store: b, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the file server ended with %v", err)
		}
	})
	return address(l.Addr().String())
}

// client speaks just enough of the protocol.
type client struct {
	t *testing.T
	net.Conn
	xid uint32
}

func (a address) dial(t *testing.T) *client {
	t.Helper()
	c, err := net.Dial("tcp", string(a))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return &client{t, c, 7}
}

// words are the fields of a message: uint32, uint64, and opaque bytes.
func words(vs ...any) (b []byte) {
	for _, v := range vs {
		switch v := v.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(v))
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		case string:
			b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
			b = append(b, v...)
			b = append(b, make([]byte, (4-len(v)%4)%4)...)
		}
	}
	return b
}

const (
	mountProgram = 100005
	nfsProgram   = 100003
)

// call returns the results of a call; accepted is what became of the call itself.
func (c *client) call(program, version, procedure int, args ...any) (accepted int, results *answer) {
	c.t.Helper()
	c.xid++
	body := append(words(int(c.xid), 0, 2, program, version, procedure, 1, "who", 0, ""), words(args...)...)
	c.send(body)
	r := c.receive()
	if got := r.int(); got != int(c.xid) {
		c.t.Fatalf("an answer to %d, want %d", got, c.xid)
	}
	if kind, denied := r.int(), r.int(); kind != 1 || denied != 0 {
		c.t.Fatalf("the call was denied: %d, %d", kind, denied)
	}
	r.int()
	r.opaque()
	return r.int(), r
}

// send sends a message in two fragments.
func (c *client) send(body []byte) {
	c.t.Helper()
	half := len(body) / 2
	first, second := words(half), words(len(body)-half)
	second[0] |= 0x80
	if _, err := c.Write(bytes.Join([][]byte{first, body[:half], second, body[half:]}, nil)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) receive() *answer {
	c.t.Helper()
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		c.t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])&0x7fffffff)
	if _, err := io.ReadFull(c, body); err != nil {
		c.t.Fatal(err)
	}
	return &answer{c.t, body}
}

type answer struct {
	t    *testing.T
	rest []byte
}

func (r *answer) take(n int) []byte {
	r.t.Helper()
	if n > len(r.rest) {
		r.t.Fatalf("the answer ends %d bytes too early", n-len(r.rest))
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *answer) int() int     { return int(binary.BigEndian.Uint32(r.take(4))) }
func (r *answer) long() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

func (r *answer) opaque() string {
	n := r.int()
	out := string(r.take(n))
	r.take((4 - n%4) % 4)
	return out
}

// nfs returns the status of a call of NFS and what follows it.
func (c *client) nfs(procedure int, args ...any) (int, *answer) {
	c.t.Helper()
	accepted, r := c.call(nfsProgram, 3, procedure, args...)
	if accepted != 0 {
		c.t.Fatalf("procedure %d isn't accepted: %d", procedure, accepted)
	}
	return r.int(), r
}

// mount returns the handle of an area.
func (c *client) mount(path string) string {
	c.t.Helper()
	_, r := c.call(mountProgram, 3, 1, path)
	if status := r.int(); status != 0 {
		c.t.Fatalf("mounting %s: %d", path, status)
	}
	return r.opaque()
}

// lookup returns the handle of a name in a folder.
func (c *client) lookup(folder, name string) string {
	c.t.Helper()
	status, r := c.nfs(3, folder, name)
	if status != 0 {
		c.t.Fatalf("looking %s up: %d", name, status)
	}
	return r.opaque()
}

// names lists one page of a folder after a cookie.
func (c *client) names(folder string, cookie, verifier uint64, most int) (status int, names []string, last, next uint64, end bool) {
	c.t.Helper()
	status, r := c.nfs(16, folder, cookie, verifier, most)
	if status != 0 {
		return status, nil, 0, 0, false
	}
	r.int()
	r.take(84)
	next = r.long()
	for r.int() == 1 {
		r.long()
		names = append(names, r.opaque())
		last = r.long()
	}
	return 0, names, last, next, r.int() == 1
}

func fill(t *testing.T, b store.Bucket, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := store.WriteAll(t.Context(), b, fleetscore.BlobName(n), []byte("content of "+n), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func openDir(t *testing.T, dir string) *store.Dir {
	t.Helper()
	b, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReadOnly: every procedure that changes something is refused with its own form of
// answer, and nothing changes.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	b := openDir(t, t.TempDir())
	fill(t, b, "models/m/a", "predictions/secret")
	c := serveStore(t, b, fileserver.Config{Areas: []string{"models"}}).dial(t)
	folder := c.lookup(c.mount("/models"), "m")
	file := c.lookup(folder, "a")
	for procedure, answers := range map[int]int{2: 2, 7: 2, 8: 2, 9: 2, 10: 2, 11: 2, 12: 2, 13: 2, 14: 4, 15: 3, 21: 2} {
		status, r := c.nfs(procedure, folder, "a", 0, 0, 0, 0, 0, 0)
		if status != 30 || len(r.rest) != 4*answers {
			t.Errorf("procedure %d: status %d with %d bytes, want 30 with %d", procedure, status, len(r.rest), 4*answers)
		}
	}
	if status, r := c.nfs(4, file, 0x3f); status != 0 {
		t.Errorf("ACCESS: %d", status)
	} else if r.take(88); r.int() != 1 {
		t.Error("ACCESS allows more than to read")
	}
	if got, err := store.ReadAll(t.Context(), b, "models/m/a"); err != nil || string(got) != "content of models/m/a" {
		t.Errorf("the file is %q, %v", got, err)
	}
	for name, want := range map[string]int{"..": 0, ".": 0, "../..": 2, "../../predictions": 2, "": 2, "none": 2, strings.Repeat("x", 300): 2, "\x01": 2, "a/b": 2} {
		if status, _ := c.nfs(3, folder, name); status != want {
			t.Errorf("looking %q up: %d, want %d", name, status, want)
		}
	}
	top := c.mount("/models")
	if c.lookup(top, "..") != top {
		t.Error("the folder above an area isn't the area itself")
	}
	if status, _ := c.nfs(3, file, "x"); status != 20 {
		t.Errorf("looking up in a file: %d, want 20", status)
	}
	if status, _ := c.nfs(6, folder, uint64(0), 10); status != 21 {
		t.Errorf("reading a folder: %d, want 21", status)
	}
	if status, _ := c.nfs(6, file, uint64(1)<<63, 10); status != 0 {
		t.Errorf("reading beyond the end: %d", status)
	}
}

// TestHandlesLast: handles stay valid when the server starts again, except those of long
// names, which are looked up again; made-up handles are refused.
func TestHandlesLast(t *testing.T) {
	t.Parallel()
	b := openDir(t, t.TempDir())
	long := strings.Repeat("n", 100)
	fill(t, b, "models/a", "models/"+long, "data/x", "models/"+long+"2")
	cfg := fileserver.Config{Areas: []string{"models"}}
	first := serveStore(t, b, cfg).dial(t)
	top := first.mount("/models")
	short, lost := first.lookup(top, "a"), first.lookup(top, long)
	if status, _ := first.nfs(1, lost); status != 0 {
		t.Errorf("the handle of a long name: %d", status)
	}
	again := serveStore(t, b, cfg).dial(t)
	if status, _ := again.nfs(1, short); status != 0 {
		t.Errorf("a handle after a restart: %d", status)
	}
	if status, _ := again.nfs(1, lost); status != 70 {
		t.Errorf("a long name's handle after a restart: %d, want 70", status)
	}
	if again.lookup(top, long) != lost {
		t.Error("a long name has another handle than before")
	}
	for _, h := range []string{"", "x", top[:8], top + "/../data/x", top + "..", top + "/", "\x03" + top[1:], "\x01notanare" + "a", top + "none"} {
		if status, _ := again.nfs(1, h); status != 70 {
			t.Errorf("handle %q: %d, want 70", h, status)
		}
	}
	if accepted, _ := again.call(nfsProgram, 3, 1, strings.Repeat("h", 65)); accepted != 4 {
		t.Errorf("a handle that is too long: %d, want 4", accepted)
	}
}

// TestListings: a client that lists a folder page by page gets each name once, also after a
// restart of the server; it is told if the folder has changed meanwhile.
func TestListings(t *testing.T) {
	t.Parallel()
	b := openDir(t, t.TempDir())
	var want []string
	for i := range 300 {
		want = append(want, fmt.Sprintf("model_%03d", i))
		fill(t, b, "models/"+want[i])
	}
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	cfg := fileserver.Config{Areas: []string{"models"}}
	servers := []*client{serveAt(t, b, cfg, now).dial(t), serveAt(t, b, cfg, now).dial(t)}
	top := servers[0].mount("/models")
	var got []string
	var cookie, verifier uint64
	for page := 0; ; page++ {
		status, names, last, next, end := servers[page%2].names(top, cookie, verifier, 1000) // as if it started again after each page
		if status != 0 || len(names) == 0 {
			t.Fatalf("page %d: status %d, %d names", page, status, len(names))
		}
		got, cookie, verifier = append(got, names...), last, next
		if end {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(append([]string{".", ".."}, want...)) {
		t.Errorf("got %v", got)
	}
	modified := func() (at uint64) {
		_, r := servers[0].nfs(1, top)
		r.take(84 - 16)
		return r.long()
	}
	before := modified()
	ahead.Store(int64(time.Hour))
	if status, _, _, _, _ := servers[0].names(top, 0, 0, 1000); status != 0 {
		t.Fatal(status)
	}
	if modified() != before {
		t.Error("the folder's time has changed, its content hasn't")
	}
	fill(t, b, "models/new")
	ahead.Store(int64(2 * time.Hour))
	if status, _, _, _, _ := servers[1].names(top, 5, verifier, 1000); status != 0 {
		t.Errorf("a listing that is under way ends: %d", status) // this server remembers it
	}
	if status, _, _, next, _ := servers[0].names(top, 0, 0, 1000); status != 0 || next == verifier {
		t.Errorf("a new listing: %d, the same verifier: %t", status, next == verifier)
	}
	if status, _, _, _, _ := servers[0].names(top, 5, verifier, 1000); status != 10003 {
		t.Errorf("a place in a folder that has changed: %d, want 10003", status)
	}
	if modified() == before {
		t.Error("the folder's time hasn't changed, its content has")
	}
	if status, _, _, _, _ := servers[0].names(top, 0, 0, 50); status != 10005 {
		t.Errorf("no room for one name: %d, want 10005", status)
	}
}

// TestStoreTrouble: what the store can't do at the moment is tried again by clients.
func TestStoreTrouble(t *testing.T) {
	t.Parallel()
	b := openDir(t, t.TempDir())
	fill(t, b, "models/a", "models/dir/b")
	var kind atomic.Int32
	faulty := &storetest.Faulty{Bucket: b, Fail: func(op string, name fleetscore.BlobName) error {
		if k := fleetscore.Kind(kind.Load()); k != 0 {
			return fleetscore.Errorf(k, op, string(name), "injected")
		}
		return nil
	}}
	c := serveStore(t, faulty, fileserver.Config{Areas: []string{"models"}}).dial(t)
	top := c.mount("/models")
	file, dir := c.lookup(top, "a"), c.lookup(top, "dir")
	for k, want := range map[fleetscore.Kind]int{fleetscore.Unavailable: 10008, fleetscore.Corrupt: 5} {
		kind.Store(int32(k))
		if status, _ := c.nfs(6, file, uint64(0), 10); status != want {
			t.Errorf("reading, %s: %d, want %d", k, status, want)
		}
		if status, _, _, _, _ := c.names(dir, 0, 0, 1000); status != want {
			t.Errorf("listing, %s: %d, want %d", k, status, want)
		}
	}
}

// TestForeignRequests: other programs, versions and procedures, and bytes that are no
// requests, get the answers of RFC 5531 or a closed connection; the server goes on.
func TestForeignRequests(t *testing.T) {
	t.Parallel()
	at := serveStore(t, openDir(t, t.TempDir()), fileserver.Config{Areas: []string{"models"}})
	c := at.dial(t)
	for _, x := range []struct{ program, version, procedure, want int }{
		{100000, 2, 3, 1}, {nfsProgram, 4, 1, 2}, {mountProgram, 1, 1, 2}, {nfsProgram, 3, 99, 3}, {nfsProgram, 3, 0, 0}, {nfsProgram, 3, 1, 4},
	} {
		if accepted, _ := c.call(x.program, x.version, x.procedure); accepted != x.want {
			t.Errorf("%+v: got %d", x, accepted)
		}
	}
	c.send(words(1, 0, 3, nfsProgram, 3, 0, 0, "", 0, ""))
	if r := c.receive(); len(r.rest) != 24 || r.rest[11] != 1 {
		t.Errorf("RPC version 3: %v", r.rest)
	}
	c.send(words(1, 0, 2, nfsProgram, 3, 0, 6, "kerberos", 0, ""))
	if r := c.receive(); len(r.rest) != 20 || r.rest[11] != 1 || r.rest[15] != 1 {
		t.Errorf("Kerberos: %v", r.rest)
	}
	huge := words(0)
	for _, bad := range [][]byte{
		[]byte("GET / HTTP/1.1\r\n\r\n"), {0xff, 0xff, 0xff, 0xff, 0}, {0x80, 0, 0, 0}, {0, 0, 0, 0}, append([]byte{0x80, 0, 0, 12}, words(1, 1, 2)...), append(append([]byte{0x80, 0, 0, 28}, words(1, 0, 2, nfsProgram, 3, 1)...), huge...),
	} {
		d := at.dial(t)
		if _, err := d.Write(bad); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, d); n > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%q: %d bytes of answer, %v", bad, n, err)
		}
	}
	if accepted, _ := c.call(nfsProgram, 3, 0); accepted != 0 {
		t.Errorf("afterwards: %d", accepted)
	}
}

func TestAreas(t *testing.T) {
	t.Parallel()
	for areas, want := range map[string]string{
		"models": "", "models data/x logs predictions/p": "", "secrets": "no area", "": "no area", "models/../x": "no area", "/models": "no area",
		"models models": "lies in the other", "models models/a": "lies in the other", "models/a models": "lies in the other", "models/a models/ab": "",
	} {
		err := fileserver.CheckAreas(strings.Split(areas, " "))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("areas %q: %v, want %q", areas, err, want)
		}
	}
}

// FuzzRequests: no bytes take the server down.
func FuzzRequests(f *testing.F) {
	for procedure := range 22 {
		f.Add(append(words(1, 0, 2, nfsProgram, 3, procedure, 0, "", 0, ""), words("\x01handle of a file", "name", uint64(0), uint64(0), 100, 100)...))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := store.OpenDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		s, err := fileserver.New(fileserver.Config{Areas: []string{"models"}}, fileserver.Deps{Store: b})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		l := &once{c: theirs, closed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, l) }()
		head := words(len(body))
		head[0] |= 0x80
		_, _ = ours.Write(append(head, body...)) // the server may close the connection first
		_ = ours.SetReadDeadline(time.Now().Add(time.Second))
		var answer [4]byte
		if _, err := io.ReadFull(ours, answer[:]); err == nil {
			n, err := io.CopyN(io.Discard, ours, int64(binary.BigEndian.Uint32(answer[:])&0x7fffffff))
			if err != nil {
				t.Errorf("an answer ends after %d bytes: %v", n, err)
			}
		}
		ours.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// once is a listener with one connection.
type once struct {
	c      net.Conn
	closed chan struct{}
}

func (l *once) Accept() (net.Conn, error) {
	if c := l.c; c != nil {
		l.c = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *once) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *once) Addr() net.Addr { return &net.TCPAddr{} }
