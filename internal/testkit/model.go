package testkit

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/fleetscore/fleetscore"
)

// GrowingModel returns a compressed pickle of a few KB that needs a thousand times its
// size in memory: a LinearRegression with n features whose coefficients are all 0.
func GrowingModel(n int, intercept float64) []byte {
	var b bytes.Buffer
	text := func(s string) { fmt.Fprintf(&b, "\x8c%c%s", len(s), s) }
	global := func(module, name string) { text(module); text(name); b.WriteByte(0x93) }
	number := func(i int32) { b.Write(binary.LittleEndian.AppendUint32([]byte("J"), uint32(i))) }
	float := func(f float64) { b.Write(binary.BigEndian.AppendUint64([]byte("G"), math.Float64bits(f))) }
	b.WriteString("\x80\x04")
	global("sklearn.linear_model._base", "LinearRegression")
	b.WriteString(")\x81}(")
	text("fit_intercept")
	b.WriteByte(0x88)
	text("n_features_in_")
	number(int32(n))
	text("intercept_")
	float(intercept)
	text("_sklearn_version")
	text("1.7.0")
	text("coef_")
	global("numpy.core.multiarray", "_reconstruct")
	global("numpy", "ndarray")
	number(0)
	b.WriteString("\x85C\x01b\x87R(")
	number(1)
	number(int32(n))
	b.WriteByte(0x85)
	global("numpy", "dtype")
	text("f8")
	b.WriteString("\x89\x88\x87R(")
	number(3)
	text("<")
	b.WriteString("NNN")
	number(-1)
	number(-1)
	number(0)
	b.WriteString("tb\x89")
	b.Write(binary.LittleEndian.AppendUint32([]byte("B"), uint32(8*n)))
	b.Write(make([]byte, 8*n))
	b.WriteString("tbub.")
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	_, _ = w.Write(b.Bytes()) // writing to a buffer can't fail
	_ = w.Close()
	return out.Bytes()
}

// Predictions are rows with the time TS, the key Device and the value Val: each key at
// each time, with the same value. They are predicted as normal, without a score.
func Predictions(keys []fleetscore.Key, times []fleetscore.Micros, value float64) *fleetscore.Predictions {
	p := &fleetscore.Predictions{Rows: fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Val"}, Values: make([][]float64, 1)}}
	for i, k := range keys {
		p.Keys = append(p.Keys, k)
		p.Models = append(p.Models, fleetscore.DigestOf([]byte(k)))
		for _, t := range times {
			p.KeyIndex = append(p.KeyIndex, uint32(i))
			p.Times = append(p.Times, t)
			p.Values[0] = append(p.Values[0], value)
			p.Prediction = append(p.Prediction, 0)
			p.Score = append(p.Score, math.NaN())
		}
	}
	return p
}
