package python

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzFrames: a process of Python, which runs other people's code, may answer anything.
func FuzzFrames(f *testing.F) {
	frame := func(header, body string) []byte {
		head := binary.LittleEndian.AppendUint32(nil, uint32(len(header)))
		return append(binary.LittleEndian.AppendUint64(head, uint64(len(body))), header+body...)
	}
	for _, s := range []string{`{}`, `{"keys":[{"key":-1,"rows":1,"load":1e300}],"end":true}`, `{"error":{"type":"MemoryError"}}`, `{"printed":{"key":7,"stream":"x","text":"y"}}`, `[`} {
		f.Add(frame(s, ""))
		f.Add(frame(s, "\x00\x00\x00\x00\x00\x00\xf0\x3f\x00\x00\x00\x00\x00\x00\xf8\xff"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= 4 && binary.LittleEndian.Uint32(data) > 1<<20 {
			return // it takes the memory of a large answer until the end of the file is noticed
		}
		h, body, err := readFrame(bytes.NewReader(data), 1<<16)
		if err != nil {
			return
		}
		for _, k := range h.Keys {
			if duration(k.Load) < 0 || k.Error != nil && k.Error.Error() == "" && k.Error.Type+k.Error.Text != "" {
				t.Fatalf("%+v", k)
			}
		}
		_, _, _ = values(body) // an error or not
	})
}
