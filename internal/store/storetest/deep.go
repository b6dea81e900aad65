package storetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// bigBytes is more than a cloud takes in one part.
const bigBytes = 20<<20 + 12345

// pattern returns n bytes that depend on seed and place.
func pattern(seed byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16) ^ seed
	}
	return out
}

// stream hides all methods of a reader except Read.
type stream struct{ io.Reader }

func big(t *testing.T, b store.Bucket) {
	want := pattern(1, bigBytes)
	info, err := b.Put(t.Context(), "big", stream{bytes.NewReader(want)}, store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if info.SizeBytes != bigBytes || info.Name != "big" {
		t.Errorf("Put says %+v", info)
	}
	st, err := b.Stat(t.Context(), "big")
	if err != nil || st.SizeBytes != bigBytes || st.ETag != info.ETag {
		t.Errorf("Stat says %+v, %v; Put said %+v", st, err, info)
	}
	if got := get(t, b, "big"); got != string(want) {
		t.Errorf("%d bytes came back differently (%d)", len(want), len(got))
	}
	r, err := b.Get(t.Context(), "big", 8<<20-5, 10) // across the border of two parts
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want[8<<20-5:8<<20+5]) {
		t.Errorf("the range reads %x, %v; want %x", got, err, want[8<<20-5:8<<20+5])
	}
}

func ifAbsentBig(t *testing.T, open Client) {
	want := [][]byte{pattern(1, bigBytes), pattern(2, bigBytes), pattern(3, bigBytes)}
	race(t, []store.Bucket{open(t), open(t)}, "big", len(want), func(i int) io.Reader { return stream{bytes.NewReader(want[i])} },
		func(i int) string { return string(want[i]) })
}

