// Package versions keeps what was pushed into fleets' folders of models, so that each push
// can be looked at and taken back.
//
// A version is a set of changes: files with their digests before and after. The contents of both are
// kept by digest. A version is recorded before its files are put in place, and
// marked as done after; so a version that was interrupted is completed by Finish, and no
// reader of the record sees half of one. What is put into the folder by other ways isn't
// lost either: the content before a push is kept.
//
// One caller at a time works on a fleet; of two that try at the same time on different
// servers, one is refused with kind Conflict.
package versions

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Kept is how many of the newest versions of a fleet are kept.
const Kept = 100

// FileChange is a file that a version put into the folder, or removed.
type FileChange struct {
	Name   string `json:"name"`
	Before string `json:"before,omitempty" doc:"SHA-256 of the content before; empty if there was none"`
	After  string `json:"after,omitempty" doc:"SHA-256 of the content since then; empty if the file was removed"`
}

// Version is one push or rollback.
type Version struct {
	Number     int          `json:"version"`
	Created    time.Time    `json:"created"`
	Author     string       `json:"author,omitempty"`
	Message    string       `json:"message,omitempty"`
	RollbackTo *int         `json:"rollback_to,omitempty" doc:"the version whose files this one brought back; 0 is the time before the first push"`
	Files      int          `json:"files" doc:"files that were changed"`
	Changes    []FileChange `json:"changes,omitempty"`
}

// Meta is what is noted with a version.
type Meta struct {
	Author, Message string
	Now             time.Time
}

// Versions are those of one fleet.
type Versions struct {
	folder store.Bucket // the models
	own    store.Bucket // records and contents
	name   string       // of the fleet
}

// Of are the versions of a fleet whose models lie in a folder of the store.
func Of(b store.Bucket, fleetName, folder string) *Versions {
	return &Versions{folder: store.Sub(b, folder), own: store.Sub(b, fleet.ModelsArea+"_versions/"+fleetName), name: fleetName}
}

const contentArea = "files/"

func recordName(n int) fleetscore.BlobName { return fleetscore.BlobName(fmt.Sprintf("%08d.json", n)) }
func doneName(n int) fleetscore.BlobName   { return fleetscore.BlobName(fmt.Sprintf("%08d.done", n)) }
func contentName(digest string) fleetscore.BlobName {
	return fleetscore.BlobName(contentArea + digest)
}

// numbers are the recorded versions in order, and which of them are done.
func (v *Versions) numbers(ctx context.Context) (all []int, done map[int]bool, err error) {
	done = map[int]bool{}
	for i, err := range v.own.List(ctx, "", store.ListOptions{Delimiter: true}) {
		if err != nil {
			return nil, nil, err
		}
		name := string(i.Name)
		n, err := strconv.Atoi(strings.TrimSuffix(name, path.Ext(name)))
		switch {
		case err != nil:
		case path.Ext(name) == ".json":
			all = append(all, n)
		case path.Ext(name) == ".done":
			done[n] = true
		}
	}
	return all, done, nil
}

// Get reads a version with its changes; kind NotFound if there is none.
func (v *Versions) Get(ctx context.Context, n int) (*Version, error) {
	data, err := store.ReadAll(ctx, v.own, recordName(n))
	if fleetscore.NotFound.Is(err) {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "find version", fmt.Sprintf("%d of fleet %s", n, v.name), "there is no such version, or it is no longer kept").
			WithHint("fleetscore model versions %s lists them", v.name)
	}
	if err != nil {
		return nil, err
	}
	out := &Version{}
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fleetscore.Errorf(fleetscore.Corrupt, "read", string(recordName(n)), "%w", err)
	}
	return out, nil
}

