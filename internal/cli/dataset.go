package cli

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/table"
)

func newDatasetCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "dataset", Short: "Tables of rows"}
	row := func(l *listing, d api.Dataset) {
		l.add(d, d.Name, orDash(d.Query), thousands(d.Rows), strconv.Itoa(d.Files), stampOf(d.First), stampOf(d.Last), stampOf(d.CompleteUntil), orDash(d.Problem))
	}
	columns := []string{"dataset", "query", "rows", "files", "first", "last", "complete until", "problem"}
	cmd.AddCommand(
		remote(&cobra.Command{Use: "show NAME", Short: "Show a dataset", Example: "  fleetscore dataset show readings", Args: cobra.ExactArgs(1)},
			func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
				var d api.Dataset
				if err := c.Get(ctx, "/datasets/"+url.PathEscape(args[0]), nil, &d); err != nil {
					return nil, err
				}
				l := &listing{columns: columns, single: true}
				row(l, d)
				return l, nil
			}),
		remote(&cobra.Command{Use: "list", Short: "List the datasets", Example: "  fleetscore dataset list", Args: cobra.NoArgs},
			func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
				var got api.List[api.Dataset]
				if err := c.Get(ctx, "/datasets", nil, &got); err != nil {
					return nil, err
				}
				l := &listing{columns: columns}
				for _, d := range got.Items {
					row(l, d)
				}
				return l, nil
			}),
		newDatasetUploadCommand(), newDatasetMaintainCommand())
	return cmd
}

func newDatasetMaintainCommand() *cobra.Command {
	return remote(&cobra.Command{
		Use:   "maintain [NAME]",
		Short: "Join small files and delete what nobody needs",
		Long: `Takes rows out of a dataset that are older than its retention, joins small files,
and deletes files that a commit replaced a day ago or that no commit ever made
visible. Without a name all datasets, predictions and coverage are maintained, and
jobs that ended longer ago than their pipeline's history are forgotten with their
logs. Other rows don't change. A server does this by itself every ten minutes.`,
		Example: "  fleetscore dataset maintain readings",
		Args:    cobra.MaximumNArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		query := url.Values{}
		if len(args) > 0 {
			query.Set("dataset", args[0])
		}
		var got api.List[catalog.Maintained]
		if err := c.Send(ctx, http.MethodPost, "/maintenance", query, "", nil, &got); err != nil {
			return nil, err
		}
		l := &listing{columns: []string{"table", "files", "joined", "into", "expired", "deleted", "problem"}}
		for _, m := range got.Items {
			l.add(m, m.Table, strconv.Itoa(m.Files), strconv.Itoa(m.Replaced), strconv.Itoa(m.By), strconv.Itoa(m.Expired), strconv.Itoa(m.Deleted), orDash(m.Problem))
		}
		return l, nil
	})
}

func newDatasetUploadCommand() *cobra.Command {
	var until string
	cmd := remote(&cobra.Command{
		Use:   "upload NAME FILE",
		Short: "Add rows of a CSV or NDJSON file to a dataset",
		Long: `Adds the rows of a file to a dataset; the time and key columns are those of the
hub in fleet.yaml. A row with the time and key of one that is there takes its
place, and within the file the last such row counts; sending the same file twice
changes nothing. The dataset is complete until its last row, or until
--complete-until.`,
		Example: "  fleetscore dataset upload history readings.csv",
		Args:    cobra.ExactArgs(2),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		f, err := os.Open(args[1])
		if err != nil {
			return nil, fleetscore.Errorf(fleetscore.NotFound, "read rows", args[1], "%w", pathCause(err))
		}
		defer f.Close()
		media := "text/csv"
		if ext := filepath.Ext(args[1]); ext == ".ndjson" || ext == ".jsonl" {
			media = "application/x-ndjson"
		}
		query := url.Values{}
		if until != "" {
			t, err := table.ParseTime(until)
			if err != nil {
				return nil, usagef("--complete-until %s: not a time such as 2026-11-23T10:00:00Z", until)
			}
			query.Set("complete_until", t.Time().Format(time.RFC3339Nano))
		}
		var up api.Uploaded
		if err := c.Send(ctx, http.MethodPost, "/datasets/"+url.PathEscape(args[0])+"/rows", query, media, f, &up); err != nil {
			return nil, err
		}
		l := &listing{columns: []string{"dataset", "rows", "added", "replaced", "same", "repeated", "complete until"}, single: true}
		l.add(up, up.Dataset, thousands(up.Rows), thousands(up.Added), thousands(up.Replaced), thousands(up.Same), thousands(up.Repeated), stampOf(up.CompleteUntil))
		return l, nil
	})
	cmd.Flags().StringVar(&until, "complete-until", "", "no row with this stamp or an earlier one is still expected")
	return cmd
}

// reading is the flags that say how files of rows are read.
type reading struct {
	separator, decimal, unit string
}

// words are how messages speak of the flags.
var words = table.Words{Separator: "--separator", Decimal: "--decimal", TimeUnit: "--time-unit"}

func (r *reading) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.separator, "separator", "", "what separates the fields of CSV: a character, comma, semicolon, tab or space; guessed from the header if not given")
	f.StringVar(&r.decimal, "decimal", ".", "what stands before the decimals of numbers in CSV: . or ,")
	f.StringVar(&r.unit, "time-unit", "", "what times that are numbers count since 1970: s, ms, us or ns")
}

// options judges the flags.
func (r *reading) options() (table.ReadOptions, error) {
	opt := table.ReadOptions{TimeUnit: table.TimeUnit(r.unit), Say: words}
	if opt.TimeUnit.Validate() != nil {
		return opt, usagef("--time-unit %s: s, ms, us or ns are possible", r.unit)
	}
	if r.decimal != "." && r.decimal != "," {
		return opt, usagef("--decimal %s: . or , are possible", r.decimal)
	}
	opt.Decimal = r.decimal[0]
	text := r.separator
	for name, c := range map[string]string{"comma": ",", "semicolon": ";", "tab": "\t", `\t`: "\t", "space": " "} {
		if text == name {
			text = c
		}
	}
	switch {
	case text == "":
	case len(text) > 1 || text[0] >= 0x80 || text == "\"" || text == "\n" || text == "\r":
		return opt, usagef("--separator %s: one character, or comma, semicolon, tab or space are possible", r.separator)
	default:
		opt.Separator = text[0]
	}
	if opt.Separator == ',' && opt.Decimal == ',' {
		return opt, usagef("--separator and --decimal can't both be a comma")
	}
	return opt, nil
}
