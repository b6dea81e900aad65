//go:build !noclouds

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	"google.golang.org/api/storage/v1"

	"github.com/fleetscore/fleetscore"
)

// gcsService is a bucket of Google Cloud Storage. Its JSON interface is used, because
// the larger client library more than doubles the program's size.
type gcsService struct {
	objects *storage.ObjectsService
	bucket  string
	client  *http.Client // for requests for which the library isn't suitable
	uploads string       // where uploads in parts begin
}

func openGCS(ctx context.Context, a *address) (service, error) {
	subject := "gs://" + a.bucket
	client := defaultHTTPClient()
	endpoint := a.query.Get("endpoint")
	if e := os.Getenv("STORAGE_EMULATOR_HOST"); e != "" && endpoint == "" {
		if !strings.Contains(e, "://") {
			e = "http://" + e
		}
		endpoint = e
	}
	uploads := "https://storage.googleapis.com"
	options := []option.ClientOption{}
	if endpoint != "" { // an emulator needs no credentials
		uploads = strings.TrimSuffix(endpoint, "/")
		options = append(options, option.WithEndpoint(uploads+"/storage/v1/"))
	} else {
		// The source of tokens keeps the context.
		ctx = context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, client)
		creds, err := google.FindDefaultCredentials(ctx, storage.DevstorageReadWriteScope)
		if err != nil {
			return nil, fleetscore.Errorf(fleetscore.Unavailable, "find credentials", subject, "%w", err).
				WithHint("let GOOGLE_APPLICATION_CREDENTIALS name a key's file, log in with gcloud auth application-default login, or give the machine a service account")
		}
		authorized := *client
		authorized.Transport = &oauth2.Transport{Source: creds.TokenSource, Base: client.Transport}
		client = &authorized
	}
	s, err := storage.NewService(ctx, append(options, option.WithHTTPClient(client))...)
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "open store", subject, "%w", err)
	}
	return &gcsService{s.Objects, a.bucket, client, uploads + "/upload/storage/v1/b/" + url.PathEscape(a.bucket) + "/o"}, nil
}

var errEncoded = errors.New("the blob was stored with a Content-Encoding")

func (s *gcsService) judge(err error) verdict {
	if errors.Is(err, errEncoded) {
		return verdict{kind: fleetscore.Invalid, err: err, hint: "store it without Content-Encoding, because the service decompresses it and ranges of it can't be read"}
	}
	var ge *googleapi.Error
	if !errors.As(err, &ge) {
		var re *oauth2.RetrieveError
		if errors.As(err, &re) {
			return verdict{kind: fleetscore.Unavailable, err: errors.New("the credentials were refused"), hint: "log in again, or check the file of the key"}
		}
		return judgeNetwork(err)
	}
	text := strings.TrimSpace(ge.Message)
	if text == "" {
		text = http.StatusText(ge.Code)
	}
	a := answer{status: ge.Code, err: fmt.Errorf("%s (HTTP status %d)", text, ge.Code)}
	if ge.Code == http.StatusNotFound && strings.Contains(text, "bucket") {
		return verdict{kind: fleetscore.Invalid, err: a.err, hint: "there is no such bucket: create it, or correct the URL"}
	}
	return judgeStatus(a)
}

// A generation changes with the content, as an ETag does, and a request can ask for
// it.
func gcsInfo(o *storage.Object) Info {
	t, _ := time.Parse(time.RFC3339, o.Updated) // zero if the service gives no time
	return Info{Name: fleetscore.BlobName(o.Name), SizeBytes: int64(o.Size), Modified: t.UTC(), ETag: strconv.FormatInt(o.Generation, 10)}
}

func (s *gcsService) open(ctx context.Context, name string, offset, length int64, etag string) (io.ReadCloser, Info, error) {
	call := s.objects.Get(s.bucket, name).Context(ctx)
	if etag != "" {
		g, err := strconv.ParseInt(etag, 10, 64)
		if err != nil {
			return nil, Info{}, err
		}
		call.Generation(g) // not found after another generation replaced it
	}
	switch {
	case length >= 0:
		call.Header().Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	case offset > 0:
		call.Header().Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := call.Download()
	var ge *googleapi.Error
	if errors.As(err, &ge) && ge.Code == http.StatusRequestedRangeNotSatisfiable {
		return http.NoBody, Info{}, nil
	}
	if err != nil {
		return nil, Info{}, err
	}
	if resp.ContentLength < 0 {
		resp.Body.Close()
		return nil, Info{}, errEncoded
	}
	return resp.Body, Info{SizeBytes: rangeTotal(resp.Header.Get("Content-Range"), resp.ContentLength), ETag: resp.Header.Get("X-Goog-Generation")}, nil
}

func (s *gcsService) stat(ctx context.Context, name string) (Info, string, error) {
	o, err := s.objects.Get(s.bucket, name).Context(ctx).Do()
	if err != nil {
		return Info{}, "", err
	}
	return gcsInfo(o), o.Metadata[markName], nil
}

func (s *gcsService) seeks() bool { return true }

func (s *gcsService) page(ctx context.Context, q listing, token string) ([]Info, string, error) {
	call := s.objects.List(s.bucket).Prefix(q.prefix).PageToken(token).Context(ctx).Fields("items(name,size,updated,generation)", "prefixes", "nextPageToken")
	if q.after != "" {
		call.StartOffset(q.after) // the service includes this name; cloud leaves it out
	}
	if q.max > 0 {
		call.MaxResults(int64(q.max))
	}
	if q.delimiter {
		call.Delimiter("/")
	}
	out, err := call.Do()
	if err != nil {
		return nil, "", err
	}
	infos := make([]Info, 0, len(out.Items)+len(out.Prefixes))
	for _, o := range out.Items {
		infos = append(infos, gcsInfo(o))
	}
	for _, p := range out.Prefixes {
		infos = append(infos, Info{Name: fleetscore.BlobName(p)})
	}
	return infos, out.NextPageToken, nil
}

func gcsObject(p putting) *storage.Object {
	return &storage.Object{Name: p.name, Metadata: map[string]string{markName: p.mark}}
}

func (s *gcsService) put(ctx context.Context, p putting, data []byte) (Info, error) {
	call := s.objects.Insert(s.bucket, gcsObject(p)).Context(ctx).
		Media(bytes.NewReader(data), googleapi.ChunkSize(0), googleapi.ContentType("application/octet-stream")) // in one request
	if p.ifAbsent {
		call.IfGenerationMatch(0)
	}
	o, err := call.Do()
	if err != nil {
		return Info{}, err
	}
	return gcsInfo(o), nil
}

func (s *gcsService) remove(ctx context.Context, name string) error {
	return s.objects.Delete(s.bucket, name).Context(ctx).Do()
}
