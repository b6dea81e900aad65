package oneshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/table/ipc"
)

// Frame is how another program on this machine hands over a DataFrame and takes its results: by files that both have
// open and map into their memory. docs/formats/frame.md describes it.
type Frame struct {
	Ready    io.Reader // gives readyText when the rows are complete
	Rows     *os.File  // the rows: a stream of Arrow, or CSV
	Results  *os.File  // takes Prediction of all rows, and then Score: numbers of 8 bytes, NaN where there is none
	Coverage *os.File  // takes the coverage in the format of the configuration
}

// readyText is what the other program says when the rows are complete. If it is killed before, its end closes Ready without it.
const readyText = "ready\n"

// frameName is what messages call the rows.
const frameName = "the DataFrame"

// scoreFrame scores the rows of a DataFrame. The models are opened while the other program writes the rows.
func (r *run) scoreFrame(ctx context.Context) (err error) {
	var models fleet.Source
	var noModels error
	var opening sync.WaitGroup
	opening.Go(func() { models, noModels = r.models(ctx) })
	rows, in, err := r.readFrame(ctx)
	opening.Wait()
	defer func() {
		if rows != nil {
			err = errors.Join(err, unix.Munmap(rows))
		}
	}()
	if noModels != nil {
		return noModels
	}
	defer models.Close()
	if err != nil {
		return err
	}
	results, err := mapResults(r.cfg.Frame.Results, in.Rows.Len())
	if err != nil {
		return err
	}
	defer func() {
		if results != nil {
			err = errors.Join(err, unix.Munmap(results))
		}
	}()
	n := in.Rows.Len()
	numbers := unsafe.Slice((*float64)(unsafe.Pointer(unsafe.SliceData(results))), 2*n)
	r.buffers = scorer.Buffers{Prediction: numbers[:n:n], Score: numbers[n:]}
	result, err := r.score(ctx, in, models)
	if err != nil {
		return err
	}
	r.count(in, result)
	_, end := r.stage("writing", 0, "rows")
	defer end()
	return r.writeCoverage(r.cfg.Frame.Coverage, in, result)
}

// readFrame waits until the rows are complete, and reads them. The caller unmaps the memory that they refer to.
func (r *run) readFrame(ctx context.Context) (mapped []byte, in *table.Input, err error) {
	said, err := io.ReadAll(io.LimitReader(r.cfg.Frame.Ready, int64(len(readyText))))
	if err != nil || string(said) != readyText {
		return nil, nil, fleetscore.Errorf(fleetscore.Invalid, opScore, frameName, "the program that hands over the rows ended or stopped before they were complete")
	}
	_, end := r.stage("reading", 0, "MB")
	defer end()
	st, err := r.cfg.Frame.Rows.Stat()
	if err != nil {
		return nil, nil, fleetscore.Wrap(opScore, frameName, err)
	}
	if st.Size() > 0 {
		if mapped, err = unix.Mmap(int(r.cfg.Frame.Rows.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED|mapAhead); err != nil {
			return nil, nil, fleetscore.Errorf(fleetscore.Unavailable, opScore, frameName, "the memory with its rows can't be mapped: %w", err)
		}
	}
	schema, opt, err := r.columns()
	if err != nil {
		return mapped, nil, err
	}
	opt.Say = table.Words{TimeUnit: "pandas.to_datetime(…, unit=…)"}
	if bytes.HasPrefix(mapped, []byte(ipc.StreamMagic)) {
		in, err = ipc.ReadStream(ctx, frameName, mapped, schema, opt)
		return mapped, in, err
	}
	in, err = table.ReadSources(ctx, []table.Source{{Name: frameName, Format: table.CSV, SizeBytes: st.Size(), Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(mapped)), nil
	}}}, schema, opt)
	return mapped, in, err
}

// mapResults maps the memory for the results of n rows; nil for none.
func mapResults(f *os.File, n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	size := int64(n) * 16
	err := reserve(f, size)
	var mapped []byte
	if err == nil {
		mapped, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|mapAhead)
	}
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Exhausted, opScore, frameName, "there is no memory for the results: %w", err)
	}
	return mapped, nil
}