// List returns the newest versions without their changes, the newest first.
func (v *Versions) List(ctx context.Context, most int) (out []Version, err error) {
	all, _, err := v.numbers(ctx)
	for i := len(all) - 1; err == nil && i >= 0 && len(out) < most; i-- {
		var one *Version
		if one, err = v.Get(ctx, all[i]); err == nil {
			one.Changes = nil
			out = append(out, *one)
		}
	}
	return out, err
}

// Push puts files into the folder of models as a new version; files with the content that
// is there already aren't changed. Kind Conflict if nothing would change.
func (v *Versions) Push(ctx context.Context, from store.Bucket, names []string, meta Meta) (*Version, error) {
	last, err := v.finish(ctx)
	if err != nil {
		return nil, err
	}
	next := &Version{Number: last + 1, Created: meta.Now.UTC(), Author: meta.Author, Message: meta.Message}
	for _, name := range names {
		after, err := v.keep(ctx, from, name)
		if err != nil {
			return nil, err
		}
		next.Changes = append(next.Changes, FileChange{Name: name, After: after})
	}
	return v.commit(ctx, next, "the files have the same content as those in the fleet's folder")
}

// Rollback brings back the files that later versions than to have changed, as a new
// version. To 0 is the time before the first push.
func (v *Versions) Rollback(ctx context.Context, to int, meta Meta) (*Version, error) {
	const op = "roll models back"
	last, err := v.finish(ctx)
	if err != nil {
		return nil, err
	}
	all, _, err := v.numbers(ctx)
	switch {
	case err != nil:
		return nil, err
	case to < 0 || to > last:
		return nil, fleetscore.Errorf(fleetscore.NotFound, op, v.name, "there is no version %d; the newest is %d", to, last).
			WithHint("fleetscore model versions %s lists them", v.name)
	case to < last && len(all) > 0 && all[0] > to+1:
		return nil, fleetscore.Errorf(fleetscore.NotFound, op, v.name, "version %d is too old: what changed since then is kept from version %d on", to, all[0]).
			WithHint("roll back to version %d or a later one", all[0]-1)
	}
	was := map[string]string{} // what files were at that version
	for _, n := range all {
		if n <= to {
			continue
		}
		one, err := v.Get(ctx, n)
		if err != nil {
			return nil, err
		}
		for _, c := range one.Changes {
			if _, ok := was[c.Name]; !ok {
				was[c.Name] = c.Before
			}
		}
	}
	next := &Version{Number: last + 1, Created: meta.Now.UTC(), Author: meta.Author, Message: meta.Message, RollbackTo: &to}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		next.Changes = append(next.Changes, FileChange{Name: name, After: was[name]})
	}
	return v.commit(ctx, next, fmt.Sprintf("the files are those of version %d already", to))
}

// commit notes what the files were before, records the version and puts its files in
// place. Nothing is done if nothing would change.
func (v *Versions) commit(ctx context.Context, next *Version, unchanged string) (*Version, error) {
	for i := range next.Changes {
		c := &next.Changes[i]
		before, err := v.keep(ctx, v.folder, c.Name)
		if err != nil && !fleetscore.NotFound.Is(err) {
			return nil, err
		}
		c.Before = before
	}
	next.Changes = slices.DeleteFunc(next.Changes, func(c FileChange) bool { return c.Before == c.After })
	if next.Files = len(next.Changes); next.Files == 0 {
		return nil, fleetscore.Errorf(fleetscore.Conflict, "change models of fleet", v.name, "nothing would change: %s", unchanged)
	}
	data, err := json.Marshal(next)
	if err != nil {
		return nil, err
	}
	err = store.WriteAll(ctx, v.own, recordName(next.Number), append(data, '\n'), store.PutOptions{IfAbsent: true})
	if fleetscore.Conflict.Is(err) {
		return nil, fleetscore.Errorf(fleetscore.Conflict, "change models of fleet", v.name, "somebody else made version %d at the same time", next.Number).
			WithHint("look at it with fleetscore model versions %s, and try again", v.name)
	}
	if err != nil {
		return nil, err
	}
	if err := v.apply(ctx, next); err != nil {
		return nil, fleetscore.Wrap("put the models of a version in place", fmt.Sprintf("%d of fleet %s (the next look at the fleet's folder completes it)", next.Number, v.name), err)
	}
	return next, v.prune(ctx)
}