// overwritten reads a blob while it is overwritten: no reader sees bytes of both.
func overwritten(t *testing.T, b store.Bucket) {
	before, after := pattern(1, 3<<20), pattern(2, 3<<20)
	if err := store.WriteAll(t.Context(), b, "x", before, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := b.Get(t.Context(), "x", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	head := make([]byte, 1000)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	if err := store.WriteAll(t.Context(), b, "x", after, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	switch {
	case err != nil && !fleetscore.Unavailable.Is(err):
		t.Errorf("the reader of an overwritten blob: %v, want kind unavailable or none", err)
	case err == nil && !bytes.Equal(append(head, rest...), before):
		t.Error("the reader returned other bytes than those of the content that it began with")
	}
	if got := get(t, b, "x"); got != string(after) {
		t.Error("a new reader doesn't see the new content")
	}
}

// writers overwrite one blob while it is read: every reader sees the complete content
// of one writer.
func writers(t *testing.T, open Client) {
	const n, size = 4, 64 << 10
	clients := []store.Bucket{open(t), open(t)}
	if err := store.WriteAll(t.Context(), clients[0], "x", bytes.Repeat([]byte{0}, size), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	var writing, reading sync.WaitGroup
	done := make(chan struct{})
	for i := range n {
		writing.Go(func() {
			for range 10 {
				if err := store.WriteAll(t.Context(), clients[i%2], "x", bytes.Repeat([]byte{byte(i)}, size), store.PutOptions{}); err != nil {
					t.Errorf("writer %d: %v", i, err)
				}
			}
		})
	}
	for range 2 {
		reading.Go(func() {
			for ended := false; !ended; {
				select {
				case <-done:
					ended = true
				default:
				}
				data, err := store.ReadAll(t.Context(), clients[0], "x")
				if fleetscore.Unavailable.Is(err) {
					continue // the blob was overwritten while a connection broke
				}
				if err != nil || len(data) != size || !bytes.Equal(data, bytes.Repeat(data[:1], size)) {
					t.Errorf("read %d bytes of several writers, %v", len(data), err)
				}
			}
		})
	}
	writing.Wait()
	close(done)
	reading.Wait()
}

// cancelingReader ends its context after the given number of bytes.
type cancelingReader struct {
	r      io.Reader
	left   int
	cancel context.CancelFunc
}

func (c *cancelingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p[:min(len(p), 64<<10)])
	if c.left -= n; c.left < 0 {
		c.cancel()
	}
	return n, err
}

func canceledUpload(t *testing.T, b store.Bucket) {
	put(t, b, "old", "old")
	for _, tt := range []struct {
		name string
		left int
	}{{"new", 1000}, {"new", 10 << 20}, {"new", 19 << 20}, {"old", 10 << 20}} {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := b.Put(ctx, fleetscore.BlobName(tt.name), &cancelingReader{bytes.NewReader(pattern(1, bigBytes)), tt.left, cancel}, store.PutOptions{})
		if err == nil {
			t.Errorf("an upload went on without its context after %d bytes", tt.left)
		}
		cancel()
	}
	failing := io.MultiReader(bytes.NewReader(pattern(1, 18<<20)), brokenReader{})
	if _, err := b.Put(t.Context(), "new", failing, store.PutOptions{}); err == nil {
		t.Error("a body that breaks off after 18 MiB was taken")
	}
	if d := cmp.Diff([]string{"old"}, list(t, b, "", store.ListOptions{})); d != "" {
		t.Errorf("uploads that failed left (-want +got):\n%s", d)
	}
	if got := get(t, b, "old"); got != "old" {
		t.Errorf("an upload that failed left %.20q", got)
	}
	if _, err := b.Stat(t.Context(), "new"); !fleetscore.NotFound.Is(err) {
		t.Errorf("Stat of what was never whole: %v, want kind not_found", err)
	}
}

func oddNames(t *testing.T, b store.Bucket) {
	want := []string{"Z", "a b", "a!", "a#1", "a%20", "a%2F", "a&b=c", "a'q", "a\"q", "a(1)", "a+b", "a,b;c", "a/b", "a:b@c", "a?b", "a[1]", "a^{x}|y~", "a_", "a`b", "a<b>",
		"pump#3/model%1", "é", "e\u0301", "日本/温度", "\ufffd", "\ue000", "😀", "a$b", "%", "100%", "x\u00a0y", "a*", "__0x23__"}
	slices.Sort(want)
	for _, n := range want {
		put(t, b, "odd/"+n, "content of "+n)
	}
	var got []string
	for _, n := range list(t, b, "odd/", store.ListOptions{}) {
		got = append(got, strings.TrimPrefix(n, "odd/"))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("listing (-want +got):\n%s", d)
	}
	for i, n := range want {
		if got := get(t, b, "odd/"+n); got != "content of "+n {
			t.Errorf("%q holds %q", n, got)
		}
		if i%4 != 0 {
			continue
		}
		var after []string
		for _, n := range list(t, b, "odd/", store.ListOptions{After: fleetscore.BlobName("odd/" + n)}) {
			after = append(after, strings.TrimPrefix(n, "odd/"))
		}
		if !slices.Equal(after, want[i+1:]) {
			t.Errorf("after %q: (-want +got):\n%s", n, cmp.Diff(want[i+1:], after))
		}
	}
	for _, n := range want {
		if err := b.Delete(t.Context(), fleetscore.BlobName("odd/"+n)); err != nil {
			t.Error(err)
		}
	}
	if got := list(t, b, "", store.ListOptions{}); len(got) != 0 {
		t.Errorf("after deleting there is still %v", got)
	}
}

// many lists more than a page of the services holds.
func many(t *testing.T, b store.Bucket) {
	const n = 1500
	names := make([]string, n)
	var group sync.WaitGroup
	work := make(chan string)
	for range 16 {
		group.Go(func() {
			for name := range work {
				if err := store.WriteAll(t.Context(), b, fleetscore.BlobName(name), nil, store.PutOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range names {
		names[i] = fmt.Sprintf("m/%02d/%04d", i/97, i)
		work <- names[i]
	}
	close(work)
	group.Wait()
	if d := cmp.Diff(names, list(t, b, "", store.ListOptions{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, i := range []int{0, 96, 97, 998, 999, 1000, 1001, n - 2, n - 1} {
		if d := cmp.Diff(append([]string{}, names[i+1:]...), list(t, b, "m/", store.ListOptions{After: fleetscore.BlobName(names[i])})); d != "" {
			t.Errorf("after %s (-want +got):\n%s", names[i], d)
		}
	}
	var folders []string
	for i := range (n + 96) / 97 {
		folders = append(folders, fmt.Sprintf("m/%02d/", i))
	}
	if d := cmp.Diff(folders, list(t, b, "m/", store.ListOptions{Delimiter: true})); d != "" {
		t.Errorf("folders (-want +got):\n%s", d)
	}
	if d := cmp.Diff(folders[5:], list(t, b, "m/", store.ListOptions{Delimiter: true, After: "m/04/"})); d != "" {
		t.Errorf("folders after m/04/ (-want +got):\n%s", d)
	}
}
