package sklearn

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"regexp"
	"strings"

	"github.com/fleetscore/fleetscore/sklearn/internal/archive"
	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
)

// Origin is what a file tells of the environment that wrote it. Fields are empty where the
// file doesn't say.
type Origin struct {
	SKLearn string // the release of scikit-learn, such as "0.24.2"
	NumPy   string // the release of NumPy; of a pickle only "1" or "2" is known
	Python  string // the release of Python; only MLflow's folders say it
}

// String lists what is known, such as "scikit-learn 0.24.2, NumPy 1".
func (o Origin) String() string {
	var parts []string
	for _, p := range [][2]string{{"scikit-learn", o.SKLearn}, {"NumPy", o.NumPy}, {"Python", o.Python}} {
		if p[1] != "" {
			parts = append(parts, p[0]+" "+p[1])
		}
	}
	return strings.Join(parts, ", ")
}

// maxManifest is how many bytes of a text in an archive are read.
const maxManifest = 64 << 20

// OriginOf finds the releases that a file names, for files too that [Load] refuses. It
// reads no more than the texts in the file, so that it can be wrong where somebody wants it
// to be: choose an environment by it, but trust no model because of it.
func OriginOf(data []byte) Origin {
	if archive.IsZip(data) {
		return originOfZip(data)
	}
	if archive.Compressed(data) {
		b := budget.New(context.Background(), budget.Limits{}, len(data), false)
		plain, _, err := archive.Decompress(data, &b)
		if err != nil {
			return Origin{}
		}
		data = plain
	}
	return originOfPickle(data)
}

var versionKey = []byte("_sklearn_version")

func originOfPickle(data []byte) (o Origin) {
	rest := data
	for o.SKLearn == "" {
		at := bytes.Index(rest, versionKey)
		if at < 0 {
			break
		}
		rest = rest[at+len(versionKey):]
		o.SKLearn = textAfter(rest)
	}
	switch {
	case bytes.Contains(data, []byte("numpy._core")):
		o.NumPy = "2"
	case bytes.Contains(data, []byte("numpy.core")):
		o.NumPy = "1"
	}
	return o
}

var release = regexp.MustCompile(`^[0-9]+(\.[0-9A-Za-z]+)*$`)

// textAfter reads the text that a pickle pushes next, if it is a release.
func textAfter(b []byte) string {
	for len(b) > 1 {
		n, head := 0, 0
		switch b[0] {
		case '\'', '\n', 0x94: // the end of a text or a line; MEMOIZE
			b = b[1:]
			continue
		case 'q': // BINPUT
			b = b[2:]
			continue
		case 'p': // PUT
			end := bytes.IndexByte(b, '\n')
			if end < 0 {
				return ""
			}
			b = b[end:]
			continue
		case 'r': // LONG_BINPUT
			if len(b) < 5 {
				return ""
			}
			b = b[5:]
			continue
		case 0x8c, 'U': // SHORT_BINUNICODE, SHORT_BINSTRING
			n, head = int(b[1]), 2
		case 'X', 'T': // BINUNICODE, BINSTRING
			if len(b) < 5 {
				return ""
			}
			n, head = int(binary.LittleEndian.Uint32(b[1:])), 5
		case 'V', 'S': // UNICODE, STRING
			n, head = bytes.IndexByte(b, '\n')-1, 1
		}
		if n <= 0 || n > 40 || head+n > len(b) {
			return ""
		}
		if text := strings.Trim(string(b[head:head+n]), "'"); release.MatchString(text) {
			return text
		}
		return ""
	}
	return ""
}

var (
	skopsVersion  = regexp.MustCompile(`"_sklearn_version":\s*\{[^{}]*"content":\s*"\\"([0-9][^"\\]*)\\""`)
	mlflowPython  = regexp.MustCompile(`(?m)^\s*python_version:\s*["']?([0-9][0-9.]*)`)
	mlflowSKLearn = regexp.MustCompile(`(?m)^\s*sklearn_version:\s*["']?([0-9][0-9A-Za-z.]*)`)
	listedNumPy   = regexp.MustCompile(`(?mi)^\s*numpy==([0-9][0-9A-Za-z.]*)`)
	listedSKLearn = regexp.MustCompile(`(?mi)^\s*scikit-learn==([0-9][0-9A-Za-z.]*)`)
)

// originOfZip reads a skops file, or a folder of MLflow as an archive.
func originOfZip(data []byte) (o Origin) {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return o
	}
	set := func(to *string, pattern *regexp.Regexp, text []byte) {
		if m := pattern.FindSubmatch(text); m != nil && *to == "" {
			*to = string(m[1])
		}
	}
	for _, f := range z.File {
		switch f.Name {
		case "schema.json":
			set(&o.SKLearn, skopsVersion, member(f))
		case "MLmodel":
			text := member(f)
			set(&o.Python, mlflowPython, text)
			set(&o.SKLearn, mlflowSKLearn, text)
		case "requirements.txt":
			text := member(f)
			set(&o.NumPy, listedNumPy, text)
			set(&o.SKLearn, listedSKLearn, text)
		}
	}
	return o
}

// member reads the beginning of a file of an archive; nothing if it is damaged.
func member(f *zip.File) []byte {
	in, err := f.Open()
	if err != nil {
		return nil
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxManifest))
	if err != nil {
		return nil
	}
	return text
}
