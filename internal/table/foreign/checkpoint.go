package foreign

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/parquet-go/parquet-go"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table/sound"
)

// checkpointRow is what of a checkpoint's row is looked at.
type checkpointRow struct {
	Add *struct {
		Path            *string            `parquet:"path,optional"`
		Size            *int64             `parquet:"size,optional"`
		Stats           *string            `parquet:"stats,optional"`
		PartitionValues map[string]*string `parquet:"partitionValues,optional"`
		DeletionVector  *struct {
			StorageType    *string `parquet:"storageType,optional"`
			PathOrInlineDv *string `parquet:"pathOrInlineDv,optional"`
			Offset         *int32  `parquet:"offset,optional"`
			SizeInBytes    *int32  `parquet:"sizeInBytes,optional"`
			Cardinality    *int64  `parquet:"cardinality,optional"`
		} `parquet:"deletionVector,optional"`
	} `parquet:"add,optional"`
	MetaData *struct {
		SchemaString     *string            `parquet:"schemaString,optional"`
		PartitionColumns []string           `parquet:"partitionColumns,list,optional"`
		Configuration    map[string]*string `parquet:"configuration,optional"`
	} `parquet:"metaData,optional"`
	Protocol *struct {
		MinReaderVersion *int32   `parquet:"minReaderVersion,optional"`
		ReaderFeatures   []string `parquet:"readerFeatures,list,optional"`
	} `parquet:"protocol,optional"`
	Sidecar *struct {
		Path *string `parquet:"path,optional"`
	} `parquet:"sidecar,optional"`
}

// rowsOf reads rows a few at a time, because a damaged file may say that it has very many.
func rowsOf(in *parquet.GenericReader[checkpointRow]) iter.Seq2[checkpointRow, error] {
	return func(yield func(checkpointRow, error) bool) {
		for {
			buf := make([]checkpointRow, 256)
			n, err := in.Read(buf)
			for _, r := range buf[:n] {
				if !yield(r, nil) {
					return
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					yield(checkpointRow{}, err)
				}
				return
			}
		}
	}
}

// parquet reads a file of actions in Parquet.
func (s *state) parquet(ctx context.Context, name string) (sidecars []string, err error) {
	data, err := store.ReadAll(ctx, s.b, fleetscore.BlobName(name))
	if err != nil {
		return nil, err
	}
	defer func() { // the library panics on some corrupt files
		if p := recover(); p != nil {
			sidecars, err = nil, corrupt(name, "not a sound Parquet file: %v", p)
		}
	}()
	file, err := sound.Open(data)
	if err != nil {
		return nil, corrupt(name, "not a sound Parquet file: %w", err)
	}
	in := parquet.NewGenericReader[checkpointRow](file)
	defer in.Close()
	for r, err := range rowsOf(in) {
		if err != nil {
			return nil, corrupt(name, "%w", err)
		}
		switch {
		case r.Add != nil && r.Add.Path != nil:
			a := &addFile{Path: *r.Add.Path, Size: value(r.Add.Size), Stats: value(r.Add.Stats), PartitionValues: r.Add.PartitionValues}
			if v := r.Add.DeletionVector; v != nil && v.StorageType != nil {
				a.DeletionVector = &vector{StorageType: *v.StorageType, PathOrInlineDv: value(v.PathOrInlineDv), Offset: int64(value(v.Offset)),
					SizeInBytes: int64(value(v.SizeInBytes)), Cardinality: value(v.Cardinality)}
			}
			s.files[a.Path] = a
		case r.MetaData != nil && r.MetaData.SchemaString != nil:
			s.meta = &metaData{SchemaString: *r.MetaData.SchemaString, PartitionColumns: r.MetaData.PartitionColumns, Configuration: map[string]string{}}
			for k, v := range r.MetaData.Configuration {
				s.meta.Configuration[k] = value(v)
			}
		case r.Protocol != nil && r.Protocol.MinReaderVersion != nil:
			s.protocol = &protocol{MinReaderVersion: int(*r.Protocol.MinReaderVersion), ReaderFeatures: r.Protocol.ReaderFeatures}
		case r.Sidecar != nil && r.Sidecar.Path != nil:
			sidecars = append(sidecars, *r.Sidecar.Path)
		}
	}
	return sidecars, nil
}

// value is what p points to; the zero value for nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
