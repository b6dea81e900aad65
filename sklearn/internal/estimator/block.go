package estimator

import (
	"math"
	"unsafe"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

// BlockRows is how many rows go through all steps at once. It is large enough to
// amortise the calls, and small enough for a block with a few features to stay in the
// first-level cache.
const BlockRows = 256

// Block holds some rows, column by column, so that the rows lie in the lanes of vector
// instructions. The values between Rows and Stride are padding without meaning.
type Block struct {
	X      []float64
	Rows   int
	Cols   int
	Stride int  // Rows, padded to whole vectors
	First  int  // the number of the first row within the call, for messages
	Finite bool // true if every value is known to be finite; false if this isn't known
}

// Col returns the values of a column.
func (b *Block) Col(c int) []float64 { return b.X[c*b.Stride : c*b.Stride+b.Rows : (c+1)*b.Stride] }

// Lanes returns a column with its padding.
func (b *Block) Lanes(c int) []float64 { return b.X[c*b.Stride : (c+1)*b.Stride : (c+1)*b.Stride] }

// Row copies a row into dst.
func (b *Block) Row(r int, dst []float64) {
	for c := range b.Cols {
		dst[c] = b.X[c*b.Stride+r]
	}
}

// CheckFinite refuses NaN and infinity, as scikit-learn does.
func (b *Block) CheckFinite(class string) error {
	if b.Finite {
		return nil
	}
	for c := range b.Cols {
		if !kernel.Finite(b.Col(c)) {
			return b.notFinite(class, c, false)
		}
	}
	return nil
}

// CheckNotInfinite refuses infinity and accepts NaN, which means a missing value.
func (b *Block) CheckNotInfinite(class string) error {
	if b.Finite {
		return nil
	}
	for c := range b.Cols {
		if kernel.Finite(b.Col(c)) {
			continue
		}
		for _, v := range b.Col(c) {
			if math.IsInf(v, 0) {
				return b.notFinite(class, c, true)
			}
		}
	}
	return nil
}

func (b *Block) notFinite(class string, c int, nanFits bool) error {
	for r, v := range b.Col(c) {
		if math.IsInf(v, 0) || (!nanFits && math.IsNaN(v)) {
			return Refuse("%s got %v in row %d, feature %d; scikit-learn refuses it too", class, v, b.First+r, c).
				WithHint("drop the row or fill the value before scoring")
		}
	}
	return nil
}

// Refuse returns the error for rows that can't be scored.
func Refuse(format string, args ...any) *fleetscore.Error {
	return fleetscore.Errorf(fleetscore.Invalid, "predict", "", format, args...)
}

// Workspace is working memory that is used again from call to call.
type Workspace struct {
	floats []float64
	used   int
	blocks []Block
	given  int
	words  []uint32
	spent  int
}

// Reset makes all memory available again.
func (w *Workspace) Reset() { w.used, w.given, w.spent = 0, 0, 0 }

// Floats returns n numbers with undefined values. They are valid until Reset.
func (w *Workspace) Floats(n int) []float64 {
	if w.used+n > len(w.floats) {
		w.floats = make([]float64, max(2*len(w.floats), n, 1024)) // the slices returned so far keep the old memory
		w.used = 0
	}
	w.used += n
	return w.floats[w.used-n : w.used : w.used]
}

// Int32s returns n numbers with undefined values. They are valid until Reset.
func (w *Workspace) Int32s(n int) []int32 {
	u := w.Uint32s(n)
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(u))), n)
}

// Uint32s returns n numbers with undefined values. They are valid until Reset.
func (w *Workspace) Uint32s(n int) []uint32 {
	if w.spent+n > len(w.words) {
		w.words = make([]uint32, max(2*len(w.words), n, 1024))
		w.spent = 0
	}
	w.spent += n
	return w.words[w.spent-n : w.spent : w.spent]
}

// Uint64s returns n numbers with undefined values. They are valid until Reset.
func (w *Workspace) Uint64s(n int) []uint64 {
	f := w.Floats(n)
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(f))), n)
}

// Block returns a block for as many rows as like has. It is valid until Reset.
func (w *Workspace) Block(like *Block, cols int) *Block {
	b := w.header()
	*b = Block{X: w.Floats(like.Stride * cols), Rows: like.Rows, Cols: cols, Stride: like.Stride, First: like.First}
	return b
}

// NewBlock returns a block for rows. It is valid until Reset.
func (w *Workspace) NewBlock(rows, cols, first int) *Block {
	stride := kernel.Pad(rows)
	b := w.header()
	*b = Block{X: w.Floats(stride * cols), Rows: rows, Cols: cols, Stride: stride, First: first}
	return b
}

// View returns neighbouring columns of a block as a block.
func (w *Workspace) View(of *Block, from, cols int) *Block {
	b := w.header()
	*b = *of
	b.Cols = cols
	b.X = of.X[from*of.Stride : (from+cols)*of.Stride]
	return b
}

func (w *Workspace) header() *Block {
	if w.given == len(w.blocks) {
		w.blocks = make([]Block, max(16, 2*len(w.blocks)))
		w.given = 0
	}
	w.given++
	return &w.blocks[w.given-1]
}
