package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/table"
)

// Dataset is a table of rows, complete up to a time.
type Dataset struct {
	Name          string     `json:"name"`
	Query         string     `json:"query,omitempty" doc:"the query that writes it; empty for uploaded ones"`
	Time          string     `json:"time" doc:"name of the time column"`
	Key           []string   `json:"key" nullable:"false"`
	Values        []string   `json:"values" nullable:"false"`
	Rows          int64      `json:"rows"`
	Files         int        `json:"files"`
	SizeBytes     int64      `json:"size_bytes"`
	First         *time.Time `json:"first,omitempty" doc:"smallest stamp"`
	Last          *time.Time `json:"last,omitempty" doc:"largest stamp"`
	CompleteUntil *time.Time `json:"complete_until,omitempty" doc:"no row with this stamp or an earlier one is still expected"`
	Version       int64      `json:"version" doc:"of the Delta table"`
}

// Uploaded says what an upload did.
type Uploaded struct {
	Dataset       string     `json:"dataset"`
	Rows          int64      `json:"rows" doc:"in the body"`
	Repeated      bool       `json:"repeated" doc:"the same body was uploaded before: no rows were added"`
	CompleteUntil *time.Time `json:"complete_until,omitempty"`
	Version       int64      `json:"version" doc:"of the Delta table"`
}

func (s *server) registerDatasets(api huma.API) {
	add(api, huma.Operation{OperationID: "list datasets", Method: http.MethodGet, Path: "/datasets", Tags: []string{"datasets"}, Summary: "Datasets"}, s.listDatasets)
	add(api, huma.Operation{OperationID: "read dataset", Method: http.MethodGet, Path: "/datasets/{name}", Tags: []string{"datasets"}, Summary: "A dataset"}, s.getDataset)
	rb := bytesBody("text/csv", "rows as CSV with a header line, or as NDJSON")
	rb.Content["application/x-ndjson"] = rb.Content["text/csv"]
	add(api, huma.Operation{OperationID: "upload rows", Method: http.MethodPost, Path: "/datasets/{name}/rows", Tags: []string{"datasets"}, Summary: "Add rows; the same body counts once",
		RequestBody: rb}, s.uploadRows)
}

// writers maps a dataset to the query that writes it.
func writers(cfg fleetscore.Config) map[string]string {
	out := map[string]string{}
	for name, q := range cfg.Queries {
		if p, err := query.Parse(q.SQL); err == nil { // it was judged when it was applied
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
		if fleetscore.NotFound.Is(err) {
			continue
		}
		if err != nil {
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
		return nil, fleetscore.Errorf(fleetscore.NotFound, "read dataset", in.Name, "there is no such dataset, or nothing was written yet").
			WithHint("GET %s/datasets lists them", Prefix)
	}
	return answer(d), err
}

func (s *server) dataset(ctx context.Context, name string, written map[string]string) (Dataset, error) {
	if err := catalog.CheckDataset(name); err != nil {
		return Dataset{}, err
	}
	snap, err := s.deps.Catalog.Dataset(name).Snapshot(ctx)
	if err != nil {
		return Dataset{}, err
	}
	d := Dataset{Name: name, Query: written[name], Time: snap.Schema.Time, Key: snap.Schema.Key, Values: snap.Schema.Values(),
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
	if m, ok := catalog.CompleteUntil(snap); ok {
		t := m.Time()
		d.CompleteUntil = &t
	}
	return d, nil
}

type uploadRowsInput struct {
	DatasetPath
	Key           []string  `query:"key" doc:"key columns; by default those of the hub"`
	Time          string    `query:"time" doc:"time column; by default that of the hub"`
	Values        []string  `query:"values" doc:"value columns; by default those of the dataset, or for a new one all others that hold a number in the first row"`
	CompleteUntil time.Time `query:"complete_until" doc:"the dataset is complete until then; by default until its last row. Never moves back"`
	ContentType   string    `header:"Content-Type"`
	Author        string    `header:"X-Fleetscore-User" doc:"who uploads, for the audit"`
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
		return nil, fleetscore.Errorf(fleetscore.Conflict, "upload rows to dataset", in.Name, "query %s writes it", q).
			WithHint("upload under another name, and let a pipeline score that")
	}
	rows, digest, err := s.readUpload(ctx, in, cfg.Hub)
	if err != nil {
		return nil, err
	}
	out, err := s.commitUpload(ctx, in, rows, digest)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "upload", "dataset "+in.Name)
	return answer(*out), nil
}

// readUpload reads the body's rows and its digest.
func (s *server) readUpload(ctx context.Context, in *uploadRowsInput, hub fleetscore.HubConfig) (*fleetscore.Rows, string, error) {
	schema := table.Schema{Time: in.Time, Key: in.Key, Values: in.Values}
	if schema.Time == "" {
		schema.Time = hub.Time
	}
	if len(schema.Key) == 0 {
		schema.Key = hub.Key
	}
	if schema.Time == "" || len(schema.Key) == 0 {
		return nil, "", fleetscore.Errorf(fleetscore.Invalid, "upload rows to dataset", in.Name, "neither the request nor a configuration says which columns are time and key").
			WithHint("send ?time=TS&key=Device,Tag, or apply a fleet.yaml first")
	}
	if snap, err := s.deps.Catalog.Dataset(in.Name).Snapshot(ctx); err == nil && len(schema.Values) == 0 {
		schema.Values = snap.Schema.Values()
	} else if err != nil && !fleetscore.NotFound.Is(err) {
		return nil, "", err
	}
	read := table.ReadCSV
	switch mt, _, _ := mime.ParseMediaType(in.ContentType); mt {
	case "", "text/csv", "application/csv", "text/plain", "application/octet-stream":
	case "application/x-ndjson", "application/jsonl", "application/x-jsonlines", "application/json":
		read = table.ReadNDJSON
	default:
		return nil, "", fleetscore.Errorf(fleetscore.Invalid, "upload rows to dataset", in.Name, "rows of type %s can't be read", mt).
			WithHint("send text/csv or application/x-ndjson")
	}
	body := &hashing{r: in.body(s.cfg.MaxUploadBytes), h: sha256.New()}
	got, err := read(ctx, "body", body, schema, table.ReadOptions{})
	if err == nil {
		_, err = io.Copy(io.Discard, body) // what the reader left counts for the digest
	}
	if body.err != nil { // the reader may have wrapped it beyond recognition
		err = bodyError(body.err)
	}
	if err != nil {
		return nil, "", fleetscore.Wrap("upload rows to dataset", in.Name, err)
	}
	rows := got.Rows
	if rows.Len() == 0 {
		return nil, "", fleetscore.Errorf(fleetscore.Invalid, "upload rows to dataset", in.Name, "the body holds no rows")
	}
	if len(rows.ValueNames) == 0 {
		return nil, "", fleetscore.Errorf(fleetscore.Invalid, "upload rows to dataset", in.Name, "no column but time and key holds a number in the first row").
			WithHint("send ?values=NAME,… to say which columns are values")
	}
	return rows, hex.EncodeToString(body.h.Sum(nil)), nil
}

// hashing hashes what is read through it and keeps the error that ended it.
type hashing struct {
	r   io.Reader
	h   hash.Hash
	err error
}

func (h *hashing) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.h.Write(p[:n])
	if err != nil && err != io.EOF {
		h.err = err
	}
	return n, err
}

