package pickle

import (
	"encoding/binary"
	"strings"
	"unicode"
)

// Use says how the reader treats a class or function that a file names. None of them is
// ever called.
type Use uint8

// The uses that a caller's names may have.
const (
	Class  Use = iota + 1 // an estimator, which the file makes empty and then gives its attributes as a dict
	Record                // another class or function whose arguments and state the caller reads
	Inert                 // allowed in a file, but never read
)

// The uses of names that the reader itself interprets.
const (
	reconstruct Use = iota + 16 // numpy: an array; BUILD sets its content
	frombuffer                  // numpy: an array from bytes
	scalar                      // numpy: one number
	ndarray
	dtypeClass
	encode        // bytes, as a string and a codec
	reconstructor // makes an object, in protocols 0 and 1
	newobj        // the same under another name
	object
	bytesClass
	bytearrayClass
	orderedDict
	setClass
	arrayWrapper // joblib: an array whose content follows in the stream
	createArray  // dill: an array, from the function, arguments and state of reconstruct
)

// Name is a class or function that a file may contain, with its exact spelling.
type Name struct {
	Module, Name string
	Use          Use
	ID           int  // the caller's number for it
	Retired      bool // a module that the newest release doesn't have
}

// Names is the whole list of names that a file may contain. It is immutable.
type Names struct {
	list      []Name
	slots     []int16 // indexes into list by hash; a collision takes the next free slot; −1 is free
	supported string
}

// NewNames returns a list of the caller's names and of the names that pickles of NumPy
// arrays and plain objects need. supported is a text for messages.
func NewNames(own []Name, supported string) *Names {
	n := &Names{list: append(own[:len(own):len(own)], structural[:]...), supported: supported}
	size := 1024
	for size < 4*len(n.list) {
		size *= 2
	}
	n.slots = make([]int16, size)
	for i := range n.slots {
		n.slots[i] = -1
	}
	for i, g := range n.list {
		at := hash([]byte(g.Module), []byte(g.Name))
		for { // if a name is listed twice, the last entry counts
			j := n.slots[at%uint32(size)]
			if j < 0 || (n.list[j].Module == g.Module && n.list[j].Name == g.Name) {
				break
			}
			at++
		}
		n.slots[at%uint32(size)] = int16(i)
	}
	return n
}

// find returns a name's index in the list, or −1 if the name isn't there.
func (n *Names) find(module, name []byte) int {
	for at := hash(module, name); ; at++ {
		i := n.slots[at%uint32(len(n.slots))]
		if i < 0 {
			return -1
		}
		if g := &n.list[i]; g.Name == string(name) && g.Module == string(module) {
			return int(i)
		}
	}
}

// hash is fast but weak. That is enough: the list is fixed, and a name that isn't on it
// costs only a few comparisons.
func hash(module, name []byte) uint32 {
	h := uint32(len(module))<<8 | uint32(len(name))
	for _, b := range [...][]byte{module, name} {
		if len(b) >= 8 {
			u := binary.LittleEndian.Uint64(b[len(b)-8:]) ^ 31*binary.LittleEndian.Uint64(b)
			h = h*0x9e3779b1 ^ uint32(u*0x9e3779b97f4a7c15>>32)
			continue
		}
		for _, c := range b {
			h = h*33 + uint32(c)
		}
	}
	return h ^ h>>15
}

