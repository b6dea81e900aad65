// Package storetest holds the conformance suite that every bucket passes, and a
// bucket that fails on purpose. It is for tests only.
package storetest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Client opens one more client of the same bucket.
type Client func(t *testing.T) store.Bucket

// Run checks a bucket against the contract of store.Bucket. Each call of fresh
// makes an empty bucket.
func Run(t *testing.T, fresh func(t *testing.T) Client) {
	for name, test := range map[string]func(*testing.T, store.Bucket){
		"ReadBack": readBack, "Ranges": ranges, "Absent": absent, "Listing": listing,
		"ListingTwin": listingTwin, "Names": names, "OddNames": oddNames, "FailedBody": failedBody, "Sub": sub, "Canceled": canceled,
		"Overwritten": overwritten, "Big": big, "CanceledUpload": canceledUpload, "Many": many,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, fresh(t)(t))
		})
	}
	for name, test := range map[string]func(*testing.T, Client){
		"IfAbsent": ifAbsent, "IfAbsentBig": ifAbsentBig, "Writers": writers,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, fresh(t))
		})
	}
}

func put(t *testing.T, b store.Bucket, name, body string) {
	t.Helper()
	if err := store.WriteAll(t.Context(), b, fleetscore.BlobName(name), []byte(body), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, b store.Bucket, name string) string {
	t.Helper()
	data, err := store.ReadAll(t.Context(), b, fleetscore.BlobName(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func list(t *testing.T, b store.Bucket, prefix string, opt store.ListOptions) []string {
	t.Helper()
	out := []string{}
	for i, err := range b.List(t.Context(), prefix, opt) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(i.Name))
	}
	return out
}

func readBack(t *testing.T, b store.Bucket) {
	put(t, b, "a/b.txt", "one")
	first, err := b.Stat(t.Context(), "a/b.txt")
	if err != nil || first.SizeBytes != 3 || first.Name != "a/b.txt" || first.Modified.IsZero() {
		t.Errorf("got %+v, %v", first, err)
	}
	put(t, b, "a/b.txt", "twenty")
	if got := get(t, b, "a/b.txt"); got != "twenty" {
		t.Errorf("read %q after overwriting, want %q", got, "twenty")
	}
	second, err := b.Stat(t.Context(), "a/b.txt")
	if err != nil || second.ETag == first.ETag {
		t.Errorf("the ETag %q stayed the same over a change (%v)", second.ETag, err)
	}
	put(t, b, "empty", "")
	if got := get(t, b, "empty"); got != "" {
		t.Errorf("read %q from an empty blob", got)
	}
}

func ranges(t *testing.T, b store.Bucket) {
	put(t, b, "x", "0123456789")
	for _, tt := range []struct {
		off, n int64
		want   string
	}{{0, 3, "012"}, {4, -1, "456789"}, {8, 10, "89"}, {3, 0, ""}, {0, -1, "0123456789"}, {9, 1, "9"}, {10, -1, ""}, {10, 5, ""}, {99, 1, ""}, {99, 0, ""}} {
		r, err := b.Get(t.Context(), "x", tt.off, tt.n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(got) != tt.want {
			t.Errorf("Get(%d, %d) = %q, %v; want %q", tt.off, tt.n, got, err, tt.want)
		}
	}
	if r, err := b.Get(t.Context(), "x", -1, 1); !fleetscore.Invalid.Is(err) {
		t.Errorf("Get(-1, 1) = %v, %v; want kind invalid", r, err)
	}
	put(t, b, "empty", "")
	for _, n := range []int64{-1, 0, 5} {
		r, err := b.Get(t.Context(), "empty", 0, n)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || len(got) != 0 {
			t.Errorf("Get(0, %d) of an empty blob = %q, %v", n, got, err)
		}
		r.Close()
	}
	for _, n := range []int64{-1, 0, 5} {
		if _, err := b.Get(t.Context(), "nothing", 3, n); !fleetscore.NotFound.Is(err) {
			t.Errorf("Get(3, %d) of nothing: %v, want kind not_found", n, err)
		}
	}
}

func absent(t *testing.T, b store.Bucket) {
	put(t, b, "folder/x", "x")
	for _, name := range []fleetscore.BlobName{"nothing", "folder", "folder/x/y", "no/such/folder"} {
		if _, err := b.Get(t.Context(), name, 0, -1); !fleetscore.NotFound.Is(err) {
			t.Errorf("Get(%s): %v, want kind not_found", name, err)
		}
		if _, err := b.Stat(t.Context(), name); !fleetscore.NotFound.Is(err) {
			t.Errorf("Stat(%s): %v, want kind not_found", name, err)
		}
	}
	if err := b.Delete(t.Context(), "nothing"); err != nil {
		t.Errorf("deleting what isn't there: %v", err)
	}
	if err := b.Delete(t.Context(), "folder/x"); err != nil {
		t.Error(err)
	}
	if got := list(t, b, "", store.ListOptions{}); len(got) != 0 {
		t.Errorf("after deleting there is still %v", got)
	}
}

// ifAbsent lets several clients write the same blobs: for each blob one client
// succeeds, and the blob holds its bytes.
func ifAbsent(t *testing.T, open Client) {
	clients := []store.Bucket{open(t), open(t), open(t)}
	for round := range 5 {
		race(t, clients, fleetscore.BlobName(fmt.Sprintf("log/%04d", round)), 15, func(i int) io.Reader { return strings.NewReader(fmt.Sprint(i)) },
			func(i int) string { return fmt.Sprint(i) })
	}
	b := clients[0]
	if err := store.WriteAll(t.Context(), b, "log/0000", []byte("late"), store.PutOptions{IfAbsent: true}); !fleetscore.Conflict.Is(err) {
		t.Errorf("writing what is there: %v, want kind conflict", err)
	}
	if err := b.Delete(t.Context(), "log/0000"); err != nil {
		t.Fatal(err)
	}
	if err := store.WriteAll(t.Context(), b, "log/0000", []byte("again"), store.PutOptions{IfAbsent: true}); err != nil {
		t.Errorf("writing what was deleted: %v", err)
	}
}

// race lets n writers write one blob; want returns the bytes of writer i.
func race(t *testing.T, clients []store.Bucket, name fleetscore.BlobName, n int, body func(i int) io.Reader, want func(i int) string) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			_, errs[i] = clients[i%len(clients)].Put(t.Context(), name, body(i), store.PutOptions{IfAbsent: true})
		})
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won < 0:
			won = i
		case err == nil:
			t.Errorf("writers %d and %d both succeeded", won, i)
		case !fleetscore.Conflict.Is(err):
			t.Errorf("writer %d: %v, want kind conflict", i, err)
		}
	}
	if won < 0 {
		t.Fatalf("nobody won: %v", errs)
	}
	if got := get(t, clients[0], string(name)); got != want(won) {
		t.Errorf("%s doesn't hold the bytes of writer %d, which succeeded: %.40q", name, won, got)
	}
}

