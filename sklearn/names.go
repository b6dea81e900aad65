package sklearn

import (
	"encoding/binary"

	"github.com/fleetscore/fleetscore"
)

// featureNames holds a model's feature names in the form of native records: for each
// name its length as a uint32, then its bytes. A record's names are used without a
// copy.
type featureNames struct {
	count int
	bytes []byte
}

func namesOf(list []string) featureNames {
	size := 0
	for _, name := range list {
		size += 4 + len(name)
	}
	n := featureNames{count: len(list), bytes: make([]byte, 0, size)}
	for _, name := range list {
		n.bytes = binary.LittleEndian.AppendUint32(n.bytes, uint32(len(name)))
		n.bytes = append(n.bytes, name...)
	}
	return n
}

// next removes the first name and returns it. The names must have been checked before.
func (n *featureNames) next() []byte {
	size := int(binary.LittleEndian.Uint32(n.bytes))
	name := n.bytes[4 : 4+size]
	n.bytes = n.bytes[4+size:]
	n.count--
	return name
}

// check refuses names that reach beyond the bytes, and bytes that belong to no name.
func (n featureNames) check() error {
	rest := n.bytes
	for i := range n.count {
		if len(rest) < 4 || uint64(binary.LittleEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "feature name %d reaches beyond the %d bytes of all names", i, len(n.bytes))
		}
		rest = rest[4+int(binary.LittleEndian.Uint32(rest)):]
	}
	if len(rest) > 0 {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "%d bytes follow the last feature name", len(rest))
	}
	return nil
}

// FeatureNames returns the names of the columns that the model was fitted with
// (feature_names_in_), in the model's order, or nil if it was fitted without names.
// scikit-learn keeps names only if all column names of the data frame are text. Each
// call makes a new slice.
func (m *Model) FeatureNames() []string {
	if m.names.count == 0 {
		return nil
	}
	out := make([]string, 0, m.names.count)
	for n := m.names; n.count > 0; {
		out = append(out, string(n.next()))
	}
	return out
}

// HasFeatureNames reports whether FeatureNames returns exactly these names in this
// order. It allocates nothing.
func (m *Model) HasFeatureNames(names []string) bool {
	if m.names.count != len(names) {
		return false
	}
	n := m.names
	for _, name := range names {
		if string(n.next()) != name {
			return false
		}
	}
	return true
}

// Named reports whether the model was fitted with feature names.
func (m *Model) Named() bool { return m.names.count > 0 }