var structural = [...]Name{
	{"numpy.core.multiarray", "_reconstruct", reconstruct, 0, false},
	{"numpy._core.multiarray", "_reconstruct", reconstruct, 0, false},
	{"numpy.core.multiarray", "scalar", scalar, 0, false},
	{"numpy._core.multiarray", "scalar", scalar, 0, false},
	{"numpy.core.numeric", "_frombuffer", frombuffer, 0, false},
	{"numpy._core.numeric", "_frombuffer", frombuffer, 0, false},
	{"numpy", "ndarray", ndarray, 0, false},
	{"numpy", "dtype", dtypeClass, 0, false},

	{"_codecs", "encode", encode, 0, false},
	{"copy_reg", "_reconstructor", reconstructor, 0, false},
	{"copyreg", "_reconstructor", reconstructor, 0, false},
	{"copy_reg", "__newobj__", newobj, 0, false},
	{"copyreg", "__newobj__", newobj, 0, false},
	{"__builtin__", "object", object, 0, false},
	{"builtins", "object", object, 0, false},
	{"__builtin__", "bytes", bytesClass, 0, false},
	{"builtins", "bytes", bytesClass, 0, false},
	{"__builtin__", "bytearray", bytearrayClass, 0, false},
	{"builtins", "bytearray", bytearrayClass, 0, false},
	{"collections", "OrderedDict", orderedDict, 0, false},
	{"__builtin__", "set", setClass, 0, false},
	{"builtins", "set", setClass, 0, false},
	{"__builtin__", "frozenset", setClass, 0, false},
	{"builtins", "frozenset", setClass, 0, false},

	{"joblib.numpy_pickle", "NumpyArrayWrapper", arrayWrapper, 0, false},
	{"sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper", arrayWrapper, 0, true},

	{"dill._dill", "_create_array", createArray, 0, false},
	{"builtins", "getattr", Inert, 0, false}, // a method of a scorer; a call of its result is refused
	{"__builtin__", "getattr", Inert, 0, false},

	// Random generators that a random_state or an estimator keeps.
	{"numpy.random", "__RandomState_ctor", Inert, 0, false},
	{"numpy.random._pickle", "__randomstate_ctor", Inert, 0, false},
	{"numpy.random._pickle", "__generator_ctor", Inert, 0, false},
	{"numpy.random._pickle", "__bit_generator_ctor", Inert, 0, false},
	{"numpy.random._mt19937", "MT19937", Inert, 0, false},
	{"numpy.random._pcg64", "PCG64", Inert, 0, false},
	{"numpy.random.mtrand", "RandomState", Inert, 0, false},
	// Values that people store together with a model in a dict.
	{"datetime", "datetime", Inert, 0, false},
	{"datetime", "date", Inert, 0, false},
	{"datetime", "time", Inert, 0, false},
	{"datetime", "timedelta", Inert, 0, false},
	{"datetime", "timezone", Inert, 0, false},
	{"decimal", "Decimal", Inert, 0, false},
	{"fractions", "Fraction", Inert, 0, false},
	{"uuid", "UUID", Inert, 0, false},
	{"pathlib", "PosixPath", Inert, 0, false},
	{"pathlib", "PurePosixPath", Inert, 0, false},
	{"pathlib", "WindowsPath", Inert, 0, false},
	{"pathlib", "PureWindowsPath", Inert, 0, false},
	{"pathlib._local", "PosixPath", Inert, 0, false},
	{"pathlib._local", "WindowsPath", Inert, 0, false},
	{"collections", "defaultdict", Inert, 0, false},
	{"collections", "Counter", Inert, 0, false},
	{"collections", "deque", Inert, 0, false},
	// Types that are used as parameters, for example by OneHotEncoder or
	// PolynomialFeatures.
	{"numpy", "float64", Inert, 0, false},
	{"numpy", "float32", Inert, 0, false},
	{"numpy", "int64", Inert, 0, false},
	{"numpy", "int32", Inert, 0, false},
	{"numpy", "bool_", Inert, 0, false},
	{"numpy", "bool", Inert, 0, false},
}

// Clean returns a name from a file in a form that is safe in a message.
func Clean(b []byte) string {
	const limit = 100
	if len(b) <= limit && plain(b) {
		return string(b)
	}
	var s strings.Builder
	for i, r := range string(b[:min(len(b), 4*limit)]) {
		if i >= limit {
			s.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			r = '?'
		}
		s.WriteRune(r)
	}
	return s.String()
}

// plain reports whether all bytes are printable ASCII.
func plain(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
