//go:build !noclouds

package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/api/googleapi"
	"google.golang.org/api/storage/v1"
)

// begin starts a resumable upload (the JSON interface's "resumable uploads"). The
// library's own upload repeats without limit.
func (s *gcsService) begin(ctx context.Context, p putting) (upload, error) {
	q := url.Values{"uploadType": {"resumable"}, "name": {p.name}}
	if p.ifAbsent {
		q.Set("ifGenerationMatch", "0")
	}
	meta, err := json.Marshal(gcsObject(p))
	if err != nil {
		return nil, err
	}
	resp, err := s.ask(ctx, http.MethodPost, s.uploads+"?"+q.Encode(), "", meta)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := googleapi.CheckResponse(resp); err != nil {
		return nil, err
	}
	return &gcsUpload{s: s, session: resp.Header.Get("Location")}, nil
}

func (s *gcsService) ask(ctx context.Context, method, address, contentRange string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentRange != "" {
		req.Header.Set("Content-Range", contentRange)
	} else {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Upload-Content-Type", "application/octet-stream")
	}
	return s.client.Do(req)
}

// gcsUpload sends pieces in order. Only the last piece may have any length, so each
// piece is kept until the next one comes. Nothing is visible before the last piece
// has arrived; the service deletes unfinished uploads after a week.
type gcsUpload struct {
	s       *gcsService
	session string
	waiting []byte // the part that wasn't sent yet, or perhaps not completely
	number  int    // its number
	offset  int64  // where it begins
	unsure  bool   // a try to send it failed
}

func (u *gcsUpload) lanes() int { return 1 }

func (u *gcsUpload) part(ctx context.Context, number int, data []byte) error {
	if number == u.number {
		return nil // this is another try for the part that already waits
	}
	if u.waiting != nil {
		if _, _, err := u.send(ctx, "*"); err != nil {
			return err
		}
		u.offset += int64(len(u.waiting))
	}
	u.waiting, u.number = data, number
	return nil
}

func (u *gcsUpload) commit(ctx context.Context, _ int) (Info, error) {
	info, whole, err := u.send(ctx, strconv.FormatInt(u.offset+int64(len(u.waiting)), 10))
	if err == nil && !whole {
		err = fmt.Errorf("the service asks for more bytes than there are: %w", io.ErrUnexpectedEOF)
	}
	return info, err
}

// send sends the waiting part, or the rest of it that the service doesn't have. The
// total is "*" while it isn't known. whole reports that the blob is complete.
func (u *gcsUpload) send(ctx context.Context, total string) (info Info, whole bool, err error) {
	have := u.offset
	if u.unsure {
		if info, whole, have, err = u.exchange(ctx, "bytes */"+total, nil); err != nil || whole {
			return info, whole, err
		}
	}
	end := u.offset + int64(len(u.waiting))
	if have < u.offset || have > end {
		return Info{}, false, fmt.Errorf("the service has %d bytes of a part from %d to %d: %w", have, u.offset, end, io.ErrUnexpectedEOF)
	}
	if have == end && total == "*" {
		u.unsure = false
		return Info{}, false, nil
	}
	contentRange := fmt.Sprintf("bytes %d-%d/%s", have, end-1, total)
	if have == end {
		contentRange = "bytes */" + total
	}
	u.unsure = true
	info, whole, have, err = u.exchange(ctx, contentRange, u.waiting[have-u.offset:])
	if err == nil && !whole && have != end {
		err = fmt.Errorf("the service took %d bytes of %d: %w", have, end, io.ErrUnexpectedEOF)
	}
	if err == nil {
		u.unsure = false
	}
	return info, whole, err
}

// exchange is one request of a session: either the blob is complete now, or the
// service says how many bytes it has.
func (u *gcsUpload) exchange(ctx context.Context, contentRange string, body []byte) (info Info, whole bool, have int64, err error) {
	resp, err := u.s.ask(ctx, http.MethodPut, u.session, contentRange, body)
	if err != nil {
		return Info{}, false, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusPermanentRedirect { // "resume incomplete"
		if _, last, ok := strings.Cut(resp.Header.Get("Range"), "-"); ok {
			have, err = strconv.ParseInt(last, 10, 64)
			have++
		}
		return Info{}, false, have, err
	}
	if err := googleapi.CheckResponse(resp); err != nil {
		return Info{}, false, 0, err
	}
	var o storage.Object
	if err := json.NewDecoder(resp.Body).Decode(&o); err != nil {
		return Info{}, false, 0, err
	}
	return gcsInfo(&o), true, 0, nil
}

// abort deletes the session; if that fails, the service deletes it later.
func (u *gcsUpload) abort(ctx context.Context) {
	if resp, err := u.s.ask(ctx, http.MethodDelete, u.session, "bytes */*", nil); err == nil {
		resp.Body.Close()
	}
}
