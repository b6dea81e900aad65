//go:build !noclouds

package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/fleetscore/fleetscore"
)

// azureService is a container of Azure Blob Storage, or of Azurite.
type azureService struct{ client *container.Client }

func openAzure(_ context.Context, a *address) (service, error) {
	subject := "azblob://" + a.bucket
	options := &container.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: defaultHTTPClient(),
		Retry:     policy.RetryOptions{MaxRetries: -1}, // cloud.try retries
	}}
	client, err := azureClient(a, options)
	if err != nil {
		var known *fleetscore.Error
		if errors.As(err, &known) {
			return nil, err
		}
		// The SDK's message may contain a connection string.
		return nil, fleetscore.Errorf(fleetscore.Invalid, "open store", subject, "the store's address or credentials can't be read").
			WithHint("check the URL's endpoint and the AZURE_STORAGE_ variables")
	}
	return &azureService{client}, nil
}

// azureClient finds credentials as Azure's own command line does: a connection
// string, an account's key, a shared access signature, else an identity.
func azureClient(a *address, options *container.ClientOptions) (*container.Client, error) {
	if cs := os.Getenv("AZURE_STORAGE_CONNECTION_STRING"); cs != "" && len(a.query) == 0 {
		return container.NewClientFromConnectionString(cs, a.bucket, options)
	}
	account, endpoint := a.query.Get("account"), a.query.Get("endpoint")
	if account == "" {
		account = os.Getenv("AZURE_STORAGE_ACCOUNT")
	}
	if endpoint == "" {
		endpoint = os.Getenv("AZURE_STORAGE_ENDPOINT")
	}
	if endpoint == "" && account == "" {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "open store", "azblob://"+a.bucket, "the storage account is unknown").
			WithHint("add ?account=NAME to the URL, or set AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING")
	}
	if endpoint == "" {
		endpoint = "https://" + account + ".blob.core.windows.net"
	}
	address := strings.TrimSuffix(endpoint, "/") + "/" + a.bucket
	if key := os.Getenv("AZURE_STORAGE_KEY"); key != "" {
		cred, err := container.NewSharedKeyCredential(account, key)
		if err != nil {
			return nil, err
		}
		return container.NewClientWithSharedKeyCredential(address, cred, options)
	}
	if sas := os.Getenv("AZURE_STORAGE_SAS_TOKEN"); sas != "" {
		return container.NewClientWithNoCredential(address+"?"+strings.TrimPrefix(sas, "?"), options)
	}
	cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: policy.ClientOptions{Transport: options.Transport}})
	if err != nil {
		return nil, err
	}
	return container.NewClient(address, cred, options)
}

func (s *azureService) judge(err error) verdict {
	var re *azcore.ResponseError
	if !errors.As(err, &re) {
		var auth *azidentity.AuthenticationFailedError
		var required interface{ NonRetriable() }
		if errors.As(err, &auth) || errors.As(err, &required) {
			return verdict{kind: fleetscore.Unavailable, err: errors.New("no credentials were found, or they were refused"),
				hint: "set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING, log in with Azure's command line, or give the machine an identity"}
		}
		return judgeNetwork(err)
	}
	a := answer{status: re.StatusCode, code: re.ErrorCode, err: fmt.Errorf("%s (HTTP status %d)", re.ErrorCode, re.StatusCode)}
	if re.ErrorCode == "" {
		a.err = fmt.Errorf("HTTP status %d", re.StatusCode)
	}
	switch a.code {
	case "ContainerNotFound":
		return verdict{kind: fleetscore.Invalid, err: a.err, hint: "there is no such container: create it, or correct the URL"}
	case "ContainerBeingDeleted", "ServerBusy", "OperationTimedOut":
		return verdict{kind: fleetscore.Unavailable, again: true, err: a.err, hint: "the service is busy; Fleetscore tries again by itself"}
	case "AccountIsDisabled", "LeaseIdMissing", "BlobImmutableDueToPolicy":
		return verdict{kind: fleetscore.Unavailable, err: a.err, hint: "the account or blob is locked: check its settings"}
	case "InvalidResourceName":
		return verdict{kind: fleetscore.Invalid, err: a.err, hint: "a container's name has 3 to 63 of a-z, 0-9 and -"}
	}
	return judgeStatus(a)
}

func azureETag(e *azcore.ETag) string {
	if e == nil {
		return ""
	}
	return strings.Trim(string(*e), `"`)
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func (s *azureService) open(ctx context.Context, name string, offset, length int64, etag string) (io.ReadCloser, Info, error) {
	in := &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: offset, Count: max(length, 0)}} // a count of 0 reads to the end
	if etag != "" {
		e := azcore.ETag(`"` + etag + `"`)
		in.AccessConditions = &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &e}}
	}
	out, err := s.client.NewBlobClient(name).DownloadStream(ctx, in)
	var re *azcore.ResponseError
	if errors.As(err, &re) && re.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return http.NoBody, Info{}, nil
	}
	if err != nil {
		return nil, Info{}, err
	}
	return out.Body, Info{SizeBytes: rangeTotal(value(out.ContentRange), value(out.ContentLength)), ETag: azureETag(out.ETag)}, nil
}

