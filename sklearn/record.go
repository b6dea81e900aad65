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
//	 4  uint32   version, 2
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
	recordMagic   = "FSMR"
	recordVersion = 2
	recordHeader  = 32
)

const opRecord = "read record"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendRecord appends the model in native form to dst, whose length must be a
// multiple of 8, and returns the longer slice. The record's length is a multiple
// of 8 too. It holds what scores are made of and what is known to be wrong with
// the model, and its feature names, not the names of steps and the releases that wrote them.
func (m *Model) AppendRecord(dst []byte) ([]byte, error) {
	if len(dst)%8 != 0 {
		return dst, fleetscore.Errorf(fleetscore.Invalid, "write record", "", "the slice has %d bytes, not a multiple of 8", len(dst))
	}
	// The state is aligned from the record's start; a slice of its own keeps it so.
	head := make([]byte, recordHeader, 256+len(m.names.bytes))
	head = append(head, m.names.bytes...)
	head = append(head, make([]byte, -len(head)&7)...)
	body, err := estimator.Encode(head, m.root, records)
	if err != nil {
		return dst, err
	}
	copy(body, recordMagic)
	binary.LittleEndian.PutUint32(body[4:], recordVersion)
	binary.LittleEndian.PutUint32(body[8:], uint32(len(body)))
	binary.LittleEndian.PutUint32(body[16:], uint32(m.features))
	binary.LittleEndian.PutUint32(body[20:], uint32(m.findings))
	binary.LittleEndian.PutUint32(body[24:], uint32(m.names.count))
	binary.LittleEndian.PutUint32(body[28:], uint32(len(m.names.bytes)))
	binary.LittleEndian.PutUint32(body[12:], crc32.Checksum(body[16:], castagnoli))
	return append(dst, body...), nil
}

// IsRecord reports whether data begins as a native record does.
func IsRecord(data []byte) bool { return len(data) >= 4 && string(data[:4]) == recordMagic }

// ReadRecord makes m the model of a native record. The model refers to data,
// which must stay as it is; m must not be in use. Where m was read from a record
// of the same estimators before and data is aligned to 8 bytes, it allocates
// nothing. An error is of kind Corrupt.
func (m *Model) ReadRecord(data []byte) error {
	if len(data) < recordHeader || string(data[:4]) != recordMagic {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "%d bytes are no native record", len(data))
	}
	if v := binary.LittleEndian.Uint32(data[4:]); v != recordVersion {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "version %d, but this release reads %d", v, recordVersion).
			WithHint("pack the fleet again with this release")
	}
	if n := binary.LittleEndian.Uint32(data[8:]); uint64(n) != uint64(len(data)) {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "%d bytes are announced, %d are there", n, len(data))
	}
	if sum := crc32.Checksum(data[16:], castagnoli); sum != binary.LittleEndian.Uint32(data[12:]) {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "the checksum doesn't match").
			WithHint("pack the fleet again")
	}
	named, size := binary.LittleEndian.Uint32(data[24:]), uint64(binary.LittleEndian.Uint32(data[28:]))
	state := (recordHeader + size + 7) &^ 7
	if state > uint64(len(data)) {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "%d bytes of feature names are announced, %d are left", size, len(data)-recordHeader)
	}
	m.names = featureNames{count: int(named), bytes: data[recordHeader : recordHeader+size]}
	if err := m.names.check(); err != nil {
		return err
	}
	if err := m.codec.Decode(data, int(state), &m.root, records); err != nil {
		return err
	}
	m.file = nil
	m.assemble(m.root)
	m.findings = findings(binary.LittleEndian.Uint32(data[20:]))
	if n := binary.LittleEndian.Uint32(data[16:]); uint64(n) != uint64(m.features) {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "%d features are announced, the estimators take %d", n, m.features)
	}
	if m.names.count > 0 && m.features > 0 && m.names.count != m.features {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "there are %d feature names, the estimators take %d features", m.names.count, m.features)
	}
	return nil
}

// loadRecord is Load for a native record.
func loadRecord(data []byte, limits budget.Limits) (*Model, error) {
	if l := limits.Memory; l > 0 && int64(len(data)) > l {
		return nil, refusal.New(refusal.TooLarge, "the record has %d bytes, more than the limit of %d", len(data), l).
			WithHint("allow more, or train a smaller model")
	}
	m := &Model{}
	if err := m.ReadRecord(bytes.Clone(data)); err != nil {
		return nil, err
	}
	return m, nil
}
