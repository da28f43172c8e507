package measure

import (
	"strings"
	"testing"
)

// Tables of the commands are pasted into the documentation.
func TestTableIsMarkdown(t *testing.T) {
	var out strings.Builder
	Table(&out, []string{"readers", "", "", "reads/s"},
		[]string{"1", "floor plugin", "", Count(1234567.4)}, []string{"", "KV v2", "", Decimals(1.005, 1)})
	const want = `
| readers | | | reads/s |
|---|---|---|---|
| 1 | floor plugin | | 1,234,567 |
| | KV v2 | | 1.0 |
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
}

func TestCountGroupsDigits(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 162200: "162,200", -1234: "-1,234"} {
		if got := Count(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}