func (s *azureService) stat(ctx context.Context, name string) (Info, string, error) {
	out, err := s.client.NewBlobClient(name).GetProperties(ctx, nil)
	if err != nil {
		return Info{}, "", err
	}
	mark := ""
	for k, v := range out.Metadata { // header names may have upper or lower case
		if strings.EqualFold(k, markName) {
			mark = value(v)
		}
	}
	return Info{SizeBytes: value(out.ContentLength), Modified: value(out.LastModified).UTC(), ETag: azureETag(out.ETag)}, mark, nil
}

// The service can begin at a name (StartFrom) only in its newest versions, and
// doesn't document what this means below a prefix.
func (s *azureService) seeks() bool { return false }

func (s *azureService) page(ctx context.Context, q listing, token string) (infos []Info, next string, err error) {
	var marker *string
	if token != "" {
		marker = &token
	}
	var most *int32
	if n := int32(q.max); n > 0 {
		most = &n
	}
	var items []*container.BlobItem
	if q.delimiter {
		pager := s.client.NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{Prefix: &q.prefix, Marker: marker, MaxResults: most})
		out, err := pager.NextPage(ctx)
		if err != nil {
			return nil, "", err
		}
		for _, p := range out.Segment.BlobPrefixes {
			infos = append(infos, Info{Name: fleetscore.BlobName(value(p.Name))})
		}
		items, next = out.Segment.BlobItems, value(out.NextMarker)
	} else {
		pager := s.client.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &q.prefix, Marker: marker, MaxResults: most})
		out, err := pager.NextPage(ctx)
		if err != nil {
			return nil, "", err
		}
		items, next = out.Segment.BlobItems, value(out.NextMarker)
	}
	for _, b := range items {
		if p := b.Properties; p != nil && value(p.ResourceType) != "directory" { // accounts with a hierarchy list folders too
			infos = append(infos, Info{Name: fleetscore.BlobName(value(b.Name)), SizeBytes: value(p.ContentLength),
				Modified: value(p.LastModified).UTC(), ETag: azureETag(p.ETag)})
		}
	}
	return infos, next, nil
}

func azureConditions(p putting) *blob.AccessConditions {
	if !p.ifAbsent {
		return nil
	}
	none := azcore.ETagAny
	return &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: &none}}
}

func bodyOf(data []byte) io.ReadSeekCloser { return streaming.NopCloser(bytes.NewReader(data)) }

func (s *azureService) put(ctx context.Context, p putting, data []byte) (Info, error) {
	out, err := s.client.NewBlockBlobClient(p.name).Upload(ctx, bodyOf(data),
		&blockblob.UploadOptions{AccessConditions: azureConditions(p), Metadata: map[string]*string{markName: &p.mark}})
	if err != nil {
		return Info{}, err
	}
	return Info{Modified: value(out.LastModified).UTC(), ETag: azureETag(out.ETag)}, nil
}

func (s *azureService) remove(ctx context.Context, name string) error {
	_, err := s.client.NewBlobClient(name).Delete(ctx, nil)
	return err
}

func (s *azureService) begin(_ context.Context, p putting) (upload, error) {
	return &azureUpload{s.client.NewBlockBlobClient(p.name), p}, nil
}

// azureUpload stages blocks, which the service deletes after a week if no list of
// blocks names them. The mark makes its blocks differ from those of other writers of
// the same blob.
type azureUpload struct {
	client *blockblob.Client
	p      putting
}

func (u *azureUpload) lanes() int { return 3 }

func (u *azureUpload) id(number int) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s-%06d", u.p.mark, number))
}

func (u *azureUpload) part(ctx context.Context, number int, data []byte) error {
	_, err := u.client.StageBlock(ctx, u.id(number), bodyOf(data), nil)
	return err
}

func (u *azureUpload) commit(ctx context.Context, parts int) (Info, error) {
	ids := make([]string, parts)
	for i := range ids {
		ids[i] = u.id(i + 1)
	}
	out, err := u.client.CommitBlockList(ctx, ids, &blockblob.CommitBlockListOptions{AccessConditions: azureConditions(u.p), Metadata: map[string]*string{markName: &u.p.mark}})
	if err != nil {
		return Info{}, err
	}
	modified := time.Now()
	if out.LastModified != nil {
		modified = *out.LastModified
	}
	return Info{Modified: modified.UTC(), ETag: azureETag(out.ETag)}, nil
}

func (u *azureUpload) abort(context.Context) {}
