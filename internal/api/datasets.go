package api

import (
	"cmp"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/files"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// Dataset is a table of rows, complete up to a time.
type Dataset struct {
	Name          string     `json:"name"`
	Query         string     `json:"query,omitempty" doc:"the query that writes the dataset; empty if rows are uploaded"`
	Time          string     `json:"time" doc:"name of the time column"`
	Key           []string   `json:"key" nullable:"false"`
	Values        []string   `json:"values" nullable:"false"`
	Rows          int64      `json:"rows"`
	Files         int        `json:"files"`
	SizeBytes     int64      `json:"size_bytes"`
	First         *time.Time `json:"first,omitempty" doc:"smallest stamp"`
	Last          *time.Time `json:"last,omitempty" doc:"largest stamp"`
	CompleteUntil *time.Time `json:"complete_until,omitempty" doc:"no row with this stamp or an earlier one is still expected"`
	Version       int64      `json:"version" doc:"version of the Delta table"`
	Stream        *Stream    `json:"stream,omitempty" doc:"what the query that writes the dataset does, on the server that runs it; only if one dataset is read"`
	Problem       string     `json:"problem,omitempty" doc:"why the dataset, or a file of it, can't be read; the other fields are empty if the whole dataset can't be read"`
}

// Stream says what a query has done since the server's start, and what it holds, over all partitions.
type Stream struct {
	Counted   int64 `json:"counted" doc:"readings that count"`
	Revised   int64 `json:"revised" doc:"late readings for which rows were computed again"`
	Revisions int64 `json:"revisions" doc:"commits for which rows were computed again"`
	Reread    int64 `json:"reread" doc:"readings that were read again for that"`
	RowsAhead int64 `json:"rows_ahead" doc:"rows that wait for sensors which are further behind, with TIMESTAMP BY … OVER"`
	HeldBytes int64 `json:"held_bytes" doc:"memory of what is open and of rows that aren't committed, estimated"`
}

// ParquetType is the media type of Parquet.
const ParquetType = "application/vnd.apache.parquet"

// Uploaded says what an upload did. Each row of the body is counted once among
// added, replaced, same and repeated.
type Uploaded struct {
	Dataset       string     `json:"dataset"`
	Rows          int64      `json:"rows" doc:"rows in the body"`
	Added         int64      `json:"added" doc:"rows with a key and time that the dataset didn't have"`
	Replaced      int64      `json:"replaced" doc:"rows that replaced a row with the same key and time"`
	Same          int64      `json:"same" doc:"rows that were already there, with the same values"`
	Repeated      int64      `json:"repeated" doc:"rows that a later row of the body with the same key and time replaced"`
	CompleteUntil *time.Time `json:"complete_until,omitempty"`
	Version       int64      `json:"version" doc:"version of the Delta table"`
	Nearest       string     `json:"nearest,omitempty" doc:"if the upload made the dataset and no pipeline scores it: a known dataset with a similar name, which may have been meant"`
}

func (s *server) registerDatasets(api huma.API) {
	add(api, huma.Operation{OperationID: "list datasets", Method: http.MethodGet, Path: "/datasets", Tags: []string{"datasets"}, Summary: "Datasets"}, s.listDatasets)
	add(api, huma.Operation{OperationID: "read dataset", Method: http.MethodGet, Path: "/datasets/{name}", Tags: []string{"datasets"}, Summary: "A dataset"}, s.getDataset)
	rb := bytesBody("text/csv", "rows as CSV with a header line, as NDJSON or as Parquet; the first two may be compressed by gzip or zstd")
	rb.Content["application/x-ndjson"], rb.Content[ParquetType] = rb.Content["text/csv"], rb.Content["text/csv"]
	add(api, huma.Operation{OperationID: "upload rows", Method: http.MethodPost, Path: "/datasets/{name}/rows", Tags: []string{"datasets"}, Summary: "Add rows; a row with the key and time of an earlier one replaces it",
		RequestBody: rb}, s.uploadRows)
	add(api, huma.Operation{OperationID: "maintain tables", Method: http.MethodPost, Path: "/maintenance", Tags: []string{"datasets"},
		Summary: "Join small files of the tables, remove rows that are older than their retention, and delete files that are no longer needed, as the server does by itself from time to time"}, s.maintain)
}

type maintainInput struct {
	Dataset string `query:"dataset" doc:"only this dataset; by default all datasets, predictions and coverage, the logs and the ledger"`
	DryRun  bool   `query:"dry_run" doc:"only say what is older than its retention, or beyond a bound of size; nothing is changed"`
	Author  string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
}

func (s *server) maintain(ctx context.Context, in *maintainInput) (*body[List[catalog.Maintained]], error) {
	if in.Dataset != "" {
		if err := catalog.CheckDataset(in.Dataset); err != nil {
			return nil, err
		}
	}
	done, err := s.deps.Scheduler.Maintain(ctx, catalog.Maintenance{Dataset: in.Dataset, Dry: in.DryRun})
	if err != nil {
		return nil, err
	}
	if !in.DryRun {
		s.audit(ctx, in.Author, "maintain", cmp.Or(in.Dataset, "all tables"))
	}
	return answerList(done, ""), nil
}

// writers maps a dataset to the query that writes it.
func writers(cfg fleetscore.Config) map[string]string {
	out := map[string]string{}
	for name, q := range cfg.Queries {
		plans, _ := query.Parse(q.SQL, cfg.Hub.Key) // the query was checked when it was applied
		for _, p := range plans {
			out[p.Into] = name
		}
	}
	return out
}

func (s *server) listDatasets(ctx context.Context, _ *struct{}) (*body[List[Dataset]], error) {
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	var out []Dataset
	names, err := s.deps.Catalog.Datasets(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		d, err := s.dataset(ctx, name, writers(cfg))
		switch {
		case fleetscore.NotFound.Is(err):
			continue
		case fleetscore.Corrupt.Is(err): // the other datasets are listed
			d = Dataset{Name: name, Key: []string{}, Values: []string{}, Problem: err.Error()}
		case err != nil:
			return nil, err
		}
		out = append(out, d)
	}
	return answerList(out, ""), nil
}

// DatasetPath is the path of a dataset.
type DatasetPath struct {
	Name string `path:"name"`
}

func (s *server) getDataset(ctx context.Context, in *DatasetPath) (*body[Dataset], error) {
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	d, err := s.dataset(ctx, in.Name, writers(cfg))
	if fleetscore.NotFound.Is(err) {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "read dataset", in.Name, "there is no such dataset, or it has no rows yet").
			WithHint("fleetscore dataset list shows all datasets")
	}
	for _, q := range s.deps.Queries() {
		if q.Dataset != in.Name {
			continue
		}
		d.Stream = &Stream{}
		for _, p := range q.Partitions {
			x := d.Stream
			x.Counted, x.Revised, x.Revisions, x.Reread = x.Counted+p.Counted, x.Revised+p.Revised, x.Revisions+p.Revisions, x.Reread+p.Reread
			x.RowsAhead, x.HeldBytes = x.RowsAhead+int64(p.RowsAhead), x.HeldBytes+p.HeldBytes
		}
	}
	return answer(d), err
}

