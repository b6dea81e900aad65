//go:build !noclouds

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"

	"github.com/fleetscore/fleetscore"
)

// s3Service is S3, or a server that speaks its protocol.
type s3Service struct {
	client *s3.Client
	bucket *string
}

// credentialLimit bounds the search for credentials, which may ask the machine's
// own metadata service.
const credentialLimit = 20 * time.Second

func openS3(ctx context.Context, a *address) (service, error) {
	subject := "s3://" + a.bucket
	options := []func(*config.LoadOptions) error{
		config.WithLogger(logging.Nop{}),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }), // cloud.try retries
	}
	if r := a.query.Get("region"); r != "" {
		options = append(options, config.WithRegion(r))
	}
	if p := a.query.Get("profile"); p != "" {
		options = append(options, config.WithSharedConfigProfile(p))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "open store", subject, "%w", err).
			WithHint("check the AWS_ variables and the files ~/.aws/config and ~/.aws/credentials")
	}
	find, cancel := context.WithTimeout(ctx, credentialLimit)
	defer cancel()
	if cfg.Credentials == nil {
		err = errors.New("no credentials were found")
	} else {
		_, err = cfg.Credentials.Retrieve(find)
	}
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "find credentials", subject, "%w", err).
			WithHint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile (?profile= or AWS_PROFILE), or give the machine a role")
	}
	// The SDK's own client uses AWS_CA_BUNDLE; our client for the requests is built
	// on it.
	transport := http.DefaultTransport.(*http.Transport)
	if b, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		transport = b.GetTransport()
	}
	foreign := false
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if e := a.query.Get("endpoint"); e != "" {
			o.BaseEndpoint = &e
		}
		foreign = o.BaseEndpoint != nil // this includes AWS_ENDPOINT_URL and similar variables
		o.UsePathStyle = foreign
		if p := a.query.Get("path_style"); p != "" {
			o.UsePathStyle = p == "true"
		}
		if foreign { // other servers may not support the newer checksums
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
			if o.Region == "" {
				o.Region = "us-east-1"
			}
		}
		o.HTTPClient = newHTTPClient(transport)
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	if client.Options().Region == "" {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "open store", subject, "the store's region is unknown").
			WithHint("add ?region=eu-central-1 (or the bucket's own region) to the URL, or set AWS_REGION")
	}
	return &s3Service{client, &a.bucket}, nil
}

func (s *s3Service) judge(err error) verdict {
	a := answer{err: err}
	var re *awshttp.ResponseError
	if errors.As(err, &re) {
		a.status = re.HTTPStatusCode()
	}
	var ae smithy.APIError
	if errors.As(err, &ae) {
		a.code = ae.ErrorCode()
		a.err = fmt.Errorf("%s: %s", a.code, ae.ErrorMessage())
		if ae.ErrorMessage() == "" || a.code == ae.ErrorMessage() {
			a.err = fmt.Errorf("%s (HTTP status %d)", a.code, a.status)
		}
	}
	switch a.code {
	case "NoSuchBucket":
		return verdict{kind: fleetscore.Invalid, err: a.err, hint: "there is no such bucket: create it, or correct the URL"}
	case "NoSuchUpload": // the commit was carried out and its answer lost, or the upload was deleted
		return verdict{kind: fleetscore.Conflict, err: a.err}
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		return verdict{kind: fleetscore.Invalid, err: a.err, hint: "the bucket is in another region: add ?region= to the URL or set AWS_REGION"}
	case "ConditionalRequestConflict", "OperationAborted", "SlowDown", "RequestTimeout":
		return verdict{kind: fleetscore.Unavailable, again: true, err: a.err, hint: "the service is busy; Fleetscore tries again by itself"}
	case "RequestTimeTooSkewed":
		return verdict{kind: fleetscore.Unavailable, err: a.err, hint: "this machine's clock is wrong: set it"}
	case "ExpiredToken", "ExpiredTokenException":
		return verdict{kind: fleetscore.Unavailable, err: a.err, hint: "the credentials have expired: renew them"}
	case "QuotaExceeded":
		return verdict{kind: fleetscore.Exhausted, err: a.err, hint: "the bucket's quota is used up"}
	}
	if a.status == 0 && a.code == "" {
		a.err = errors.Unwrap(err) // leave out the SDK's text
		var oe *smithy.OperationError
		if errors.As(err, &oe) {
			a.err = oe.Err
		}
	}
	return judgeStatus(a)
}

func unquote(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }

