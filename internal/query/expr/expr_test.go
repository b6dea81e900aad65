package expr

import (
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// event is what the expressions of the tests see.
const event = `{"i":7,"f":2.5,"s":"text","n":"12","t":"2026-11-25T10:00:00Z","b":true,"nothing":null,"r":{"x":{"y":3},"list":[1,[2]]},"Case":1}`

func evaluate(t testing.TB, text string) (string, error) {
	script, err := sql.Parse("SELECT " + text + " AS result FROM input")
	if err != nil {
		return "", err
	}
	scope := &Scope{SQL: script.Source, Clause: "SELECT", Sources: []Source{{Alias: "input", Open: true}}}
	x, err := scope.Compile(script.Statements[0].Items[0].Expr)
	if err != nil {
		return "", err
	}
	var reader value.Reader
	r, err := reader.Read([]byte(event))
	if err != nil {
		t.Fatal(err)
	}
	env := &Env{Rows: []*value.Record{r}, Stamp: 1795601400e6} // 2026-11-25T10:10:00Z
	v := x.Eval(env)
	if x.Type != value.Any && v.Type() != value.Any && v.Type() != x.Type {
		t.Errorf("%s: the type is %s, and the value %s", text, x.Type, v.Type())
	}
	return string(value.AppendJSON(nil, v)), env.Err
}

// TestExpressions holds the examples of the service's reference pages, and the edges.
func TestExpressions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		// arithmetic
		{"1 + 2 * 3", "7"}, {"7 / 2", "3"}, {"7 / 2.0", "3.5"}, {"-7 / 2", "-3"}, {"-7 % 4", "-3"}, {"7 % 2.5", "2"}, {"1 / 0", "null"}, {"1.0 / 0", "null"},
		{"9223372036854775807 + 1", "null"}, {"-9223372036854775808", "-9223372036854775808"}, {"-(-9223372036854775808)", "null"}, {"-9223372036854775808 / -1", "null"},
		{"9223372036854775807 * 2", "null"}, {"i * f", "17.5"}, {"n + 1", "13"}, {"s + 1", "null"}, {"s + '!'", `"text!"`}, {"nothing + 1", "null"}, {"- f", "-2.5"}, {"b + 1", "2"},
		{"2 - 3 - 4", "-5"}, {"(2 - 3) * 4", "-4"}, {"170 & 75", "10"}, {"170 | 75", "235"}, {"170 ^ 75", "225"}, {"~170", "-171"}, {"f & 1", "null"},
		// conditions
		{"i > 5 AND f < 2", "false"}, {"i > 5 OR f < 2", "true"}, {"NOT i > 5", "false"}, {"nothing = 1", "null"}, {"nothing = 1 OR i = 7", "true"}, {"nothing = 1 AND i = 8", "false"},
		{"NOT nothing = 1", "null"}, {"nothing IS NULL", "true"}, {"s IS NOT NULL", "true"}, {"i BETWEEN 7 AND 8", "true"}, {"i NOT BETWEEN 7 AND 8", "false"}, {"i IN (1, 7)", "true"},
		{"i IN (1, NULL)", "null"}, {"i NOT IN (1, 2)", "true"}, {"i !> 6", "false"}, {"i !< 6", "true"}, {"i <> 7", "false"}, {"i != 7", "false"}, {"n = 12", "true"}, {"s = 12", "null"},
		{"i = 7.0", "true"}, {"t > '2026-11-25'", "true"}, {"CAST(t AS datetime) = '2026-11-25 10:00'", "true"}, {"b = 1", "true"},
		{"s LIKE 'te%'", "true"}, {"s LIKE 'T_XT'", "true"}, {"s LIKE 'ex'", "false"}, {"s NOT LIKE '%q%'", "true"}, {"s LIKE '[s-u]e%'", "true"}, {"s LIKE '[^s-u]%'", "false"},
		{"'50%' LIKE '50!%' ESCAPE '!'", "true"}, {"'5000' LIKE '50!%' ESCAPE '!'", "false"}, {"s LIKE nothing", "null"}, {"'a.c' LIKE 'abc'", "false"},
		// CASE, CAST
		{"CASE i WHEN 7 THEN 'seven' ELSE 'other' END", `"seven"`}, {"CASE WHEN i < 7 THEN 'less' END", "null"}, {"CASE nothing WHEN NULL THEN 1 ELSE 2 END", "2"},
		{"CASE WHEN i = 7 THEN 1 ELSE CAST('x' AS bigint) END", "1"}, {"CAST('12' AS bigint)", "12"}, {"CAST(2.9 AS bigint)", "2"}, {"CAST(-2.9 AS bigint)", "-2"}, {"CAST(12 AS nvarchar(max))", `"12"`},
		{"CAST('2026-11-25 10:00:05.123' AS datetime)", `"2026-11-25T10:00:05.123Z"`}, {"CAST('2026-11-25T10:00:00+02:00' AS datetime)", `"2026-11-25T08:00:00Z"`},
		{"TRY_CAST('x' AS bigint)", "null"}, {"TRY_CAST('1e3' AS float)", "1000"}, {"CAST(0.0 AS bit)", "false"}, {"CAST(-0.1 AS bit)", "true"}, {"CAST('true' AS bit)", "true"}, {"CAST(b AS float)", "1"},
		{"TRY_CAST('0x10' AS float)", "null"}, {"TRY_CAST('inf' AS float)", "null"}, {"CAST(nothing AS bigint)", "null"}, {"GetType(i)", `"bigint"`}, {"GetType(CAST(t AS datetime))", `"datetime"`}, {"GetType(r)", `"record"`},
		// mathematical functions
		{"ABS(-1)", "1"}, {"ABS(-1.5)", "1.5"}, {"CEILING(1.2)", "2"}, {"FLOOR(-1.2)", "-2"}, {"FLOOR(3)", "3"}, {"EXP(0)", "1"}, {"SQRT(9)", "3"}, {"SQRT(-1)", "null"}, {"SQUARE(3)", "9"},
		{"SIGN(-2.5)", "-1"}, {"SIGN(0)", "0"}, {"POWER(2, 10)", "1024"}, {"POWER(2.0, -1)", "0.5"}, {"POWER(2, -1)", "0"}, {"POWER(10, 30)", "null"},
		{"ROUND(1, 0)", "1"}, {"ROUND(-1, 0)", "-1"}, {"ROUND(0.5, 0)", "1"}, {"ROUND(-0.5, 0)", "-1"}, {"ROUND(1.234, 2)", "1.23"}, {"ROUND(1.234, 10)", "1.234"}, {"ROUND(123.4, -1)", "120"},
		{"ROUND(123.4, -10)", "0"}, {"ROUND(501.0101, -3)", "1000"}, {"ROUND(123.9995, 3)", "124"}, {"ROUND(1250, -2)", "1300"}, {"ROUND(-1250, -2)", "-1300"}, {"ROUND(5, -30)", "0"}, {"ROUND(9223372036854775807, -1)", "null"},
		// texts
		{"UPPER('aé')", `"AÉ"`}, {"LOWER('AÉ')", `"aé"`}, {"LEN('ab  ')", "2"}, {"LEN('  ab')", "4"}, {"LEN('茶')", "1"}, {"TRIM('      a test    ')", `"a test"`}, {"LTRIM('      Left test')", `"Left test"`},
		{"RTRIM('Right test    ')", `"Right test"`}, {"TRIM('~~x~~')", `"x"`}, {"LEFT('abcdefg', 2)", `"ab"`}, {"RIGHT('abcdefg', 2)", `"fg"`}, {"LEFT('ab', 5)", `"ab"`}, {"RIGHT('ab', 5)", `"ab"`},
		{"SUBSTRING('abcdefg', 2, 4)", `"bcde"`}, {"SUBSTRING('abc', 0, 2)", `"a"`}, {"SUBSTRING('abc', -5, 3)", `""`}, {"SUBSTRING('abc', 9, 1)", `""`}, {"SUBSTRING('abc', 2, 9)", `"bc"`},
		{"CHARINDEX('us', 'Focus')", "4"}, {"CHARINDEX('x', 'Focus')", "0"}, {"CHARINDEX('o', 'foo', 3)", "3"}, {"CHARINDEX('f', 'foo', -3)", "1"}, {"CHARINDEX('o', 'foo', 9)", "0"},
		{"PATINDEX('%100%', 'NJB 1006')", "5"}, {"PATINDEX('%[0-9]%', 'NJB')", "0"}, {"PATINDEX('NJ%', 'NJB')", "1"}, {"PATINDEX('%06', 'NJB 1006')", "7"}, {"REGEXMATCH('NJB 1006', '[0-9][0-9][0-9]')", "5"}, {"REGEXMATCH('x', '(')", "0"},
		{"REPLACE('abcde', 'cd', 'xx')", `"abxxe"`}, {"REPLACE('cdabcd', 'cd', 'x')", `"xabx"`}, {"REPLACE('abcde', '', 'xxx')", `"abcde"`}, {"REPLACE('', 'cde', 'xxx')", `""`}, {"REPLACE(NULL, 'cde', 'xxx')", "null"}, {"REPLACE('abcde', 'cde', NULL)", "null"},
		{"REPLICATE('0', 3)", `"000"`}, {"REPLICATE('0', -1)", "null"}, {"CONCAT(REPLICATE('0', 4 - LEN('T')), 'T')", `"000T"`}, {"SPACE(2)", `"  "`}, {"REVERSE('abcdefg')", `"gfedcba"`}, {"STUFF('abcdef', 2, 3, 'ijklmn')", `"aijklmnef"`},
		{"STUFF('abc', 9, 1, 'x')", `""`}, {"TRANSLATE('2*[3+4]/{7-2}', '[]{}', '()()')", `"2*(3+4)/(7-2)"`}, {"TRANSLATE('(137.4 72.3)', '( )', '[,]')", `"[137.4,72.3]"`},
		{"CONCAT('Make: ', 'Contoso', ', Model: ', NULL, 5)", `"Make: Contoso, Model: 5"`}, {"CONCAT(NULL, NULL)", `""`}, {"CONCAT_WS(', ', '1 Microsoft Way', NULL, 'Redmond')", `"1 Microsoft Way, Redmond"`}, {"CONCAT_WS(',', NULL, NULL)", `""`},
		{"UNICODE('茶')", "33590"}, {"NCHAR(33590)", `"茶"`}, {"NCHAR(-1)", "null"},
		// dates
		{"DATEDIFF(hour, '2026-11-25T10:59:59.9Z', '2026-11-25T11:00:00.1Z')", "1"}, {"DATEDIFF(minute, '2026-11-25T10:59:59.9Z', '2026-11-25T11:00:00.1Z')", "1"}, {"DATEDIFF(ss, '2026-11-25T10:59:59.9Z', '2026-11-25T11:00:00.1Z')", "1"},
		{"DATEDIFF(ms, '2026-11-25T10:59:59.9Z', '2026-11-25T11:00:00.1Z')", "200"}, {"DATEDIFF(hour, '2026-11-25T11:00:00.1Z', '2026-11-25T10:59:59.9Z')", "-1"}, {"DATEDIFF(year, '2025-12-31', '2026-01-01')", "1"},
		{"DATEDIFF(quarter, '2025-12-31', '2026-04-01')", "2"}, {"DATEDIFF(week, '2026-11-21', '2026-11-22')", "1"}, {"DATEDIFF(week, '2026-11-22', '2026-11-28')", "0"}, {"DATEDIFF(day, '1969-12-31T23:00:00Z', '1970-01-01')", "1"}, {"DATEDIFF(month, t, '2027-01-01')", "2"},
		{"DATEADD(hour, 2, t)", `"2026-11-25T12:00:00Z"`}, {"DATEADD(month, 1, '2026-01-31')", `"2026-02-28T00:00:00Z"`}, {"DATEADD(year, -1, '2024-02-29')", `"2023-02-28T00:00:00Z"`}, {"DATEADD(second, 1.9, t)", `"2026-11-25T10:00:01Z"`},
		{"DATEADD(quarter, 1, '2026-11-30')", `"2027-02-28T00:00:00Z"`}, {"DATEADD(day, 9223372036854775807, t)", "null"}, {"DATEADD(year, 9000, t)", "null"}, {"DATEADD(microsecond, -1, t)", `"2026-11-25T09:59:59.999999Z"`},
		{"DATEPART(weekday, t)", "4"}, {"DATEPART(week, '2026-01-04')", "2"}, {"DATEPART(dayofyear, '2026-12-31')", "365"}, {"DATEPART(quarter, t)", "4"}, {"DATEPART(ms, '2026-11-25T10:00:00.1234567Z')", "123"}, {"DATEPART(mcs, '2026-11-25T10:00:00.1234567Z')", "123456"},
		{"DATENAME(month, t)", `"November"`}, {"DATENAME(dw, t)", `"Wednesday"`}, {"DATENAME(hour, t)", `"10"`}, {"YEAR(t)", "2026"}, {"MONTH(t)", "11"}, {"DAY(t)", "25"}, {"YEAR(s)", "null"},
		{"DATETIMEFROMPARTS(2014, 9, 10, 12, DATEPART(minute, t) + 10, 00, 00)", `"2014-09-10T12:10:00Z"`}, {"System.Timestamp()", `"2026-11-25T10:10:00Z"`}, {"System.TIMESTAMP", `"2026-11-25T10:10:00Z"`},
		{"DATEADD(millisecond, 1500, '1970-01-01T00:00:00Z')", `"1970-01-01T00:00:01.5Z"`}, {"DATEADD(minute, -5, System.Timestamp())", `"2026-11-25T10:05:00Z"`},
		// NULL, records, arrays
		{"COALESCE(0, 'a')", "0"}, {"COALESCE(NULL, 'a')", `"a"`}, {"COALESCE(NULL, NULL)", "null"}, {"COALESCE(NULL, NULL, 2, NULL)", "2"}, {"NULLIF(4, 4)", "null"}, {"NULLIF(5, 7)", "5"}, {"NULLIF(i, nothing)", "7"},
		{"r.x.y", "3"}, {"input.r.x.y", "3"}, {"r.nothing.y", "null"}, {"i.x", "null"}, {"GetArrayElement(r.list, 0)", "1"}, {"GetArrayElement(r.list, 2)", "null"}, {"GetArrayLength(r.list)", "2"}, {"GetRecordPropertyValue(r, 'x')", `{"y":3}`},
		{"[Case]", "1"}, {"S", `"text"`}, {"[s]", `"text"`}, {"GetArrayElement(r.list, 1)", "[2]"}, {"GetArrayElement(i, 1)", "null"},
	} {
		got, err := evaluate(t, "("+strings.ReplaceAll(tt.text, "~~", "\u2003")+")")
		if err != nil || got != tt.want {
			t.Errorf("%s = %s, want %s (%v)", tt.text, got, tt.want, err)
		}
	}
}

