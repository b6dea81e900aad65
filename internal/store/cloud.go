package store

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
)

// service is one cloud: single requests, tried once. The names were checked before.
// The errors are those of the SDK; judge says what they mean.
type service interface {
	reads
	writes
	judge(err error) verdict
}

type reads interface {
	// seeks reports whether page can begin at a name.
	seeks() bool
	// open begins to read; a negative length reads to the end. With an ETag the
	// content must still be that one, else Conflict. A range that begins beyond the
	// end gives no bytes.
	open(ctx context.Context, name string, offset, length int64, etag string) (io.ReadCloser, Info, error)
	// stat describes a blob and returns the mark it was put with.
	stat(ctx context.Context, name string) (Info, string, error)
	// page lists one page, in any order within the page; the next page begins at
	// next, and there is none if next is empty. Names up to after may be included or
	// not.
	page(ctx context.Context, q listing, token string) (infos []Info, next string, err error)
}

type writes interface {
	put(ctx context.Context, p putting, data []byte) (Info, error)
	// begin starts a blob that is written in parts.
	begin(ctx context.Context, p putting) (upload, error)
	remove(ctx context.Context, name string) error
}

// putting says how a blob is written. The mark is unique to this Put: it is stored
// beside the blob, so that a writer whose answer was lost recognises its own blob.
type putting struct {
	name     string
	ifAbsent bool
	mark     string
}

// markName is the name of the mark among a blob's metadata; Azure takes letters only.
const markName = "fleetscoreput"

// listing holds the parameters of a listing.
type listing struct {
	prefix, after string
	delimiter     bool
	max           int // entries of a page; 0 leaves it to the service
}

// cloud is a Bucket in a cloud. It adds to single requests what the contract of
// Bucket needs: checks of names, retries, order, parts, one content per reader.
type cloud struct {
	svc   service
	where string        // scheme and bucket, for messages
	page  int           // entries of a page of a listing; 0 leaves it to the service
	pause time.Duration // before the second try
}

func (c *cloud) subject(name fleetscore.BlobName) string { return c.where + "/" + string(name) }

func (c *cloud) ready(ctx context.Context, name fleetscore.BlobName) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return CheckName(name)
}

// check checks that the bucket can be listed.
func (c *cloud) check(ctx context.Context) error {
	_, _, err := c.list(ctx, "open store", listing{prefix: tempFolder + "/"}, "")
	return err
}

// list asks for a page. Not found means that the bucket is missing.
func (c *cloud) list(ctx context.Context, op string, q listing, token string) (infos []Info, next string, err error) {
	err = c.limited(ctx, op, fleetscore.BlobName(q.prefix), func(ctx context.Context) (err error) {
		infos, next, err = c.svc.page(ctx, q, token)
		return err
	})
	if fleetscore.NotFound.Is(err) {
		err = fleetscore.Errorf(fleetscore.Invalid, op, c.where, "there is no such bucket").WithHint("create it, or correct the URL")
	}
	return infos, next, err
}

// Get reads a range; see Bucket.
func (c *cloud) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	if err := c.ready(ctx, name); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "read", c.subject(name), "negative offset %d", offset)
	}
	if length == 0 {
		_, err := c.Stat(ctx, name)
		return io.NopCloser(strings.NewReader("")), err
	}
	r := &reader{ctx: ctx, c: c, name: name, next: offset, left: length}
	return r, r.open()
}

// Stat describes a blob; see Bucket.
func (c *cloud) Stat(ctx context.Context, name fleetscore.BlobName) (Info, error) {
	i, _, err := c.stat(ctx, name)
	return i, err
}

func (c *cloud) stat(ctx context.Context, name fleetscore.BlobName) (i Info, mark string, err error) {
	if err := c.ready(ctx, name); err != nil {
		return Info{}, "", err
	}
	err = c.limited(ctx, "look up", name, func(ctx context.Context) (err error) {
		i, mark, err = c.svc.stat(ctx, string(name))
		return err
	})
	i.Name = name
	return i, mark, err
}

// Delete removes a blob; see Bucket.
func (c *cloud) Delete(ctx context.Context, name fleetscore.BlobName) error {
	if err := c.ready(ctx, name); err != nil {
		return err
	}
	err := c.limited(ctx, "delete", name, func(ctx context.Context) error { return c.svc.remove(ctx, string(name)) })
	if fleetscore.NotFound.Is(err) {
		return nil
	}
	return err
}

// Put writes a blob, in one request if it is small; see Bucket.
func (c *cloud) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt PutOptions) (Info, error) {
	if err := c.ready(ctx, name); err != nil {
		return Info{}, err
	}
	p := putting{name: string(name), ifAbsent: opt.IfAbsent, mark: rand.Text()}
	body = ctxReader{ctx, body}
	first, last, err := readPart(body, partBytes(0))
	if err != nil {
		return Info{}, c.bodyError(ctx, name, err)
	}
	var info Info
	if last {
		err = c.limited(ctx, "write", name, func(ctx context.Context) (err error) {
			info, err = c.svc.put(ctx, p, first)
			return err
		})
		info.SizeBytes = int64(len(first))
	} else {
		info, err = c.putParts(ctx, p, first, body)
	}
	if fleetscore.Conflict.Is(err) && p.ifAbsent {
		// Another writer was first, or an earlier try of ours whose answer was lost.
		if have, mark, e := c.stat(ctx, name); e == nil && mark == p.mark {
			return have, nil
		}
	}
	info.Name = name
	return info, err
}

// bodyError is the error of a body that can't be read to its end.
func (c *cloud) bodyError(ctx context.Context, name fleetscore.BlobName, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fleetscore.Wrap("write", c.subject(name), err)
}

