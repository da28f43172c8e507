package measure

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Table prints a table as the documentation shows it, in Markdown, with an empty line before it.
func Table(w io.Writer, header []string, rows ...[]string) {
	line := func(cells []string) {
		for _, cell := range cells {
			fmt.Fprint(w, strings.TrimRight("| "+cell, " "), " ")
		}
		fmt.Fprintln(w, "|")
	}
	fmt.Fprintln(w)
	line(header)
	fmt.Fprintf(w, "|%s\n", strings.Repeat("---|", len(header)))
	for _, row := range rows {
		line(row)
	}
}

// Count formats a number without decimals, in groups of three digits.
func Count[N int | int32 | int64 | float64](n N) string {
	digits := strconv.FormatInt(int64(math.Round(math.Abs(float64(n)))), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if n < 0 {
		return "-" + digits
	}
	return digits
}

// Decimals formats a number with this many decimals.
func Decimals(n float64, decimals int) string { return strconv.FormatFloat(n, 'f', decimals, 64) }