// TestRefuses: an expression that makes no sense is refused at its place, with the
// nearest thing that works.
func TestRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"MEDAIN(i)", "line 1, column 8: the function MEDAIN is unknown"}, {"ISNULL(i, 0)", "write COALESCE"}, {"AVERAGE(i)", "write AVG"}, {"LASTVALUE(i)", "write LAST"}, {"CELING(i)", "is CEILING meant?"}, {"IIF(i > 1, 1, 2)", "write CASE"}, {"NOW()", "write System.Timestamp()"},
		{"UPPER()", "UPPER needs 1 arguments and has 0"}, {"UPPER(s, s)", "line 1, column 17: UPPER takes 1 arguments and has 2"}, {"LEN(r.x, 1)", "takes 1"}, {"DATEADD(hours, 1, 5)", "DATEADD needs a datetime here, and this is a bigint"},
		{"DATEPART(fortnight, t)", `"fortnight" is not a part of a date`}, {"DATEPART(minut, t)", "is minute meant?"}, {"CAST(i AS int)", "write bigint"}, {"CAST(i AS varchar(10))", "write nvarchar(max)"}, {"CAST(i AS bigit)", "is bigint meant?"}, {"CAST(i AS nvarchar(10))", "max is expected"},
		{"System.Timestamp() + 1", "DATEADD and DATEDIFF compute with times"}, {"System.Timestamp() = 5", "a datetime can't be compared with a bigint"}, {"AVG(i)", "the aggregate AVG can't be used in SELECT"}, {"UPPER(s) OVER (LIMIT DURATION(second, 1))", "looks back from single events"},
		{"i +", `a column, function, number or text is expected, not "AS"`}, {"CASE i END", "WHEN is expected"}, {"(SELECT 1)", "a query inside of an expression"}, {"EXISTS (i)", "EXISTS is not supported"}, {"i IS 5", "NULL is expected"}, {"1.5e999", "too large"},
		{strings.Repeat("(", 300) + "1", "nested more than"}, {strings.Repeat("- ", 300) + "i", "nested more than"}, {strings.Repeat("NOT ", 300) + "i", "nested more than"}, {"CASE WHEN 5 THEN 1 END", "WHEN needs a condition"}, {"System.Window().Id", "only in the SELECT of a query with GROUP BY"},
	} {
		_, err := evaluate(t, tt.text)
		if !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.text, err, tt.want)
		}
	}
}

// TestFailures: what stops a query while it runs names its place.
func TestFailures(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"CAST(s AS bigint)", `line 1, column 8: CAST: "text" can't be converted to bigint`}, {"LEFT(s, -1)", "the length -1 is negative"}, {"SUBSTRING(s, 1, -1)", "is negative"}, {"TRANSLATE(s, 'ab', 'c')", "as many translations"},
		{"DATETIMEFROMPARTS(2026, 2, 30, 0, 0, 0, 0)", "don't make a datetime"}, {"REPLICATE('x', 99999999999)", "longer than"}, {"REPLACE(REPLICATE('x', 1000000), 'x', 'yyyyyyyyyy')", "longer than"},
	} {
		got, err := evaluate(t, tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) || got != "null" {
			t.Errorf("%s = %s: got %v, want an error with %q", tt.text, got, err, tt.want)
		}
	}
}
