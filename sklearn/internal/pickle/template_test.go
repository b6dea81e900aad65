package pickle

import (
	"context"
	"encoding/binary"
	"math"
	"testing"

	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
)

// shaped returns a pickle of a tuple: integers of three widths, a float, bytes, a text.
func shaped(small byte, medium uint16, wide int32, float float64, raw, text string) []byte {
	b := []byte("\x80\x04(K")
	b = append(b, small, 'M')
	b = binary.LittleEndian.AppendUint16(b, medium)
	b = binary.LittleEndian.AppendUint32(append(b, 'J'), uint32(wide))
	b = binary.BigEndian.AppendUint64(append(b, 'G'), math.Float64bits(float))
	b = append(append(b, 'C', byte(len(raw))), raw...)
	b = append(append(b, 0x8c, byte(len(text))), text...)
	return append(b, 't', '.')
}

// TestTemplates: a file with the shape of earlier files is read with its own numbers; a
// file that differs in another way is parsed.
func TestTemplates(t *testing.T) {
	names, other := NewNames(nil, ""), NewNames(nil, "")
	hits := 0
	read := func(data []byte, names *Names) (items []Value, g *Graph, err error) {
		g, root, err := Parse(data, names, budget.New(context.Background(), budget.Limits{}, len(data), false))
		if err != nil {
			return nil, nil, err
		}
		if g.template != nil {
			hits++
		}
		return g.Tuple(root), g, nil
	}
	for round := range 200 {
		small, medium, wide := byte(round*37), uint16(round*4099), int32(round-100)*20_000_000
		float, raw, text := float64(round)/3, string(rune('a'+round%26))+"bc", "same"
		if round%10 == 9 {
			text = "else"
		}
		list := names
		if round%10 == 8 {
			list = other
		}
		items, g, err := read(shaped(small, medium, wide, float, raw, text), list)
		if err != nil {
			t.Fatal(err)
		}
		if g.template != nil && (text != "same" || g.names != g.template.names) {
			t.Fatal("a template was taken for a file that differs")
		}
		f, _ := g.Number(items[3])
		b, _ := g.payload(items[4])
		s, _ := g.Text(items[5])
		if g.Int(items[0]) != int64(small) || g.Int(items[1]) != int64(medium) || g.Int(items[2]) != int64(wide) || f != float || string(b) != raw || string(s) != text {
			t.Fatalf("round %d: %d %d %d %v %q %q", round, g.Int(items[0]), g.Int(items[1]), g.Int(items[2]), f, b, s)
		}
		g.Release()
		cut := shaped(small, medium, wide, float, raw, "same")
		cut[len(cut)-1] = '0'
		if _, _, err := read(cut, names); err == nil {
			t.Fatal("a file without an end was read")
		}
	}
	if hits < 50 {
		t.Errorf("%d of 200 files were taken from a template", hits)
	}
}