func (s *s3Service) open(ctx context.Context, name string, offset, length int64, etag string) (io.ReadCloser, Info, error) {
	in := &s3.GetObjectInput{Bucket: s.bucket, Key: &name}
	switch {
	case length >= 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	case offset > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	if etag != "" {
		in.IfMatch = aws.String(`"` + etag + `"`)
	}
	out, err := s.client.GetObject(ctx, in)
	var re *awshttp.ResponseError
	if errors.As(err, &re) && re.HTTPStatusCode() == http.StatusRequestedRangeNotSatisfiable {
		return http.NoBody, Info{}, nil
	}
	if err != nil {
		return nil, Info{}, err
	}
	size := aws.ToInt64(out.ContentLength)
	if in.Range != nil {
		size = rangeTotal(aws.ToString(out.ContentRange), size)
	}
	return out.Body, Info{SizeBytes: size, ETag: unquote(out.ETag)}, nil
}

// rangeTotal is the size in "bytes 3-5/10"; other if it can't be read.
func rangeTotal(header string, other int64) int64 {
	_, total, _ := strings.Cut(header, "/")
	if n, err := strconv.ParseInt(total, 10, 64); err == nil {
		return n
	}
	return other
}

func (s *s3Service) stat(ctx context.Context, name string) (Info, string, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: s.bucket, Key: &name})
	if err != nil {
		return Info{}, "", err
	}
	return Info{SizeBytes: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified).UTC(), ETag: unquote(out.ETag)}, out.Metadata[markName], nil
}

func (s *s3Service) seeks() bool { return true }

func (s *s3Service) page(ctx context.Context, q listing, token string) ([]Info, string, error) {
	in := &s3.ListObjectsV2Input{Bucket: s.bucket, Prefix: &q.prefix}
	if q.delimiter {
		in.Delimiter = aws.String("/")
	}
	if q.max > 0 {
		in.MaxKeys = aws.Int32(int32(q.max))
	}
	if token != "" {
		in.ContinuationToken = &token
	} else if q.after != "" {
		in.StartAfter = &q.after
	}
	out, err := s.client.ListObjectsV2(ctx, in)
	if err != nil {
		return nil, "", err
	}
	infos := make([]Info, 0, len(out.Contents)+len(out.CommonPrefixes))
	for _, o := range out.Contents {
		infos = append(infos, Info{Name: fleetscore.BlobName(aws.ToString(o.Key)), SizeBytes: aws.ToInt64(o.Size),
			Modified: aws.ToTime(o.LastModified).UTC(), ETag: unquote(o.ETag)})
	}
	for _, p := range out.CommonPrefixes {
		infos = append(infos, Info{Name: fleetscore.BlobName(aws.ToString(p.Prefix))})
	}
	return infos, aws.ToString(out.NextContinuationToken), nil
}

func ifAbsentHeader(p putting) *string {
	if p.ifAbsent {
		return aws.String("*")
	}
	return nil
}

func (s *s3Service) put(ctx context.Context, p putting, data []byte) (Info, error) {
	out, err := s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: s.bucket, Key: &p.name, Body: bytes.NewReader(data),
		ContentLength: aws.Int64(int64(len(data))), IfNoneMatch: ifAbsentHeader(p), Metadata: map[string]string{markName: p.mark}})
	if err != nil {
		return Info{}, err
	}
	return Info{Modified: time.Now().UTC(), ETag: unquote(out.ETag)}, nil
}

func (s *s3Service) remove(ctx context.Context, name string) error {
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: s.bucket, Key: &name})
	return err
}

func (s *s3Service) begin(ctx context.Context, p putting) (upload, error) {
	out, err := s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: s.bucket, Key: &p.name, Metadata: map[string]string{markName: p.mark}})
	if err != nil {
		return nil, err
	}
	return &s3Upload{s: s, p: p, id: out.UploadId}, nil
}

// s3Upload is a multipart upload. An upload that is never committed costs money until
// it is aborted or the bucket's lifecycle rule removes it.
type s3Upload struct {
	s  *s3Service
	p  putting
	id *string

	mu    sync.Mutex // guards parts
	parts []types.CompletedPart
}

func (u *s3Upload) lanes() int { return 3 }

func (u *s3Upload) part(ctx context.Context, number int, data []byte) error {
	n := int32(number)
	out, err := u.s.client.UploadPart(ctx, &s3.UploadPartInput{Bucket: u.s.bucket, Key: &u.p.name, UploadId: u.id, PartNumber: &n,
		Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data)))})
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.parts = append(u.parts, types.CompletedPart{ETag: out.ETag, PartNumber: &n, ChecksumCRC32: out.ChecksumCRC32})
	return nil
}

func (u *s3Upload) commit(ctx context.Context, _ int) (Info, error) {
	slices.SortFunc(u.parts, func(a, b types.CompletedPart) int { return int(*a.PartNumber - *b.PartNumber) })
	out, err := u.s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: u.s.bucket, Key: &u.p.name, UploadId: u.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts}, IfNoneMatch: ifAbsentHeader(u.p)})
	if err != nil {
		return Info{}, err
	}
	return Info{Modified: time.Now().UTC(), ETag: unquote(out.ETag)}, nil
}

func (u *s3Upload) abort(ctx context.Context) {
	// An upload that can't be aborted is left to the bucket's lifecycle rule.
	_, _ = u.s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: u.s.bucket, Key: &u.p.name, UploadId: u.id})
}