func listing(t *testing.T, b store.Bucket) {
	for _, n := range []string{"a/1", "a/2", "a-b", "a.txt", "a/sub/3", "b", "a0"} {
		put(t, b, n, n)
	}
	for _, tt := range []struct {
		prefix string
		opt    store.ListOptions
		want   []string
	}{
		{"", store.ListOptions{}, []string{"a-b", "a.txt", "a/1", "a/2", "a/sub/3", "a0", "b"}},
		{"", store.ListOptions{Delimiter: true}, []string{"a-b", "a.txt", "a/", "a0", "b"}},
		{"a/", store.ListOptions{Delimiter: true}, []string{"a/1", "a/2", "a/sub/"}},
		{"a/", store.ListOptions{After: "a/1"}, []string{"a/2", "a/sub/3"}},
		{"", store.ListOptions{After: "a/sub/2"}, []string{"a/sub/3", "a0", "b"}},
		{"", store.ListOptions{After: "a/sub/3"}, []string{"a0", "b"}},
		{"a/s", store.ListOptions{}, []string{"a/sub/3"}},
		{"nothing/", store.ListOptions{}, []string{}},
		{"b/", store.ListOptions{}, []string{}},
	} {
		if d := cmp.Diff(tt.want, list(t, b, tt.prefix, tt.opt)); d != "" {
			t.Errorf("List(%q, %+v) (-want +got):\n%s", tt.prefix, tt.opt, d)
		}
	}
	for range b.List(t.Context(), "", store.ListOptions{}) {
		break // ending early must not hang or panic
	}
}

