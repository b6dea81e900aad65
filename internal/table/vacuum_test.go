package table

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestVacuumListsLittle: replaced files are deleted the first time, wherever they lie;
// files that no commit knows are found in a few rounds, and no round lists more than a
// few of the table's dates, or the same hour again and again.
func TestVacuumListsLittle(t *testing.T) {
	t.Parallel()
	const dates = 6 * sweepDates
	ctx, inner, lists := t.Context(), openTest(t), map[string]int{}
	d := OpenDelta(&storetest.Faulty{Bucket: inner, Fail: func(op string, name fleetscore.BlobName) error {
		if op == "list" {
			lists[string(name)]++
		}
		return nil
	}})
	if err := d.Create(ctx, deviceSchema); err != nil {
		t.Fatal(err)
	}
	write := func(date, hour int, id string) []fleetscore.DataFile {
		at := fleetscore.MicrosOf(time.Date(2026, 1, 1+date, hour, 30, 0, 0, time.UTC))
		files, err := d.WriteRows(ctx, &testkit.Predictions([]fleetscore.Key{"a"}, []fleetscore.Micros{at}, 1).Rows, id)
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	var add []fleetscore.DataFile
	var replaced []string
	for date := range dates {
		write(date, 10, "stray")
		add = append(add, write(date, 9, "kept")...)
	}
	for _, date := range []int{0, dates / 2, dates - 1} {
		f := write(date, 9, "replaced")
		add, replaced = append(add, f...), append(replaced, f[0].Path)
	}
	for _, c := range []Commit{{Operation: "WRITE", Add: add}, {Operation: "DELETE", Remove: replaced}} {
		if _, err := d.Commit(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	there := func() (n int) {
		for _, err := range inner.List(ctx, dataPrefix, store.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	inUse := replaced[0]
	keep := func(context.Context) (func(string) bool, error) {
		return func(path string) bool { return path == inUse }, nil
	}
	later := time.Now().Add(time.Minute)
	d.lastSwept = fmt.Sprintf("%s2026-01-%02d/", dataPrefix, sweepDates) // the next turn holds none of the replaced files
	for round, left := 0, dates; left > 0; round++ {
		clear(lists)
		n, err := d.Vacuum(ctx, later, false, keep)
		if err != nil {
			t.Fatal(err)
		}
		want := sweepDates
		if round == 0 {
			want += 2 // of the three replaced ones
		}
		if n != want {
			t.Fatalf("round %d deleted %d files, want %d", round, n, want)
		}
		left -= sweepDates
		hours := 0
		for name := range lists {
			if name != dataPrefix && len(name) > len(dataPrefix+"2026-01-01/") {
				hours++
			}
		}
		if most := map[bool]int{true: 3, false: 1}[round == 0]; hours > most {
			t.Errorf("round %d listed %d hours for replaced files, at most %d have some: %v", round, hours, most, lists)
		}
		if len(lists)-hours > 1+sweepDates+1 { // the dates' names, the turn, and the log
			t.Errorf("round %d listed %v", round, lists)
		}
	}
	if n := there(); n != dates+1 {
		t.Errorf("%d files are left, want those of the table and the one in use: %d", n, dates+1)
	}
	inUse = ""
	if n, err := d.Vacuum(ctx, later, false, keep); err != nil || n != 1 {
		t.Errorf("the file that was in use: deleted %d, %v", n, err)
	}
	for date := range dates {
		write(date, 10, "stray")
	}
	if n, err := OpenDelta(inner).Vacuum(ctx, time.Now().Add(time.Minute), true, keep); err != nil || n != dates || there() != dates {
		t.Errorf("all at once: deleted %d of %d, %v", n, dates, err)
	}
}
