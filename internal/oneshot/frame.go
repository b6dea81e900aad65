package oneshot

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
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
	result, err := r.score(ctx, in, models)
	if err != nil {
		return err
	}
	r.count(in, result)
	_, end := r.stage("writing", 0, "rows")
	defer end()
	written := make(chan error, 1) // the results are written at the same time
	go func() { written <- r.cfg.Frame.writeResults(result.Predictions) }()
	err = r.writeCoverage(r.cfg.Frame.Coverage, in, result)
	return cmp.Or(<-written, err)
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
		in, err = ipc.ReadStream(ctx, frameName, mapped, schema, opt, large[uint32])
		return mapped, in, err
	}
	in, err = table.ReadSources(ctx, []table.Source{{Name: frameName, Format: table.CSV, SizeBytes: st.Size(), Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(mapped)), nil
	}}}, schema, opt)
	return mapped, in, err
}

// writeResults gives the results their place in the file, whose size they become.
func (f *Frame) writeResults(p *fleetscore.Predictions) error {
	at := int64(0)
	for _, numbers := range [][]float64{p.Prediction, p.Score} {
		bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(numbers))), 8*len(numbers))
		n, err := f.Results.WriteAt(bytes, at)
		if err != nil {
			return fleetscore.Errorf(fleetscore.Exhausted, opScore, frameName, "the results can't be written: %w", err).WithHint("free some memory")
		}
		at += int64(n)
	}
	return fleetscore.Wrap(opScore, frameName, f.Results.Truncate(at))
}