// Finish completes a version whose files weren't all put in place.
func (v *Versions) Finish(ctx context.Context) error {
	_, err := v.finish(ctx)
	return err
}

// finish also returns the number of the newest version.
func (v *Versions) finish(ctx context.Context) (last int, err error) {
	all, done, err := v.numbers(ctx)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	last = all[len(all)-1]
	if done[last] {
		return last, nil
	}
	one, err := v.Get(ctx, last)
	if err != nil {
		return 0, err
	}
	return last, v.apply(ctx, one)
}

// apply puts the files of a version in place. It may be repeated.
func (v *Versions) apply(ctx context.Context, one *Version) error {
	for _, c := range one.Changes {
		name := fleetscore.BlobName(c.Name)
		if c.After == "" {
			if err := v.folder.Delete(ctx, name); err != nil {
				return err
			}
			continue
		}
		if _, err := copyBlob(ctx, v.own, contentName(c.After), v.folder, name); err != nil {
			return err
		}
	}
	return store.WriteAll(ctx, v.own, doneName(one.Number), nil, store.PutOptions{})
}

// copyBlob copies a blob and returns the digest of what was copied.
func copyBlob(ctx context.Context, from store.Bucket, name fleetscore.BlobName, to store.Bucket, as fleetscore.BlobName) (digest string, err error) {
	r, err := from.Get(ctx, name, 0, -1)
	if err != nil {
		return "", err
	}
	defer r.Close()
	sum := sha256.New()
	_, err = to.Put(ctx, as, io.TeeReader(r, sum), store.PutOptions{})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// keep keeps the content of a file and returns its digest. Kind NotFound if there is no
// such file.
func (v *Versions) keep(ctx context.Context, from store.Bucket, name string) (string, error) {
	r, err := from.Get(ctx, fleetscore.BlobName(name), 0, -1)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	_, err = io.Copy(sum, r)
	r.Close()
	if err != nil {
		return "", fleetscore.Wrap("read", name, err)
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	if _, err := v.own.Stat(ctx, contentName(digest)); err == nil || !fleetscore.NotFound.Is(err) {
		return digest, err
	}
	// It is read twice, so that content that is kept already isn't sent again.
	copied, err := copyBlob(ctx, from, fleetscore.BlobName(name), v.own, contentName(digest))
	if err == nil && copied != digest {
		err = errors.Join(fleetscore.Errorf(fleetscore.Unavailable, "keep model", name, "the file was changed while it was read").WithHint("try again"), v.own.Delete(ctx, contentName(digest)))
	}
	return digest, err
}

// prune removes the oldest versions, and the contents that no kept version names.
func (v *Versions) prune(ctx context.Context) error {
	all, _, err := v.numbers(ctx)
	if err != nil || len(all) <= Kept {
		return err
	}
	named := map[string]bool{}
	for _, n := range all[len(all)-Kept:] {
		one, err := v.Get(ctx, n)
		if err != nil {
			return err // what it names isn't known, so nothing may go
		}
		for _, c := range one.Changes {
			named[c.Before], named[c.After] = true, true
		}
	}
	for _, n := range all[:len(all)-Kept] {
		for _, name := range []fleetscore.BlobName{recordName(n), doneName(n)} {
			if err := v.own.Delete(ctx, name); err != nil {
				return err
			}
		}
	}
	for i, err := range v.own.List(ctx, contentArea, store.ListOptions{}) {
		if err != nil {
			return err
		}
		if named[path.Base(string(i.Name))] {
			continue
		}
		if err := v.own.Delete(ctx, i.Name); err != nil {
			return err
		}
	}
	return nil
}
