// Package archtest keeps the architecture by test: which room may import which,
// which third-party modules the lower levels may use, and the size budgets of
// files, functions and packages. It holds tests only.
package archtest