func listingTwin(t *testing.T, b store.Bucket) {
	rnd := rand.New(rand.NewPCG(1, 2))
	seen := map[string]bool{}
	for range 200 {
		var parts []string
		for range 1 + rnd.IntN(3) {
			parts = append(parts, []string{"a", "b", "a-", "a.", "a0", "é"}[rnd.IntN(6)])
		}
		seen[strings.Join(parts, "/")+".f"] = true
	}
	var all []string
	for n := range seen {
		put(t, b, n, "x")
		all = append(all, n)
	}
	slices.Sort(all)
	for range 50 {
		after := all[rnd.IntN(len(all))]
		prefix := all[rnd.IntN(len(all))][:rnd.IntN(4)]
		want := []string{}
		for _, n := range all {
			if n > after && strings.HasPrefix(n, prefix) {
				want = append(want, n)
			}
		}
		if d := cmp.Diff(want, list(t, b, prefix, store.ListOptions{After: fleetscore.BlobName(after)})); d != "" {
			t.Errorf("List(%q, after %q) (-want +got):\n%s", prefix, after, d)
		}
	}
}

func names(t *testing.T, b store.Bucket) {
	for _, n := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a\nb", "a\\b", "a\xff", strings.Repeat("x", 256)} {
		err := store.WriteAll(t.Context(), b, fleetscore.BlobName(n), []byte("x"), store.PutOptions{})
		if !fleetscore.Invalid.Is(err) {
			t.Errorf("writing %q: %v, want kind invalid", n, err)
		}
	}
	for _, n := range []string{"a b", "ü", "a=b/c,d", "_x", ".hidden", "%20", strings.Repeat("y", 200)} {
		put(t, b, n, n)
		if got := get(t, b, n); got != n {
			t.Errorf("%q holds %q", n, got)
		}
	}
}

type brokenReader struct{}

func (brokenReader) Read(p []byte) (int, error) {
	return copy(p, "half"), io.ErrUnexpectedEOF
}

func failedBody(t *testing.T, b store.Bucket) {
	put(t, b, "x", "whole")
	if _, err := b.Put(t.Context(), "x", brokenReader{}, store.PutOptions{}); err == nil {
		t.Error("a body that breaks off was taken")
	}
	if got := get(t, b, "x"); got != "whole" {
		t.Errorf("a failed write left %q", got)
	}
	if got := list(t, b, "", store.ListOptions{}); len(got) != 1 {
		t.Errorf("a failed write shows in the listing: %v", got)
	}
}

func sub(t *testing.T, b store.Bucket) {
	put(t, b, "top", "0")
	s := store.Sub(b, "in/side")
	put(t, s, "x/y", "1")
	if got := get(t, b, "in/side/x/y"); got != "1" {
		t.Errorf("got %q", got)
	}
	if d := cmp.Diff([]string{"x/y"}, list(t, s, "", store.ListOptions{})); d != "" {
		t.Error(d)
	}
	if _, err := s.Get(t.Context(), "../../top", 0, -1); !fleetscore.Invalid.Is(err) {
		t.Errorf("leaving the folder: %v, want kind invalid", err)
	}
}

func canceled(t *testing.T, b store.Bucket) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.WriteAll(ctx, b, "x", []byte("x"), store.PutOptions{}); err == nil {
		t.Error("a write went on without its context")
	}
	if got := list(t, b, "", store.ListOptions{}); len(got) != 0 {
		t.Errorf("it left %v", got)
	}
}
