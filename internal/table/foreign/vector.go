package foreign

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// vector says where the list of a file's deleted rows lies.
type vector struct {
	StorageType    string // "u": in a file of the table; "i": here; "p": in a file anywhere
	PathOrInlineDv string
	Offset         int64
	SizeInBytes    int64
	Cardinality    int64
}

// The form of deletion vectors: a magic number, then a 64-bit Roaring bitmap in its
// portable form.
const (
	vectorMagic    = 1681511377
	maxVectorBytes = 1 << 30
)

// Deleted is the set of a file's deleted rows, by their places in it; nil if there
// are none.
func (f *File) Deleted(ctx context.Context, b store.Bucket) (func(row uint64) bool, error) {
	v := f.vector
	if v == nil || v.Cardinality == 0 {
		return nil, nil
	}
	data, err := v.bytes(ctx, b)
	if err != nil {
		return nil, err
	}
	set, err := decodeVector(data)
	if err != nil {
		return nil, corrupt(string(f.Path), "its deletion vector: %w", err)
	}
	if n := set.GetCardinality(); n != uint64(v.Cardinality) {
		return nil, corrupt(string(f.Path), "its deletion vector has %d rows, the log says %d", n, v.Cardinality)
	}
	return set.Contains, nil
}

// bytes reads the vector.
func (v *vector) bytes(ctx context.Context, b store.Bucket) ([]byte, error) {
	switch v.StorageType {
	case "i":
		data, err := z85(v.PathOrInlineDv)
		if err != nil || v.SizeInBytes > int64(len(data)) || v.SizeInBytes < 0 {
			return nil, corrupt(logArea, "a deletion vector in the log can't be decoded")
		}
		return data[:v.SizeInBytes], nil
	case "u":
		return v.stored(ctx, b)
	}
	return nil, fleetscore.Errorf(fleetscore.Invalid, op, v.PathOrInlineDv, "a deletion vector lies outside the table's folder (storage type %q), as in a shallow clone", v.StorageType).
		WithHint("make a deep clone, or write the files anew: REORG TABLE … APPLY (PURGE)")
}

// stored reads a vector from its file: its size, its bytes and their checksum stand
// at the offset.
func (v *vector) stored(ctx context.Context, b store.Bucket) ([]byte, error) {
	const encoded = 20 // of 16 bytes of a UUID
	at := len(v.PathOrInlineDv) - encoded
	if at < 0 || v.SizeInBytes < 0 || v.SizeInBytes > maxVectorBytes || v.Offset < 0 {
		return nil, corrupt(logArea, "a deletion vector's place in the log can't be decoded")
	}
	id, err := z85(v.PathOrInlineDv[at:])
	if err != nil {
		return nil, corrupt(logArea, "a deletion vector's place in the log can't be decoded")
	}
	h := hex.EncodeToString(id)
	name := "deletion_vector_" + strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-") + ".bin"
	if at > 0 {
		name = v.PathOrInlineDv[:at] + "/" + name
	}
	r, err := b.Get(ctx, fleetscore.BlobName(name), v.Offset, v.SizeInBytes+8)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fleetscore.Wrap(op, name, err)
	}
	if int64(len(data)) != v.SizeInBytes+8 || int64(binary.BigEndian.Uint32(data)) != v.SizeInBytes {
		return nil, corrupt(name, "the deletion vector at %d doesn't have the %d bytes that the log says", v.Offset, v.SizeInBytes)
	}
	content, sum := data[4:4+v.SizeInBytes], binary.BigEndian.Uint32(data[4+v.SizeInBytes:])
	if crc32.ChecksumIEEE(content) != sum {
		return nil, corrupt(name, "the deletion vector at %d doesn't fit its checksum", v.Offset)
	}
	return content, nil
}

func decodeVector(data []byte) (set *roaring64.Bitmap, err error) {
	defer func() { // whatever the bytes are
		if recover() != nil {
			set, err = nil, errors.New("its bitmap is damaged")
		}
	}()
	if len(data) < 12 || binary.LittleEndian.Uint32(data) != vectorMagic {
		return nil, errors.New("it isn't in the portable form")
	}
	set = roaring64.New()
	if _, err := set.ReadFrom(bytes.NewReader(data[4:])); err != nil {
		return nil, err
	}
	return set, set.Validate()
}

// z85Digits are those of https://rfc.zeromq.org/spec/32/.
const z85Digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

// z85 decodes five characters to four bytes each.
func z85(s string) ([]byte, error) {
	if len(s)%5 != 0 {
		return nil, errors.New("not a multiple of five characters")
	}
	out := make([]byte, 0, len(s)/5*4)
	for i := 0; i < len(s); i += 5 {
		n := uint64(0)
		for _, c := range []byte(s[i : i+5]) {
			d := strings.IndexByte(z85Digits, c)
			if d < 0 {
				return nil, errors.New("not a digit of Z85")
			}
			n = n*85 + uint64(d)
		}
		if n > 1<<32-1 {
			return nil, errors.New("five digits are too large")
		}
		out = binary.BigEndian.AppendUint32(out, uint32(n))
	}
	return out, nil
}