func (s *server) dataset(ctx context.Context, name string, written map[string]string) (Dataset, error) {
	if err := catalog.CheckDataset(name); err != nil {
		return Dataset{}, err
	}
	t := s.deps.Catalog.Dataset(name)
	snap, err := t.Snapshot(ctx)
	if err != nil {
		return Dataset{}, err
	}
	d := Dataset{Name: name, Problem: t.Damage(), Query: written[name], Time: snap.Schema.Time, Key: snap.Schema.Key, Values: snap.Schema.Values(),
		Files: len(snap.Files), Version: snap.Version}
	if d.Values == nil {
		d.Values = []string{}
	}
	for _, f := range snap.Files {
		d.Rows += f.Rows
		d.SizeBytes += f.SizeBytes
		if first := f.First.Time(); d.First == nil || first.Before(*d.First) {
			d.First = &first
		}
		if last := f.Last.Time(); d.Last == nil || last.After(*d.Last) {
			d.Last = &last
		}
	}
	if m, ok := catalog.CompleteUntil(snap, s.now()); ok {
		t := m.Time()
		d.CompleteUntil = &t
	}
	return d, nil
}

type uploadRowsInput struct {
	DatasetPath
	Key           []string       `query:"key" doc:"key columns; by default the key columns of the hub"`
	Time          string         `query:"time" doc:"time column; by default the time column of the hub"`
	Values        []string       `query:"values" doc:"value columns; by default the value columns of the dataset; for a new dataset, all other columns with a number in the first row"`
	TimeUnit      table.TimeUnit `query:"time_unit" doc:"unit of times that are numbers since 1970: s, ms, us or ns"`
	CompleteUntil time.Time      `query:"complete_until" doc:"time until which the dataset is complete; by default the time of its last row. It never moves back"`
	ContentType   string         `header:"Content-Type"`
	Author        string         `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Upload
}

func (s *server) uploadRows(ctx context.Context, in *uploadRowsInput) (*body[Uploaded], error) {
	if err := catalog.CheckDataset(in.Name); err != nil {
		return nil, err
	}
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	if q, ok := writers(cfg)[in.Name]; ok {
		return nil, fleetscore.Errorf(fleetscore.Conflict, "upload rows to dataset", in.Name, "query %s writes this dataset", q).
			WithHint("upload under another name, and let a pipeline score that dataset")
	}
	similar, err := s.similarDataset(ctx, cfg, in.Name)
	if err != nil {
		return nil, err
	}
	out, err := s.takeUpload(ctx, in, cfg.Hub)
	if err != nil {
		return nil, err
	}
	out.Nearest = similar
	s.audit(ctx, in.Author, "upload", "dataset "+in.Name)
	return answer(*out), nil
}

// similarDataset is a known dataset that may be meant by a name that isn't known; empty if
// the name is known or similar to no other.
func (s *server) similarDataset(ctx context.Context, cfg fleetscore.Config, name string) (string, error) {
	known, err := s.deps.Catalog.Datasets(ctx)
	if err != nil {
		return "", err
	}
	for _, p := range cfg.Pipelines {
		known = append(known, p.Dataset)
	}
	for written := range writers(cfg) {
		known = append(known, written)
	}
	slices.Sort(known)
	if slices.Contains(known, name) {
		return "", nil
	}
	return fleetscore.Nearest(name, known), nil
}

// takeUpload receives the whole body into a file and then puts its rows into the
// dataset. Rows take several times the memory of their text, so only one upload at a
// time is read into memory, and only after its body has arrived.
func (s *server) takeUpload(ctx context.Context, in *uploadRowsInput, hub fleetscore.HubConfig) (*Uploaded, error) {
	const op = "upload rows to dataset"
	f, err := durable.Scratch(s.cfg.TempDir)
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, op, in.Name, "%w", err).WithHint("check the server's folder for temporary files, %s", cmp.Or(s.cfg.TempDir, os.TempDir()))
	}
	defer f.Close()
	arriving := &failing{r: in.body(s.cfg.MaxUploadBytes)}
	if _, err := io.Copy(f, arriving); arriving.err != nil {
		return nil, fleetscore.Wrap(op, in.Name, bodyError(arriving.err))
	} else if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Exhausted, op, in.Name, "%w", err).WithHint("free space on the server's disk")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fleetscore.Wrap(op, in.Name, err)
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	rows, err := s.readUpload(ctx, in, f, hub)
	if err != nil {
		return nil, err
	}
	return s.commitUpload(ctx, in, rows)
}

// readUpload reads the body's rows.
func (s *server) readUpload(ctx context.Context, in *uploadRowsInput, body io.Reader, hub fleetscore.HubConfig) (*fleetscore.Rows, error) {
	schema := table.Schema{Time: in.Time, Key: in.Key, Values: in.Values}
	if schema.Time == "" {
		schema.Time = hub.Time
	}
	if len(schema.Key) == 0 {
		schema.Key = hub.Key
	}
	if schema.Time == "" || len(schema.Key) == 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "upload rows to dataset", in.Name, "the request doesn't name the time column and the key columns, and there is no configuration that does").
			WithHint("name them in the query (time=TS&key=Device,Tag), or with --time and --key of fleetscore dataset upload, or apply a configuration first: fleetscore apply")
	}
	if snap, err := s.deps.Catalog.Dataset(in.Name).Snapshot(ctx); err == nil && len(schema.Values) == 0 {
		schema.Values = snap.Schema.Values()
	} else if err != nil && !fleetscore.NotFound.Is(err) {
		return nil, err
	}
	got, err := s.readBody(ctx, in, body, schema)
	if err != nil {
		return nil, fleetscore.Wrap("upload rows to dataset", in.Name, err)
	}
	rows := got.Rows
	if rows.Len() == 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "upload rows to dataset", in.Name, "the body contains no rows")
	}
	if len(rows.ValueNames) == 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "upload rows to dataset", in.Name, "no column except time and key has a number in the first row").
			WithHint("say which columns are values: values=NAME,… in the query, or --value of fleetscore dataset upload")
	}
	return rows, nil
}

// readBody reads the rows in the format that the request names.
func (s *server) readBody(ctx context.Context, in *uploadRowsInput, body io.Reader, schema table.Schema) (*table.Input, error) {
	opt := table.ReadOptions{TimeUnit: in.TimeUnit, MaxRows: s.cfg.MaxUploadBytes / 16, Say: table.Words{TimeUnit: "?time_unit="}}
	if err := opt.TimeUnit.Validate(); err != nil {
		return nil, err
	}
	read := table.ReadCSV
	switch mt, _, _ := mime.ParseMediaType(in.ContentType); mt {
	case "", "text/csv", "application/csv", "text/plain", "text/tab-separated-values", "application/octet-stream", "application/gzip", "application/zstd":
	case "application/x-ndjson", "application/jsonl", "application/x-jsonlines", "application/json":
		read = table.ReadNDJSON
	case ParquetType, "application/x-parquet", "application/parquet":
		data, err := io.ReadAll(body)
		if err != nil {
			return nil, err
		}
		return table.ReadParquet("body", data, schema, opt)
	default:
		return nil, fleetscore.Errorf(fleetscore.Invalid, "upload rows to dataset", in.Name, "rows of type %s can't be read", mt).
			WithHint("send text/csv, application/x-ndjson or %s", ParquetType)
	}
	content, err := files.Decompressed(body, s.cfg.MaxUploadBytes)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return read(ctx, "body", content, schema, opt)
}

// bodyError sets the kind of an error of reading a request.
func bodyError(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return err // problemOf handles this error
	}
	return fleetscore.Errorf(fleetscore.Unavailable, "read request", "", "%w", err).WithHint("the connection ended early; send the request again")
}

// commitUpload puts the rows into the dataset.
func (s *server) commitUpload(ctx context.Context, in *uploadRowsInput, rows *fleetscore.Rows) (*Uploaded, error) {
	var complete *fleetscore.Micros
	if !in.CompleteUntil.IsZero() {
		m := fleetscore.MicrosOf(in.CompleteUntil)
		complete = &m
	}
	done, err := s.deps.Catalog.Upload(ctx, in.Name, rows, complete)
	if err != nil {
		return nil, err
	}
	s.deps.Ledger.Put(ledger.DatasetTopic(in.Name)) // jobs may wait for this dataset
	until := min(done.CompleteUntil, fleetscore.MicrosOf(s.now())).Time()
	return &Uploaded{Dataset: in.Name, Rows: int64(rows.Len()), Added: done.Added, Replaced: done.Replaced, Same: done.Same, Repeated: done.Repeated,
		CompleteUntil: &until, Version: done.Version}, nil
}

// LateFile is a file with readings that came too late for a dataset, or too early.
type LateFile struct {
	File     string    `json:"file"`
	Blob     string    `json:"blob" doc:"its name in the store: each line is a reading as JSON, with the reason"`
	Bytes    int64     `json:"size_bytes"`
	Modified time.Time `json:"modified" doc:"when it was written"`
}

// RedrivenLate is what became of files whose readings were handed over again.
type RedrivenLate struct {
	Files    int64      `json:"files" doc:"files whose readings are all in the hub again; they aren't kept any more"`
	Readings int64      `json:"readings" doc:"readings that are in the hub again"`
	Rejected []LateStay `json:"rejected" doc:"files that stay"`
}

// LateStay is a file that stays, because readings of it were rejected.
type LateStay struct {
	File   string `json:"file"`
	Reason string `json:"reason"`
}

// DroppedLate says how many files were removed.
type DroppedLate struct {
	Dropped int64 `json:"dropped"`
}

type someLateInput struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Name   string `path:"name"`
	Body   struct {
		Files []string `json:"files,omitempty" maxItems:"10000" doc:"the files"`
		All   bool     `json:"all,omitempty" doc:"all files that are there now"`
	}
}

func (s *server) registerLate(api huma.API) {
	const tag, path = "datasets", "/datasets/{name}/late"
	add(api, huma.Operation{OperationID: "list late readings", Method: http.MethodGet, Path: path, Tags: []string{tag}, Summary: "Files with readings that came too late for a dataset, or too early, by partition and message"},
		func(ctx context.Context, in *struct {
			Name string `path:"name"`
		}) (*body[List[LateFile]], error) {
			list, err := s.lateFiles(ctx, in.Name)
			if err != nil {
				return nil, err
			}
			return answerList(list, ""), nil
		})
	add(api, huma.Operation{OperationID: "redrive late readings", Method: http.MethodPost, Path: path + "/redrive", Tags: []string{tag}, Summary: "Hand late readings over again, by the configuration in force"},
		func(ctx context.Context, in *someLateInput) (*body[RedrivenLate], error) {
			out := RedrivenLate{Rejected: []LateStay{}}
			err := s.someLate(ctx, in, func(f LateFile) error {
				n, why, err := s.deps.RedriveLate(ctx, fleetscore.BlobName(f.Blob))
				if out.Readings += n; err != nil {
					return err
				}
				if why != "" {
					out.Rejected = append(out.Rejected, LateStay{f.File, why})
				} else {
					out.Files++
				}
				return nil
			})
			s.audit(ctx, in.Author, "redrive late readings", in.Name+": "+fleetscore.Counted(out.Readings, "reading"))
			if err != nil {
				return nil, err
			}
			return answer(out), nil
		})
	add(api, huma.Operation{OperationID: "drop late readings", Method: http.MethodPost, Path: path + "/drop", Tags: []string{tag}, Summary: "Remove late readings for good"},
		func(ctx context.Context, in *someLateInput) (*body[DroppedLate], error) {
			var out DroppedLate
			err := s.someLate(ctx, in, func(f LateFile) error {
				err := s.deps.Store.Delete(ctx, fleetscore.BlobName(f.Blob))
				if err == nil {
					out.Dropped++
				}
				return err
			})
			s.audit(ctx, in.Author, "drop late readings", in.Name+": "+fleetscore.Counted(out.Dropped, "file"))
			if err != nil {
				return nil, err
			}
			return answer(out), nil
		})
}

// lateFiles lists the files of a dataset.
func (s *server) lateFiles(ctx context.Context, dataset string) (out []LateFile, err error) {
	if err := catalog.CheckDataset(dataset); err != nil {
		return nil, err
	}
	if _, err := s.deps.Catalog.Dataset(dataset).Snapshot(ctx); err != nil {
		return nil, fleetscore.Wrap("list late readings", dataset, err)
	}
	for info, err := range s.deps.Store.List(ctx, catalog.LateFolder(dataset), store.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		out = append(out, LateFile{strings.TrimPrefix(string(info.Name), catalog.LateFolder(dataset)), string(info.Name), info.SizeBytes, info.Modified.UTC()})
	}
	return out, nil
}

// someLate calls fn with the files that a request names.
func (s *server) someLate(ctx context.Context, in *someLateInput, fn func(LateFile) error) error {
	const op = "choose late readings"
	if in.Body.All == (len(in.Body.Files) > 0) {
		return fleetscore.Errorf(fleetscore.Invalid, op, in.Name, "name files, or all of them")
	}
	list, err := s.lateFiles(ctx, in.Name)
	if err != nil {
		return err
	}
	there := make(map[string]LateFile, len(list))
	for _, f := range list {
		there[f.File] = f
	}
	if !in.Body.All {
		list = list[:0]
		for _, name := range in.Body.Files {
			f, ok := there[name]
			if !ok {
				return fleetscore.Errorf(fleetscore.NotFound, op, name, "the dataset %s has no such file of late readings", in.Name).WithHint("fleetscore late ls %s lists them", in.Name)
			}
			list = append(list, f)
		}
	}
	for _, f := range list {
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}
