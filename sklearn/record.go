package sklearn

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// A native record is a header and the state of the model's estimators:
//
//	 0  4 bytes  magic "FSMR"
//	 4  uint32   version, 3
//	 8  uint32   length of the record, header included, a multiple of 8
//	12  uint32   CRC-32C of everything from byte 16
//	16  uint32   number of features
//	20  uint32   findings: 1 flags everything, 2 flags nothing, 4 too old, 8 constant
//	24  uint32   number of feature names, 0 or the number of features
//	28  uint32   bytes of the feature names
//	32  …        the feature names, then zeros up to a multiple of 8
//	    …        state
//
// docs/formats/record.md describes the state.
const (
	recordMagic  = "FSMR"
	recordHeader = 32
)

// RecordVersion is the version of the native records that are written. Records of other
// versions aren't read. It changes when the content of any class's record changes.
const RecordVersion = 3

const (
	opRecord = "read record"
	opWrite  = "write record"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendRecord appends the model's native record to dst and returns the longer slice.
// The length of dst must be a multiple of 8, and so is the record's length. The record
// holds everything that scores depend on, the model's faults and its feature names. It
// doesn't hold the names of steps or the releases that wrote the model.
func (m *Model) AppendRecord(dst []byte) ([]byte, error) {
	if m.root == nil {
		return dst, fleetscore.Errorf(fleetscore.Invalid, opWrite, "", "the model is empty").WithHint("use a model that Load returned")
	}
	if len(dst)%8 != 0 {
		return dst, fleetscore.Errorf(fleetscore.Invalid, opWrite, "", "dst has %d bytes, which isn't a multiple of 8", len(dst))
	}
	// The state is aligned relative to the record's start, so it is built in its own
	// slice.
	head := make([]byte, recordHeader, 256+len(m.names.bytes))
	head = append(head, m.names.bytes...)
	head = append(head, make([]byte, -len(head)&7)...)
	body, err := estimator.Encode(head, m.root, records)
	if err != nil {
		return dst, err
	}
	copy(body, recordMagic)
	binary.LittleEndian.PutUint32(body[4:], RecordVersion)
	binary.LittleEndian.PutUint32(body[8:], uint32(len(body)))
	binary.LittleEndian.PutUint32(body[16:], uint32(m.features))
	binary.LittleEndian.PutUint32(body[20:], uint32(m.findings))
	binary.LittleEndian.PutUint32(body[24:], uint32(m.names.count))
	binary.LittleEndian.PutUint32(body[28:], uint32(len(m.names.bytes)))
	binary.LittleEndian.PutUint32(body[12:], crc32.Checksum(body[16:], castagnoli))
	return append(dst, body...), nil
}

// IsRecord reports whether data begins like a native record.
func IsRecord(data []byte) bool { return len(data) >= 4 && string(data[:4]) == recordMagic }

// RecordReader reads native records one after the other into the same memory. It
// allocates nothing if a record has the same estimators as the record before, and if
// its bytes are aligned to 8. The zero value is ready. One goroutine at a time may use
// it.
type RecordReader struct {
	model Model
	codec estimator.Codec
}

// Read returns the model of a native record. The model refers to data, which must not
// change, and it is valid until the next Read. For a model that stays valid, use
// another RecordReader or [Load]. An error is of kind Corrupt.
func (r *RecordReader) Read(data []byte) (*Model, error) {
	m := &r.model
	if err := r.read(m, data); err != nil {
		*m = Model{} // the estimators were read only in part
		return nil, err
	}
	return m, nil
}

func (r *RecordReader) read(m *Model, data []byte) error {
	if len(data) < recordHeader || string(data[:4]) != recordMagic {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "%d bytes aren't a native record", len(data))
	}
	if v := binary.LittleEndian.Uint32(data[4:]); v != RecordVersion {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "the record has version %d, but this release reads version %d", v, RecordVersion).
			WithHint("pack the fleet again with this release")
	}
	if n := binary.LittleEndian.Uint32(data[8:]); uint64(n) != uint64(len(data)) {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "the record's header says %d bytes, but there are %d", n, len(data))
	}
	if sum := crc32.Checksum(data[16:], castagnoli); sum != binary.LittleEndian.Uint32(data[12:]) {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "the checksum doesn't match").
			WithHint("pack the fleet again")
	}
	named, size := binary.LittleEndian.Uint32(data[24:]), uint64(binary.LittleEndian.Uint32(data[28:]))
	state := (recordHeader + size + 7) &^ 7
	if state > uint64(len(data)) {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "the record's header says %d bytes of feature names, but %d bytes follow it", size, len(data)-recordHeader)
	}
	m.names = featureNames{count: int(named), bytes: data[recordHeader : recordHeader+size]}
	if err := m.names.check(); err != nil {
		return err
	}
	if err := r.codec.Decode(data, int(state), &m.root, records); err != nil {
		return err
	}
	m.file = nil
	m.assemble(m.root)
	m.findings = findings(binary.LittleEndian.Uint32(data[20:]))
	if n := binary.LittleEndian.Uint32(data[16:]); uint64(n) != uint64(m.features) {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "the record's header says %d features, but the estimators take %d", n, m.features)
	}
	if m.names.count > 0 && m.features > 0 && m.names.count != m.features {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "there are %d feature names, but the estimators take %d features", m.names.count, m.features)
	}
	return nil
}

// loadRecord is Load for a native record.
func loadRecord(data []byte, limits budget.Limits) (*Model, error) {
	if l := limits.Memory; l > 0 && int64(len(data)) > l {
		return nil, refusal.New(refusal.TooLarge, "the record has %d bytes, more than the limit of %d", len(data), l).
			WithHint("allow more memory, or train a smaller model")
	}
	return new(RecordReader).Read(bytes.Clone(data))
}