// bodyError gives a failure to read a request its kind.
func bodyError(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return err // problemOf knows it
	}
	return fleetscore.Errorf(fleetscore.Unavailable, "read request", "", "%w", err).WithHint("the connection broke off; send it again")
}

// completeID is the txn entry of a dataset's table that says how far its
// uploads are complete.
const completeID = "upload/complete_until"

// commitUpload adds the rows in one commit whose txn entry is the body's digest,
// so that sending it twice adds it once.
func (s *server) commitUpload(ctx context.Context, in *uploadRowsInput, rows *fleetscore.Rows, digest string) (*Uploaded, error) {
	d, bodyID := s.deps.Catalog.Dataset(in.Name), "upload/"+digest
	if err := d.Create(ctx, table.DatasetSchema(rows.TimeName, rows.KeyNames, rows.ValueNames)); err != nil {
		return nil, fleetscore.Wrap("upload rows to dataset", in.Name, err)
	}
	complete := slices.Max(rows.Times)
	if !in.CompleteUntil.IsZero() {
		complete = fleetscore.MicrosOf(in.CompleteUntil)
	}
	var files []fleetscore.DataFile
	for {
		snap, err := d.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		c := table.Commit{Operation: "UPLOAD", Txns: map[string]int64{}, Info: map[string]any{"bodySHA256": digest}}
		_, repeated := snap.Txns[bodyID]
		if !repeated {
			c.Txns[bodyID] = 1
			if files == nil {
				if files, err = d.WriteRows(ctx, rows, digest[:16]); err != nil {
					return nil, err
				}
			}
			c.Add = files
		}
		out := &Uploaded{Dataset: in.Name, Rows: int64(rows.Len()), Repeated: repeated, Version: snap.Version}
		before, ok := snap.Txns[completeID]
		if !ok || int64(complete) > before {
			c.Txns[completeID] = int64(complete)
			before = int64(complete)
		}
		t := fleetscore.Micros(before).Time()
		out.CompleteUntil = &t
		if len(c.Txns) == 0 {
			return out, nil
		}
		if out.Version, err = d.Commit(ctx, c); err == nil {
			return out, nil
		}
		if !table.AlreadyCommitted(err) {
			return nil, err
		}
		// Another upload moved on in between: look again what is left to do.
	}
}
