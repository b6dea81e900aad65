package sql

import "testing"

// TestWritten: an expression is shown as it is written, with the spaces of its texts, and without comments and the text behind it.
func TestWritten(t *testing.T) {
	t.Parallel()
	s, err := Parse("SELECT COUNT(*) AS N FROM a TIMESTAMP BY TS GROUP BY LEFT( [My Device], 1 ) + '  / --  ' /* of */\n\t+ Tag -- the sensor\n, (a+b ) , TumblingWindow(second, 5)")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"LEFT( [My Device], 1 ) + '  / --  ' + Tag", "(a+b )"} {
		if got := s.Written(s.Statements[0].GroupBy[i]); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
