package sklearn

import (
	"encoding/binary"

	"github.com/fleetscore/fleetscore"
)

// featureNames are a model's feature names as native records hold them: for each
// its length as a uint32, then its bytes. So the names of a record are used where
// they lie.
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

// next splits off the first name. The names were checked before.
func (n *featureNames) next() []byte {
	size := int(binary.LittleEndian.Uint32(n.bytes))
	name := n.bytes[4 : 4+size]
	n.bytes = n.bytes[4+size:]
	n.count--
	return name
}

// check refuses names that leave their bytes, or bytes that are left over.
func (n featureNames) check() error {
	rest := n.bytes
	for i := range n.count {
		if len(rest) < 4 || uint64(binary.LittleEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "feature name %d leaves the names' %d bytes", i, len(n.bytes))
		}
		rest = rest[4+int(binary.LittleEndian.Uint32(rest)):]
	}
	if len(rest) > 0 {
		return fleetscore.Errorf(fleetscore.Corrupt, opRecord, "", "%d bytes are left over behind the feature names", len(rest))
	}
	return nil
}

// FeatureNames are the names of the columns that the model was fitted with, in
// its order, as feature_names_in_ says; nil where it was fitted without names.
// scikit-learn keeps names only where all of a data frame's are texts. The slice
// is made anew by each call.
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

// HasFeatureNames reports whether FeatureNames are these, in this order. It
// allocates nothing.
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
