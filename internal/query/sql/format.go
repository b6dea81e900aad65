package sql

import (
	"fmt"
	"strings"

	"github.com/fleetscore/fleetscore/internal/query/value"
)

// Format writes an expression in one form: names in lower case, each operation in
// parentheses. Two expressions with the same form compute the same.
func Format(x Expr) string {
	var b strings.Builder
	format(&b, x)
	return b.String()
}

func format(b *strings.Builder, x Expr) {
	switch x := x.(type) {
	case nil:
	case *Column:
		b.WriteString("[" + strings.ToLower(strings.Join(x.Path, "].[")) + "]")
	case *Literal:
		b.Write(value.AppendJSON(nil, x.Value))
	case *Unary:
		write(b, "(", x.Op, " ", x.X, ")")
	case *Binary:
		write(b, "(", x.L, " ", x.Op, " ", x.R, ")")
	case *IsNull:
		write(b, "(", x.X, " is", not(x.Not), " null)")
	case *Between:
		write(b, "(", x.X, not(x.Not), " between ", x.Low, " and ", x.High, ")")
	case *In:
		write(b, "(", x.X, not(x.Not), " in (", x.List, "))")
	case *Like:
		write(b, "(", x.X, not(x.Not), " like ", x.Pattern, " escape ", x.Escape, ")")
	case *Case:
		write(b, "case ", x.Operand)
		for _, w := range x.Whens {
			write(b, " when ", w.If, " then ", w.Then)
		}
		write(b, " else ", x.Else, " end")
	case *Cast:
		write(b, fmt.Sprintf("cast%t(", x.Try), x.X, " as ", x.To.String(), ")")
	case *Call:
		write(b, strings.ToLower(x.Name), fmt.Sprintf("(%t%t ", x.Star, x.Distinct), x.Args, ")")
		if o := x.Over; o != nil {
			write(b, " over (", o.PartitionBy, " limit ", o.Limit.String(), " when ", o.When, " order")
			for _, k := range o.OrderBy {
				write(b, " ", k.Expr, fmt.Sprint(k.Desc))
			}
			b.WriteString(")")
		}
	case *Stamp:
		b.WriteString("system.timestamp()")
	case *WindowID:
		b.WriteString("system.window().id")
	}
}

func not(b bool) string {
	if b {
		return " not"
	}
	return ""
}

func write(b *strings.Builder, parts ...any) {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b.WriteString(p)
		case []Expr:
			for i, x := range p {
				if i > 0 {
					b.WriteString(", ")
				}
				format(b, x)
			}
		case Expr:
			format(b, p)
		}
	}
}

// Children returns the expressions that an expression is made of directly.
func Children(x Expr) (out []Expr) {
	add := func(l ...Expr) {
		for _, x := range l {
			if x != nil {
				out = append(out, x)
			}
		}
	}
	switch x := x.(type) {
	case *Unary:
		add(x.X)
	case *Binary:
		add(x.L, x.R)
	case *IsNull:
		add(x.X)
	case *Between:
		add(x.X, x.Low, x.High)
	case *In:
		add(x.X)
		add(x.List...)
	case *Like:
		add(x.X, x.Pattern, x.Escape)
	case *Case:
		add(x.Operand)
		for _, w := range x.Whens {
			add(w.If, w.Then)
		}
		add(x.Else)
	case *Cast:
		add(x.X)
	case *Call:
		add(x.Args...)
		if o := x.Over; o != nil {
			add(o.PartitionBy...)
			for _, k := range o.OrderBy {
				add(k.Expr)
			}
			add(o.When)
		}
	}
	return out
}