// List reads one page after another; see Bucket.
func (c *cloud) List(ctx context.Context, prefix string, opt ListOptions) iter.Seq2[Info, error] {
	after := string(opt.After)
	switch {
	case after < prefix:
		return c.pages(ctx, listing{prefix: prefix, delimiter: opt.Delimiter})
	case !strings.HasPrefix(after, prefix):
		return func(func(Info, error) bool) {} // all names with the prefix come earlier in the order
	case opt.Delimiter || c.svc.seeks():
		return c.pages(ctx, listing{prefix: prefix, after: after, delimiter: opt.Delimiter})
	}
	return c.seek(ctx, prefix, after)
}

// seek lists the names after a given name for a service that can't begin at a name.
// It goes folder by folder, so that the content of earlier folders is never read.
func (c *cloud) seek(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for i, err := range c.pages(ctx, listing{prefix: prefix, delimiter: true}) {
			n := string(i.Name)
			inside := iter.Seq2[Info, error](func(yield func(Info, error) bool) { yield(i, err) })
			switch isFolder := strings.HasSuffix(n, "/"); {
			case err != nil:
			case isFolder && strings.HasPrefix(after, n):
				inside = c.seek(ctx, n, after)
			case n <= after:
				continue
			case isFolder:
				inside = c.pages(ctx, listing{prefix: n})
			}
			for i, err := range inside {
				if !yield(i, err) || err != nil {
					return
				}
			}
		}
	}
}

var errOrder = errors.New("the service lists out of order")

// pages lists one page after another. Services sort by UTF-8 bytes or in a similar
// order. So each page is sorted again, and a wrong order between pages is an error,
// because readers depend on the order.
func (c *cloud) pages(ctx context.Context, q listing) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		asked := listing{wholeRunes(q.prefix), wholeRunes(q.after), q.delimiter, c.page}
		last, token := q.after, ""
		for {
			infos, next, err := c.list(ctx, "list", asked, token)
			if err != nil {
				yield(Info{}, err)
				return
			}
			slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(string(a.Name), string(b.Name)) })
			for _, i := range infos {
				n := string(i.Name)
				if n <= q.after || n == last || !strings.HasPrefix(n, q.prefix) || isMarker(i, q) { // a folder may continue from the previous page
					continue
				}
				if n < last {
					yield(Info{}, fleetscore.Errorf(fleetscore.Internal, "list", c.subject(i.Name), "%w", errOrder).
						WithHint("docs/decisions/0005-clouds.md says which services are supported"))
					return
				}
				last = n
				if ctx.Err() != nil {
					yield(Info{}, ctx.Err())
					return
				}
				if !yield(i, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			token = next
		}
	}
}

// wholeRunes cuts off an incomplete rune, which a request to a service can't contain.
func wholeRunes(s string) string {
	for s != "" && !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// isMarker recognises the empty blob that some tools make for a folder.
func isMarker(i Info, q listing) bool {
	n := string(i.Name)
	return strings.HasSuffix(n, "/") && (!q.delimiter || n == q.prefix)
}

// upload is a blob that is written in parts. Nothing is visible before commit.
type upload interface {
	lanes() int // parts that may be sent at once; 1 means in order
	part(ctx context.Context, number int, data []byte) error
	commit(ctx context.Context, parts int) (Info, error)
	abort(ctx context.Context) // deletes the parts; if this fails, the service deletes them later
}

// Parts grow, so that S3's limit of 10,000 parts allows 440 GiB while small blobs
// need little memory: a Put holds one part per lane and one more.
const maxParts = 10_000

func partBytes(number int) int { return 8 << 20 * (1 + number/1000) }

// readPart reads up to n bytes; last reports that the body ended.
func readPart(body io.Reader, n int) (data []byte, last bool, err error) {
	data, err = io.ReadAll(io.LimitReader(body, int64(n)))
	return data, len(data) < n, err
}

// abortLimit bounds the cleaning up after an upload that failed.
const abortLimit = 30 * time.Second

func (c *cloud) putParts(ctx context.Context, p putting, data []byte, body io.Reader) (info Info, err error) {
	name := fleetscore.BlobName(p.name)
	var up upload
	if err := c.limited(ctx, "write", name, func(ctx context.Context) (err error) {
		up, err = c.svc.begin(ctx, p)
		return err
	}); err != nil {
		return Info{}, err
	}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortLimit)
			defer cancel()
			up.abort(ctx)
		}
	}()
	group, child := errgroup.WithContext(ctx)
	group.SetLimit(up.lanes())
	number, size := 0, int64(0)
	var bodyErr error
	for last := false; child.Err() == nil; {
		number++
		size += int64(len(data))
		n, part := number, data
		group.Go(func() error {
			return c.try(child, "write", name, func(ctx context.Context) error { return up.part(ctx, n, part) })
		})
		if last {
			break
		}
		if data, last, bodyErr = readPart(body, partBytes(number)); bodyErr != nil || last && len(data) == 0 {
			break
		}
		if number == maxParts {
			bodyErr = fleetscore.Errorf(fleetscore.Exhausted, "write", c.subject(name), "the blob is larger than %d bytes", size).WithHint("split the content into several blobs")
			break
		}
	}
	if err := group.Wait(); err != nil {
		return Info{}, err
	}
	if bodyErr != nil {
		return Info{}, c.bodyError(ctx, name, bodyErr)
	}
	err = c.try(ctx, "write", name, func(ctx context.Context) (err error) {
		info, err = up.commit(ctx, number)
		return err
	})
	info.SizeBytes = size
	return info, err
}
