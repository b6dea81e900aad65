package sensor

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"slices"

	"github.com/fleetscore/fleetscore"
)

// The file of a state: magic, the length of the header as 4 bytes, the header as JSON, the keys, each with
// its length as 2 bytes, the arrays of state in their order, then those of the pipelines in the order of the header,
// and the CRC-32 (Castagnoli) of all that as 4 bytes. Numbers are little-endian.
const magic = "FSSENS2\n" // FSSENS1 had no order

// header describes the rest of a file.
type header struct {
	Version   int64             `json:"version"`
	Since     fleetscore.Micros `json:"since_us"`
	Until     fleetscore.Micros `json:"until_us"`
	Columns   []string          `json:"columns"`
	Sensors   int               `json:"sensors"`
	Left      int64             `json:"left_out"`
	Pipelines []pipelineHeader  `json:"pipelines"`
}

type pipelineHeader struct {
	Name    string `json:"name"`
	Version int64  `json:"version"`
	Sensors int    `json:"sensors"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode writes a state as a file.
func (s *state) encode() ([]byte, error) {
	h := header{Version: s.version, Since: s.since, Until: s.until, Columns: s.columns, Sensors: len(s.last), Left: s.left}
	size := 0
	for _, k := range s.names {
		size += 2 + len(k)
	}
	for name, p := range s.shares {
		h.Pipelines = append(h.Pipelines, pipelineHeader{name, p.version, len(p.until)})
	}
	slices.SortFunc(h.Pipelines, func(a, b pipelineHeader) int { return cmp.Compare(a.Name, b.Name) })
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	order := s.order
	if len(order) < len(s.names) { // a commit was taken in part
		order = s.ordered()
	}
	parts := s.arrays(h, order)
	size += len(magic) + 4 + len(text) + 4
	for _, part := range parts {
		size += binary.Size(part)
	}
	b := append(make([]byte, 0, size), magic...)
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(text))), text...)
	for _, k := range s.names {
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(k))), k...)
	}
	for _, part := range parts {
		if b, err = binary.Append(b, binary.LittleEndian, part); err != nil {
			return nil, err
		}
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// arrays are those of a file, with the lengths that a header says.
func (s *state) arrays(h header, order []uint32) []any {
	out := []any{order, s.first, s.last, s.rows, s.perSecond, s.values, s.flat, s.level, s.arrived, s.skew}
	for _, p := range h.Pipelines {
		x := s.shares[p.Name]
		out = append(out, x.scored, x.anomalies, x.until)
	}
	return out
}

// decode reads a file.
func decode(data []byte) (*state, error) {
	corrupt := func(why string) (*state, error) {
		return nil, fleetscore.Errorf(fleetscore.Corrupt, "read sensors", "", "%s", why)
	}
	if len(data) < len(magic)+8 || string(data[:len(magic)]) != magic {
		return corrupt("it isn't a file of sensors")
	}
	end := len(data) - 4
	if crc32.Checksum(data[:end], castagnoli) != binary.LittleEndian.Uint32(data[end:]) {
		return corrupt("its checksum is wrong")
	}
	rest := data[len(magic):end]
	n := int(binary.LittleEndian.Uint32(rest))
	if rest = rest[4:]; n > len(rest) {
		return corrupt("its header is cut")
	}
	var h header
	if err := json.Unmarshal(rest[:n], &h); err != nil {
		return corrupt(err.Error())
	}
	rest = rest[n:]
	if h.Sensors < 0 || h.Sensors > min(MaxSensors, len(rest)/2) || slices.ContainsFunc(h.Pipelines, func(p pipelineHeader) bool { return p.Sensors < 0 || p.Sensors > h.Sensors }) {
		return corrupt("its header is wrong")
	}
	s := newState()
	s.version, s.since, s.until, s.columns, s.left = h.Version, h.Since, h.Until, h.Columns, h.Left
	s.keys, s.names = make(map[fleetscore.Key]uint32, h.Sensors), make([]fleetscore.Key, h.Sensors)
	for i := range h.Sensors {
		if len(rest) < 2 {
			return corrupt("its keys are cut")
		}
		size := int(binary.LittleEndian.Uint16(rest))
		if rest = rest[2:]; size > len(rest) {
			return corrupt("its keys are cut")
		}
		s.names[i] = fleetscore.Key(rest[:size])
		s.keys[s.names[i]] = uint32(i)
		rest = rest[size:]
	}
	size := h.Sensors * (6*8 + 3*4 + 8*len(h.Columns))
	for _, p := range h.Pipelines {
		size += p.Sensors * 16
	}
	if len(s.keys) != h.Sensors || size != len(rest) {
		return corrupt("its length is wrong")
	}
	s.order = make([]uint32, h.Sensors)
	s.first, s.last, s.flat, s.arrived, s.skew = make([]fleetscore.Micros, h.Sensors), make([]fleetscore.Micros, h.Sensors), make([]fleetscore.Micros, h.Sensors), make([]fleetscore.Micros, h.Sensors), make([]fleetscore.Micros, h.Sensors)
	s.rows, s.perSecond, s.level, s.values = make([]uint32, h.Sensors), make([]float32, h.Sensors), make([]float64, h.Sensors), make([]float64, h.Sensors*len(h.Columns))
	for _, p := range h.Pipelines {
		s.shares[p.Name] = &shares{version: p.Version, scored: make([]uint32, p.Sensors), anomalies: make([]uint32, p.Sensors), until: make([]fleetscore.Micros, p.Sensors)}
	}
	for _, part := range s.arrays(h, s.order) {
		n, err := binary.Decode(rest, binary.LittleEndian, part)
		if err != nil {
			return corrupt(err.Error())
		}
		rest = rest[n:]
	}
	for i, n := range s.order {
		if int(n) >= h.Sensors || i > 0 && s.names[s.order[i-1]] >= s.names[n] {
			return corrupt("its order is wrong")
		}
	}
	return s, nil
}
