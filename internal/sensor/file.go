package sensor

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"slices"

	"github.com/fleetscore/fleetscore"
)

// The file of a state: magic, the length of the header as 4 bytes, the header as JSON, the keys, each with
// its length as 2 bytes, the arrays of state in their order, then those of the pipelines in the order of the header,
// and the CRC-32 (Castagnoli) of all that as 4 bytes. Numbers are little-endian.
const magic = "FSSENS1\n"

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
	keys := make([]fleetscore.Key, len(s.last))
	size := 0
	for k, n := range s.keys {
		keys[n] = k
		size += 2 + len(k)
	}
	for name, p := range s.shares {
		h.Pipelines = append(h.Pipelines, pipelineHeader{name, p.version, len(p.until)})
	}
	slices.SortFunc(h.Pipelines, func(a, b pipelineHeader) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	b := bytes.NewBuffer(make([]byte, 0, size+len(text)+len(s.last)*(64+8*len(s.columns)+16*len(h.Pipelines))))
	b.WriteString(magic)
	b.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(text))))
	b.Write(text)
	for _, k := range keys {
		b.Write(binary.LittleEndian.AppendUint16(b.AvailableBuffer(), uint16(len(k))))
		b.WriteString(string(k))
	}
	for _, part := range s.arrays(h) {
		if err := binary.Write(b, binary.LittleEndian, part); err != nil {
			return nil, err
		}
	}
	return binary.LittleEndian.AppendUint32(b.Bytes(), crc32.Checksum(b.Bytes(), castagnoli)), nil
}

// arrays are those of a file, with the lengths that a header says.
func (s *state) arrays(h header) []any {
	out := []any{s.first, s.last, s.rows, s.perSecond, s.values, s.flat, s.level, s.arrived, s.skew}
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
	if h.Sensors < 0 || h.Sensors > min(MaxSensors, len(rest)/2) || len(h.Columns) > len(rest) || slices.ContainsFunc(h.Pipelines, func(p pipelineHeader) bool { return p.Sensors < 0 || p.Sensors > h.Sensors }) {
		return corrupt("its header is wrong")
	}
	s := newState()
	s.version, s.since, s.until, s.columns, s.left = h.Version, h.Since, h.Until, h.Columns, h.Left
	for i := range h.Sensors {
		if len(rest) < 2 {
			return corrupt("its keys are cut")
		}
		size := int(binary.LittleEndian.Uint16(rest))
		if rest = rest[2:]; size > len(rest) {
			return corrupt("its keys are cut")
		}
		s.keys[fleetscore.Key(rest[:size])] = uint32(i)
		rest = rest[size:]
	}
	size := h.Sensors * (7*8 + 2*4 + 8*len(h.Columns))
	for _, p := range h.Pipelines {
		size += p.Sensors * 16
	}
	if len(s.keys) != h.Sensors || size != len(rest) {
		return corrupt("its length is wrong")
	}
	s.first, s.last, s.flat, s.arrived, s.skew = make([]fleetscore.Micros, h.Sensors), make([]fleetscore.Micros, h.Sensors), make([]fleetscore.Micros, h.Sensors), make([]fleetscore.Micros, h.Sensors), make([]fleetscore.Micros, h.Sensors)
	s.rows, s.perSecond, s.level, s.values = make([]uint32, h.Sensors), make([]float32, h.Sensors), make([]float64, h.Sensors), make([]float64, h.Sensors*len(h.Columns))
	for _, p := range h.Pipelines {
		s.shares[p.Name] = &shares{version: p.Version, scored: make([]uint32, p.Sensors), anomalies: make([]uint32, p.Sensors), until: make([]fleetscore.Micros, p.Sensors)}
	}
	in := bytes.NewReader(rest)
	for _, part := range s.arrays(h) {
		if err := binary.Read(in, binary.LittleEndian, part); err != nil {
			return corrupt(err.Error())
		}
	}
	return s, nil
}
