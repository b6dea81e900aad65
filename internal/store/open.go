package store

import (
	"context"
	"crypto/rand"
	"net/url"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
)

const supported = "supported: a plain path, file:///folder, s3://bucket/prefix, azblob://container/prefix, gs://bucket/prefix"

// Open opens the bucket at a URL: a plain path or "file:///folder",
// "s3://bucket/prefix", "azblob://container/prefix", "gs://bucket/prefix";
// docs/configuration.md has the parameters. Credentials come from the places where
// each cloud's own tools look for them, never from the URL. Open checks that a
// cloud's bucket exists and can be listed, so that it reports a wrong address or a
// missing right.
func Open(ctx context.Context, address string) (Bucket, error) {
	if !strings.Contains(address, "://") {
		return OpenDir(address)
	}
	a, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	if a.scheme == "file" {
		return OpenDir(a.path)
	}
	var svc service
	switch a.scheme {
	case "s3":
		svc, err = openS3(ctx, &a)
	case "azblob":
		svc, err = openAzure(ctx, &a)
	case "gs":
		svc, err = openGCS(ctx, &a)
	}
	if err != nil {
		return nil, err
	}
	c := &cloud{svc: svc, where: a.scheme + "://" + a.bucket, pause: firstPause}
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	return Sub(c, a.path), nil
}

// IsLocal reports whether the address is a folder of this machine.
func IsLocal(address string) bool {
	return !strings.Contains(address, "://") || strings.HasPrefix(address, "file://")
}

// CheckURL checks an address without opening it.
func CheckURL(address string) error {
	if !strings.Contains(address, "://") {
		return nil
	}
	_, err := parseAddress(address)
	return err
}

// address holds the parts of a store's URL.
type address struct {
	scheme, bucket string
	path           string // of a cloud: the prefix without outer slashes; of a directory: the folder
	query          url.Values
}

// parameters that each cloud's URL may carry.
var parameters = map[string][]string{
	"file":   nil,
	"s3":     {"endpoint", "path_style", "profile", "region"},
	"azblob": {"account", "endpoint"},
	"gs":     {"endpoint"},
}

func parseAddress(text string) (address, error) {
	bad := func(subject, why, hint string, args ...any) (address, error) {
		return address{}, fleetscore.Errorf(fleetscore.Invalid, "open store", subject, "%s", why).WithHint(hint, args...)
	}
	u, err := url.Parse(text)
	if err != nil {
		return bad("", "the URL can't be read", supported)
	}
	subject := u.Scheme + "://" + u.Host + u.Path
	if u.User != nil {
		return bad(subject, "the URL holds credentials", "remove them: credentials are read from the environment or from the cloud's own files (docs/configuration.md)")
	}
	known, ok := parameters[u.Scheme]
	if !ok {
		return bad(subject, "no engine for "+u.Scheme+"://", supported)
	}
	a := address{scheme: u.Scheme, bucket: u.Host, path: strings.Trim(u.Path, "/"), query: u.Query()}
	for name := range a.query {
		if !slices.Contains(known, name) {
			hint := "this URL takes no parameters"
			if len(known) > 0 {
				hint = "the known parameters are " + strings.Join(known, ", ")
			}
			return bad(subject, "unknown parameter "+name, "%s", hint)
		}
	}
	switch {
	case u.Fragment != "":
		return bad(subject, "the URL holds a #", "write it as %%23")
	case u.Scheme == "file" && (u.Host != "" || !strings.HasPrefix(u.Path, "/")):
		return bad(subject, "the path is not absolute", "write file:///folder")
	case u.Scheme == "file":
		a.path = u.Path
		return a, nil
	case u.Host == "":
		return bad(subject, "the URL names no bucket", supported)
	case len(a.path) > 100:
		return bad(subject, "the prefix is longer than 100 bytes", "choose a shorter prefix, because names below it may be long")
	}
	if a.path != "" {
		if err := CheckName(fleetscore.BlobName(a.path)); err != nil {
			return a, err
		}
	}
	if e := a.query.Get("endpoint"); e != "" {
		if p, err := url.Parse(e); err != nil || p.Scheme != "http" && p.Scheme != "https" || p.Host == "" || p.User != nil || p.RawQuery != "" {
			return bad(subject, "the endpoint is not a plain http or https URL", "write for example endpoint=http://127.0.0.1:9000")
		}
	}
	return a, nil
}

// Probe checks that a bucket can be written and honours IfAbsent, which commits
// depend on. Not every server that speaks S3 does. Probe removes what it writes.
func Probe(ctx context.Context, b Bucket) error {
	name := fleetscore.BlobName("_probe/" + rand.Text())
	if err := WriteAll(ctx, b, name, []byte("one"), PutOptions{IfAbsent: true}); err != nil {
		return err
	}
	err := WriteAll(ctx, b, name, []byte("two"), PutOptions{IfAbsent: true})
	if e := b.Delete(ctx, name); e != nil {
		return e
	}
	switch {
	case fleetscore.Conflict.Is(err):
		return nil
	case err != nil:
		return err
	}
	return fleetscore.Errorf(fleetscore.Invalid, "probe store", string(name), "the second of two conditional writes succeeded").
		WithHint("this server doesn't honour conditional writes, so two commits could both succeed; use a server that does")
}
