package table

import (
	"bytes"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

const (
	goodMeta = `{"metaData":{"id":"x","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"TS\",\"type\":\"timestamp\",\"nullable\":true,\"metadata\":{}},{\"name\":\"Device\",\"type\":\"string\",\"nullable\":true,\"metadata\":{}},{\"name\":\"Val\",\"type\":\"double\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":["date","hour"],"configuration":{"fleetscore.time":"TS","fleetscore.key":"Device"},"createdTime":1}}`
	goodAdd  = `{"add":{"path":"date=2026-11-23/hour=09/a%20b.parquet","partitionValues":{"date":"2026-11-23","hour":"9"},"size":10,"modificationTime":1,"dataChange":true,"stats":"{\"numRecords\":3}","tags":{"fleetscore.shards":"0-31","fleetscore.first":"1","fleetscore.last":"2"}}}`
	goodTxn  = `{"txn":{"appId":"job/1","version":1}}`
	goodDel  = `{"remove":{"path":"date=2026-11-23/hour=09/a%20b.parquet","dataChange":true}}`
)

// FuzzDeltaLog reads commits of anybody: a table, or an error of kind corrupt that
// leaves what was read before as it was, and memory in proportion to the bytes.
func FuzzDeltaLog(f *testing.F) {
	for _, s := range []string{
		goodMeta + "\n" + goodAdd + "\n" + goodTxn, goodAdd + "\n" + goodDel, goodDel + "\n\n" + goodAdd, "", "\n\n\n", "{}", "null", "[]", `"x"`, "{", `{"add":null}`,
		`{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"]}}`, `{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}`,
		strings.ReplaceAll(goodAdd, "a%20b", "../../x"), strings.ReplaceAll(goodAdd, "a%20b", "%zz"), strings.ReplaceAll(goodAdd, `"9"`, `"99999999999999999999"`),
		strings.ReplaceAll(goodAdd, "0-31", "31-0"), strings.ReplaceAll(goodAdd, `3}`, `-3}`), strings.ReplaceAll(goodAdd, `3}`, `1e99}`), strings.ReplaceAll(goodMeta, "double", "map"),
		strings.ReplaceAll(goodMeta, `\"Val\"`, `\"Device\"`), strings.ReplaceAll(goodMeta, "timestamp", "string"), `{"commitInfo":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}",
		`{"checkpointMetadata":{"version":5}}` + "\n" + `{"sidecar":{"path":"x","sizeInBytes":9}}`, "PAR1\x00\x00\x15\x04", `{"txn":{"appId":"a","version":9223372036854775808}}`, `{"commitInfo":{"a":1},"add":{},"remove":{}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := OpenDelta(nil)
		if err := d.read("0", []byte(goodMeta+"\n"+goodAdd+"\n"+goodTxn)); err != nil {
			t.Fatal(err)
		}
		d.next = 1
		files, txns, gone, meta := maps.Clone(d.file), maps.Clone(d.txns), maps.Clone(d.gone), d.meta
		if err := d.read("1", data); err != nil {
			if !fleetscore.Corrupt.Is(err) {
				t.Errorf("%v, want kind corrupt", err)
			}
			if !cmp.Equal(files, d.file) || !cmp.Equal(txns, d.txns) || !cmp.Equal(gone, d.gone) || meta != d.meta {
				t.Error("a commit that can't be read changed the table")
			}
			return
		}
		d.next++
		snap, err := d.snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if most := bytes.Count(data, []byte("{")) + 1; len(snap.Files) > most || len(snap.Schema.Columns) > most+3 {
			t.Errorf("%d files and %d columns of %d bytes", len(snap.Files), len(snap.Schema.Columns), len(data))
		}
		last := ""
		for _, file := range snap.Files {
			if err := store.CheckName(fleetscore.BlobName(file.Path)); err != nil || file.Path <= last || file.Rows < 0 || file.Shards.First > file.Shards.Last {
				t.Errorf("%+v after %q, %v", file, last, err)
			}
			last = file.Path
			a, err := writeAdd(file, snap.Schema.Time, time.Unix(0, 0)) // what is read can be written again
			if err != nil {
				t.Fatal(err)
			}
			if again, err := readAdd(a); err != nil || *again != file {
				t.Errorf("%+v was written and read as %+v, %v", file, again, err)
			}
		}
		_ = snap.Rows()
		_ = snap.Schema.all()
	})
}

// TestSetAsideReadsEachCommitOnce: every job asks what the last hours' commits say, and
// doesn't read them again.
func TestSetAsideReadsEachCommitOnce(t *testing.T) {
	t.Parallel()
	inner, reads := openTest(t), 0
	b := &storetest.Faulty{Bucket: inner, Fail: func(op string, name fleetscore.BlobName) error {
		if op == "get" && strings.HasSuffix(string(name), ".json") {
			reads++
		}
		return nil
	}}
	writer := OpenDelta(inner)
	if err := writer.Create(t.Context(), deviceSchema); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		_, err := writer.Commit(t.Context(), Commit{Operation: "STREAMING UPDATE", Txns: map[string]int64{"n": int64(n)},
			Info: map[string]any{SetAsideInfo: []SetAside{{From: fleetscore.Micros(n), To: fleetscore.Micros(n + 1), Late: 2}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	d := OpenDelta(b)
	iv := fleetscore.Interval{From: fleetscore.Micros(5).Time(), To: fleetscore.Micros(15).Time()}
	for again := range 3 {
		got, err := d.SetAside(t.Context(), iv)
		if err != nil || got.Late != 20 {
			t.Errorf("%+v, %v; want 20 late readings", got, err)
		}
		if again == 0 {
			reads = 0
		}
	}
	if most := 2; reads > most { // whether there are more
		t.Errorf("%d commits were read again", reads)
	}
}
