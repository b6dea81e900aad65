package store_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

func open(t testing.TB, url string) store.Bucket {
	t.Helper()
	b, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func conform(t *testing.T, s *storetest.Server, except ...string) {
	t.Run("conformance", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) storetest.Client {
			url := s.NewBucket(t)
			return func(t *testing.T) store.Bucket { return open(t, url) }
		})
	})
	t.Run("addresses", func(t *testing.T) { addresses(t, s) })
	t.Run("faults", func(t *testing.T) { faults(t, s, except...) })
}

func TestS3(t *testing.T) {
	t.Parallel()
	conform(t, storetest.S3(t))
}

func TestAzure(t *testing.T) {
	t.Parallel()
	conform(t, storetest.Azure(t))
}

func TestGCS(t *testing.T) {
	t.Parallel()
	// The fake lists folders after everything else, page by page, and takes the
	// question how far an upload has come as the end of the upload; TestGCSUpload
	// tests that part.
	conform(t, storetest.GCS(t), "SmallPages", "LostAnswerBig")
}

// addresses opens a missing bucket, and a folder of a bucket.
func addresses(t *testing.T, s *storetest.Server) {
	t.Parallel()
	url := s.NewBucket(t)
	bucket, query, _ := strings.Cut(url, "?")
	if _, err := store.Open(t.Context(), bucket+"-none?"+query); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), "create it") {
		t.Errorf("a bucket that isn't there: %v, want kind invalid and what to do", err)
	}
	b := open(t, bucket+"/some/folder?"+query)
	if err := store.Probe(t.Context(), b); err != nil {
		t.Error(err)
	}
	put(t, b, "x", "1")
	if got, err := store.ReadAll(t.Context(), open(t, url), "some/folder/x"); err != nil || string(got) != "1" {
		t.Errorf("got %q, %v", got, err)
	}
	gone := s.Through(url, "http://127.0.0.1:9") // no server listens there
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := store.Open(ctx, gone); !fleetscore.Unavailable.Is(err) {
		t.Errorf("no server: %v, want kind unavailable", err)
	}
}

func TestOpenJudgesURLs(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"s3://", "s3://bucket?region=x&secret=y", "s3://key:secret@bucket", "azblob://c?sas=1", "gs://b/a//b", "s3://b/" + strings.Repeat("x", 101),
		"file://relative", "ftp://x", "s3://b?endpoint=127.0.0.1:9", "s3://b?endpoint=http://user:secret@h", "s3://b#x", "s3://%zz"} {
		_, err := store.Open(t.Context(), url)
		if !fleetscore.Invalid.Is(err) {
			t.Errorf("%s: %v, want kind invalid", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret@") {
			t.Errorf("the message shows a secret: %v", err)
		}
		if err := store.CheckURL(url); !fleetscore.Invalid.Is(err) {
			t.Errorf("CheckURL(%s): %v, want kind invalid", url, err)
		}
	}
	for _, url := range []string{"folder", "/abs", "file:///abs", "s3://b/p?region=eu-central-1&endpoint=http://127.0.0.1:9000&path_style=true&profile=p", "azblob://c?account=a", "gs://b/p"} {
		if err := store.CheckURL(url); err != nil {
			t.Errorf("CheckURL(%s): %v", url, err)
		}
	}
}
