package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/sklearn"
)

// keep fills the rows of members that are kept from the old pack. Their bodies
// lie in memory of what it returns, to be closed after use.
func (b *builder) keep(ctx context.Context, rows []segmentRow, members []Member, before []was) (*Pack, error) {
	p := &Pack{}
	bodies := map[*segment]*segment{}
	for i, w := range before {
		if w.segment == nil {
			continue
		}
		s := bodies[w.segment]
		if s == nil {
			var mapped []byte
			var err error
			if s, mapped, err = openSegment(ctx, b.dst, w.meta, true); err != nil {
				return nil, errors.Join(err, p.Close())
			}
			if mapped != nil {
				p.mapped = append(p.mapped, mapped)
			}
			bodies[w.segment] = s
		}
		r := s.row(w.row)
		rows[i] = segmentRow{key: members[i].Key, name: members[i].Name, digest: r.digest(), size: int64(r.size()), flags: r.flags(), detail: s.detail(w.row)}
		if rows[i].flags.hasBody() {
			rows[i].body = inMemory(s.body(w.row))
		}
	}
	return p, nil
}

// lanes is how many files of a segment are read at once: it hides a cloud's
// latency.
const lanes = 8

// readAll reads and compiles the models of the changed members into their rows.
// It returns the places of members whose file was deleted after it was listed. Bodies
// that don't fit into memory are written to spilled; if spilled is nil, they aren't
// needed and are dropped.
func (b *builder) readAll(ctx context.Context, rows []segmentRow, members []Member, changed []int, spilled *spill) (gone []int, err error) {
	group, ctx := errgroup.WithContext(ctx)
	vanished := make([]bool, len(members))
	for chunk := range slices.Chunk(changed, max(16, (len(changed)+lanes-1)/lanes)) {
		group.Go(func() error {
			l := lane{builder: b, rows: rows, spilled: spilled}
			for n, i := range chunk {
				if n%64 == 63 {
					b.progress(64)
				}
				if row, ok := b.known(members[i]); ok {
					rows[i] = row
					continue
				}
				b.read.Add(1)
				if err := l.readOne(ctx, members[i], i); fleetscore.NotFound.Is(err) {
					vanished[i] = true
				} else if err != nil {
					return err
				}
			}
			b.progress(int64(len(chunk) % 64))
			for _, p := range l.places {
				rows[p.row].body = inMemory(l.out[p.from:p.to:p.to])
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, v := range vanished {
		if v {
			gone = append(gone, i)
		}
	}
	return gone, nil
}

// lane reads and compiles models one after the other.
type lane struct {
	*builder
	rows    []segmentRow
	spilled *spill
	in, out []byte // a file, and records that weren't placed yet
	places  []struct{ row, from, to int }
}

// readOne reads and compiles a member's file into its row.
func (l *lane) readOne(ctx context.Context, m Member, row int) error {
	charged := int64(0)
	charge := func(n int64) error {
		l.opt.Memory.loading.Release(charged)
		charged = 0
		n = min(n, loadedAtOnce)
		err := l.opt.Memory.loading.Acquire(ctx, n)
		if err == nil {
			charged = n
		}
		return err
	}
	defer func() { l.opt.Memory.loading.Release(charged) }()
	limit := int64(freeLoad)
	if m.SizeBytes >= largeModel {
		if err := charge(m.SizeBytes * loadTimes); err != nil {
			return err
		}
		limit = (loadTimes - 1) * m.SizeBytes
	}
	var err error
	l.in, err = readModel(ctx, l.src, m, l.in[:0], l.opt.MaxModelBytes)
	if err != nil && !refused(err) {
		return err
	}
	from := len(l.out)
	var more bool
	l.rows[row], l.out, more = l.compile(ctx, m, l.in, err, limit, l.out)
	if more { // it is compressed
		if err := charge(mostLoaded(int64(len(l.in)))); err != nil {
			return err
		}
		limit = 0 // what the package allows, which is what was charged, or all of it
		l.rows[row], l.out, _ = l.compile(ctx, m, l.in, nil, limit, l.out[:from])
	}
	if ctx.Err() != nil {
		return ctx.Err() // which may have ended the loading
	}
	if cap(l.in) > largeModel {
		l.in = nil
	}
	to := len(l.out)
	if l.rows[row].flags&(Original|Native) == Original {
		to = from + int(l.rows[row].size) // without what fills it up
	}
	l.places = append(l.places, struct{ row, from, to int }{row, from, to})
	switch {
	case len(l.out) < spillAt:
		return nil
	case l.spilled == nil:
		l.places, l.out = nil, nil
		return nil
	}
	return l.spill()
}

// spill moves the records to the file.
func (l *lane) spill() error {
	file, at, err := l.spilled.add(l.out)
	if err != nil {
		return fleetscore.Errorf(fleetscore.Exhausted, "keep records of models", l.opt.TempDir, "%w", err).
			WithHint("free space in that folder")
	}
	for _, p := range l.places {
		l.rows[p.row].body = body{file: file, at: at + int64(p.from), size: p.to - p.from}
	}
	l.places, l.out = l.places[:0], l.out[:0]
	if cap(l.out) > 2*spillAt {
		l.out = nil
	}
	return nil
}

// known is the row of a member whose own file need not be read.
func (b *builder) known(m Member) (segmentRow, bool) {
	switch {
	case m.Name == "":
		return segmentRow{key: m.Key, flags: NoModel}, true
	case m.problem != "":
		return segmentRow{key: m.Key, name: m.Name, flags: Unreadable, detail: m.problem}, true
	case m.shared:
		r, ok := b.shared[m.Name]
		r.key = m.Key
		return r, ok && r.name != ""
	}
	return segmentRow{}, false
}

// compare counts a row that was made anew as added or changed.
func (b *builder) compare(r *segmentRow, m Member) {
	w, ok := b.oldMember(m)
	switch {
	case r.key == "": // gone since it was listed
	case !ok:
		b.added.Add(1)
	case w.segment.row(w.row).digest() != r.digest:
		b.changed.Add(1)
	}
}

// readModel reads a member's file of at most limit bytes into buf. A file that grew
// since it was listed is read again later: its size is what memory was set aside
// for.
func readModel(ctx context.Context, src store.Bucket, m Member, buf []byte, limit int64) ([]byte, error) {
	if m.SizeBytes > limit {
		return buf, tooLarge(m, limit)
	}
	in, err := src.Get(ctx, fleetscore.BlobName(m.Name), 0, -1)
	if err != nil {
		return buf, err
	}
	defer in.Close()
	buf = slices.Grow(buf, int(m.SizeBytes)+1)
	for {
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return buf, fleetscore.Wrap("read model", m.Name, err)
		case int64(len(buf)) > m.SizeBytes:
			return buf, fleetscore.Errorf(fleetscore.Invalid, "read model", m.Name, "it grows while it is read; it is read again with the next look at the folder").
				WithHint("write the file under another name and rename it when it is whole")
		}
	}
}

// refused reports whether a file can't be read for a reason of its own; any other
// error may hit every file.
func refused(err error) bool {
	return fleetscore.Invalid.Is(err) || errors.Is(err, fs.ErrPermission)
}

// compile makes a member's row of its file, or of why that couldn't be read, and
// appends its body to out, whose length stays a multiple of 8. It loads within limit
// bytes, 0 for what package sklearn allows, and says if that isn't enough.
func (l *lane) compile(ctx context.Context, m Member, data []byte, readErr error, limit int64, out []byte) (r segmentRow, _ []byte, more bool) {
	r = segmentRow{key: m.Key, name: m.Name, size: m.SizeBytes}
	if readErr != nil {
		r.flags, r.detail = Unreadable, reason(readErr)
		return r, out, false
	}
	from := len(out)
	model, err := sklearn.LoadWith(ctx, data, sklearn.Limits{Memory: limit})
	if refusal, ok := errors.AsType[*sklearn.Refusal](err); ok && limit > 0 && refusal.Reason == sklearn.TooLarge {
		return r, out, true
	}
	r.digest, r.size = fleetscore.DigestOf(data), int64(len(data))
	if err == nil {
		if out, err = model.AppendRecord(out); err == nil {
			const findingsAt = 20
			r.flags = Native | Flags(binary.LittleEndian.Uint32(out[from+findingsAt:])&0xff)
			info := model.Info()
			if l.originals {
				r.flags |= Original
				out = append(append(out, data...), pad(len(data))...)
			}
			r.detail = info.Chain() + detailSeparator + strings.Join(info.Versions, ", ") + detailSeparator + strconv.Itoa(info.Features) + detailSeparator + joinNames(info.FeatureNames)
			return r, out, false
		}
	}
	r.detail = reason(err)
	if refusal, ok := errors.AsType[*sklearn.Refusal](err); ok {
		r.flags = flagOf[refusal.Reason]
	}
	if other := otherLibrary(data); other != "" {
		r.flags, r.detail = Unsupported, "it is a model of "+other+", which only Python can score (runtime: auto)"
	} else if r.flags == 0 || r.flags == HoldsCode && !l.originals || !isPickle(data) { // it is no model that another runtime could score, or should
		r.flags |= NotModel
		return r, out[:from], false
	}
	if made := sklearn.OriginOf(data).String(); made != "" {
		r.detail += detailSeparator + made
	}
	r.flags |= Original
	out = append(out[:from], data...)
	return r, append(out, pad(len(data))...), false
}

// isPickle reports whether a file begins as pickles, joblib's compressed ones and
// skops files do. Of other files nothing is kept.
func isPickle(data []byte) bool {
	for _, magic := range []string{"\x80", "ccopy_reg\n", "ccopyreg\n", "csklearn.", "PK\x03\x04", "\x78", "\x1f\x8b", "BZh", "\xfd7zXZ\x00", "\x5d\x00\x00", "\x04\x22\x4d\x18", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(data, []byte(magic)) {
			return true
		}
	}
	return false
}

// otherLibrary names the library whose own format a file has; empty if it is none that is
// known.
func otherLibrary(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte("tree\nversion=")):
		return "LightGBM"
	case bytes.HasPrefix(data, []byte("{L\x00\x00")), bytes.HasPrefix(data, []byte(`{"learner"`)):
		return "XGBoost"
	case len(data) > 16 && data[0] == 0x08 && data[1] < 0x20 && (data[2] == 0x12 || data[2] == 0x3a || data[2] == 0x1a): // ir_version, then a field of ModelProto
		return "ONNX"
	}
	return ""
}

// flagOf tells reasons for which a model was refused apart; others count as unreadable.
var flagOf = map[sklearn.Reason]Flags{
	sklearn.HoldsCode: HoldsCode, sklearn.NotFinite: NotFinite,
	sklearn.UnknownClass: Unsupported, sklearn.OtherLibrary: Unsupported, sklearn.Unsupported: Unsupported,
}

// detailSeparator stands between the estimators of a native model, the releases
// that wrote it, the number of its features, and their names.
const detailSeparator = "\x1f"

// nameSeparator stands between the names of features.
const nameSeparator = "\x1e"

// maxNames is how many bytes of feature names a detail has; longer ones are only
// in the record.
const maxNames = 16 << 10

func joinNames(names []string) string {
	s := strings.Join(names, nameSeparator)
	if len(s) > maxNames || strings.Count(s, nameSeparator)+1 != max(1, len(names)) || strings.Contains(s, detailSeparator) {
		return ""
	}
	return s
}

// reason is an error without the subject, which the index has already, so that
// models that fail alike have the same reason.
func reason(err error) string {
	var e *fleetscore.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	c := *e
	c.Op, c.Subject = "", ""
	return c.Error()
}

// write writes a segment unless it is there.
func (b *builder) write(ctx context.Context, r fleetscore.ShardRange, rows []segmentRow) (Segment, error) {
	if len(rows) == 0 {
		return Segment{}, nil
	}
	index, bodies, err := encodeSegment(r, rows)
	if err != nil {
		return Segment{}, err
	}
	h := sha256.New()
	h.Write(index)
	if _, err := io.Copy(h, bodyReader(bodies)); err != nil {
		return Segment{}, fleetscore.Wrap("pack models", r.String(), err)
	}
	size := int64(len(index))
	for _, body := range bodies {
		size += int64(body.size+7) &^ 7
	}
	s := Segment{Digest: fleetscore.Digest(h.Sum(nil)), Shards: r, Keys: int64(len(rows)), SizeBytes: size, IndexBytes: int64(len(index))}
	name := segmentName(s.Digest)
	if b.there[name] == size {
		return s, nil
	}
	b.written.Add(1)
	_, err = b.dst.Put(ctx, name, io.MultiReader(bytes.NewReader(index), bodyReader(bodies)), store.PutOptions{})
	return s, err
}

// bodyReader reads bodies one after the other, each filled up to a multiple of 8.
func bodyReader(bodies []body) io.Reader { return &bodiesReader{left: bodies} }

type bodiesReader struct {
	left []body
	now  io.Reader // of the body before left, and what fills it up; nil at its end
}

func (r *bodiesReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.now == nil {
			if len(r.left) == 0 {
				if n == 0 {
					return 0, io.EOF
				}
				return n, nil
			}
			b := r.left[0]
			r.now, r.left = b.reader(), r.left[1:]
			if fill := pad(b.size); len(fill) > 0 {
				r.now = io.MultiReader(r.now, bytes.NewReader(fill))
			}
		}
		c, err := r.now.Read(p[n:])
		n += c
		switch {
		case err == io.EOF:
			r.now = nil
		case err != nil:
			return n, err
		}
	}
	return n, nil
}
